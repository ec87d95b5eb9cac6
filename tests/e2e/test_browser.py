"""A real browser in the shop: it draws the pages, keeps its cookies, and has nothing to complain about."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from harness.data import Certificate
from harness.site import Site, Start

PAGE_SECONDS_MAX = 20

pytestmark = pytest.mark.browser


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Chromium without a window, and without its own errands on the network."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium, "chromium is missing (Debian: chromium)"
    assert driver, "chromedriver is missing (Debian: chromium-driver)"
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--ignore-certificate-errors",
        "--window-size=1280,1600",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.set_page_load_timeout(PAGE_SECONDS_MAX)
    yield chrome
    chrome.quit()


def complaints(browser: webdriver.Chrome) -> list[str]:
    """Errors of the console: what could not be loaded, what a policy forbade.

    Where a page names no icon, as the admin, the browser asks for /favicon.ico; there is none.
    """
    entries = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    return [message for message in entries if "/favicon.ico" not in message]


def pictures_are_drawn(browser: webdriver.Chrome) -> bool:
    """Every picture of the page has arrived and can be drawn."""
    script = "return [...document.images].filter(i => i.loading !== 'lazy').every(i => i.complete && i.naturalWidth > 0)"
    return browser.execute_script(script)


def test_a_visit_with_a_browser(start: Start, browser: webdriver.Chrome) -> None:
    shop = start("shop", workers=2, env={"QUINTET_FILES_MEDIA": "public"})
    browser.get(shop.url)
    assert browser.title == "Maison Cadence"
    assert pictures_are_drawn(browser)
    # The style sheet has come: the paper is warm.
    body = browser.find_element(By.TAG_NAME, "body")
    assert body.value_of_css_property("background-color") == "rgba(250, 245, 234, 1)"

    browser.find_element(By.ID, "q").send_keys("guitar")
    browser.find_element(By.CSS_SELECTOR, ".search button").click()
    # The page before has cards, too.
    wait = WebDriverWait(browser, PAGE_SECONDS_MAX)
    wait.until(
        lambda b: "q=guitar" in b.current_url and b.execute_script("return document.readyState") == "complete"
    )
    cards = browser.find_elements(By.CSS_SELECTOR, ".card")
    assert cards
    cards[0].click()
    wait.until(lambda b: "/product/" in b.current_url)
    assert "Guitar" in browser.find_element(By.TAG_NAME, "h1").text

    browser.get(f"{shop.url}/accounts/login/")
    browser.find_element(By.NAME, "username").send_keys("admin")
    browser.find_element(By.NAME, "password").send_keys("demo")
    browser.find_element(By.CSS_SELECTOR, ".form button").click()
    wait.until(lambda b: "admin’s orders" in b.page_source)

    browser.get(f"{shop.url}/admin/catalogue/product/")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#result_list tbody tr")) == 50
    assert complaints(browser) == []


def test_over_tls_the_browser_speaks_http_2(
    start: Start, browser: webdriver.Chrome, certificate: Certificate
) -> None:
    shop: Site = start(
        "shop",
        workers=2,
        flags=certificate.flags,
        tls=certificate.trust,
        env={"QUINTET_FILES_MEDIA": "public"},
    )
    browser.get(f"{shop.url}/catalogue/")
    script = "return [...performance.getEntries()].filter(e => e.nextHopProtocol).map(e => e.nextHopProtocol)"
    # Pictures further down are loaded when the page stands still.
    WebDriverWait(browser, PAGE_SECONDS_MAX).until(lambda b: len(b.execute_script(script)) > 10)
    assert set(browser.execute_script(script)) == {"h2"}
    assert complaints(browser) == []


# Opens a WebSocket, sends text, bytes and much of both, and tells what came back and how it ended.
CONVERSATION = """
const done = arguments[arguments.length - 1];
const socket = new WebSocket(location.origin.replace("http", "ws") + "/greet");
socket.binaryType = "arraybuffer";
const sent = ["adi\\u00f3s", "x".repeat(200000), new Uint8Array([0, 255]).buffer, new Uint8Array(100000).buffer];
const sizes = [];
let greeting;
socket.onmessage = event => {
    if (!greeting) {
        greeting = JSON.parse(event.data);
    } else {
        sizes.push(event.data.length ?? event.data.byteLength);
    }
    if (sizes.length === sent.length) {
        socket.close(4000, "thank you");
    } else {
        socket.send(sent[sizes.length]);
    }
};
socket.onclose = event => done({
    greeting, sizes, extensions: socket.extensions, code: event.code, reason: event.reason, clean: event.wasClean
});
"""


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_a_websocket_in_a_browser(
    start: Start, browser: webdriver.Chrome, certificate: Certificate, version: str
) -> None:
    flags = ("--app", "sockets:application")
    if version == "2":
        site = start("sockets", flags=(*flags, *certificate.flags), tls=certificate.trust)
    else:
        site = start("sockets", flags=flags)
    browser.get(f"{site.url}/pid")
    told = browser.execute_async_script(CONVERSATION)
    # Over TLS the browser uses the connection that it has already (RFC 8441).
    assert told["greeting"]["scope"]["http_version"] == version
    assert told["sizes"] == [5, 200_000, 2, 100_000]
    assert told["extensions"].startswith("permessage-deflate")
    assert (told["code"], told["reason"], told["clean"]) == (4000, "", True)
    site.log.wait_for("/greet heard 4000")
