"""PEP 3333 from end to end: what a plain WSGI app may do, and what it sees."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness import places
from harness.data import ShopData
from harness.processes import wait_until
from harness.raw import Closed
from harness.site import Site, Start
from harness.visitor import Visitor


@pytest.fixture
def site(plain: Start) -> Site:
    return plain(workers=1)


@pytest.mark.short
def test_the_environ(site: Site) -> None:
    environ = site.post("/environ/x?q=1&q=2", content=b"body", headers={"X-A-B": "c"}).json()
    assert environ["REQUEST_METHOD"] == "POST"
    assert environ["SCRIPT_NAME"] == ""
    assert environ["PATH_INFO"] == "/environ/x"
    assert environ["QUERY_STRING"] == "q=1&q=2"
    assert environ["CONTENT_LENGTH"] == "4"
    assert environ["SERVER_PORT"] == str(site.port)
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["HTTP_X_A_B"] == "c"
    assert environ["HTTP_HOST"] == f"localhost:{site.port}"
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["wsgi.multithread"] is True
    assert environ["wsgi.multiprocess"] in {True, False}
    assert environ["wsgi.run_once"] is False
    assert "HTTP_CONTENT_LENGTH" not in environ


def test_mounted_below_a_path(plain: Start) -> None:
    site = plain(workers=1, flags=("--mount", "/deep/shop"))
    environ = site.get("/deep/shop/environ").json()
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/deep/shop", "/environ")
    assert site.get("/elsewhere").status_code == 404


@pytest.mark.parametrize("how", ["read", "sized", "lines", "readline", "short_lines", "readlines"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_every_way_to_read_a_body(site: Site, how: str, chunked: bool) -> None:
    body = b"first\nsecond\n\nlast without a line feed" * 3000
    content = iter([body]) if chunked else body
    assert site.post(f"/echo?how={how}", content=content).content == body


def test_a_body_that_nobody_reads_does_not_hurt_the_next_request(site: Site) -> None:
    with site.client() as client:
        for size in (10, 1_000_000):
            assert client.post("/echo?how=none", content=b"x" * size).content == b""
            assert client.post("/echo?how=5", content=b"12345" + b"x" * size).content == b"12345"
        assert client.get("/hello").text == "hello"


def test_write_and_iterate(site: Site) -> None:
    assert site.get("/write").text == "written, twice, and returned"


def test_exc_info_replaces_headers_that_are_not_out_yet(site: Site) -> None:
    response = site.get("/late-error")
    assert (response.status_code, response.reason_phrase) == (500, "Oh Dear")
    assert response.headers["x-mood"] == "bad"
    assert response.text == "sorry"


def test_exc_info_breaks_off_what_is_out(site: Site) -> None:
    site.allow_log("found too late")
    with site.raw() as client, pytest.raises((Closed, ValueError)):
        client.request("GET /too-late-error").answer()
    site.log.wait_for("ValueError: found too late")
    assert site.get("/hello").text == "hello"


def test_an_exception_is_a_500_with_the_request_id_and_one_entry(site: Site) -> None:
    site.allow_log("plain failure")
    response = site.get("/raise", headers={"X-Request-Id": "story-4711"})
    assert response.status_code == 500
    assert "plain failure" not in response.text, "the world needs no traceback"
    site.log.wait_for("RuntimeError: plain failure")
    assert site.log.count("RuntimeError: plain failure") == 1
    shown = response.headers.get("x-request-id", "") + response.text
    logged = str(site.log)
    identifier = next(
        (
            word
            for word in shown.replace("<", " ").replace(">", " ").split()
            if len(word) >= 8 and word in logged
        ),
        None,
    )
    assert identifier, f"no request id in common: {shown}"


def test_close_is_always_called_and_once(site: Site) -> None:
    site.get("/stream?lines=3")
    wait_until(
        lambda: site.get("/events").json() == ["stream finished", "stream closed"], 5, "close() is called"
    )
    # Also for HEAD, where the body is not sent.
    site.fetch("HEAD", "/stream?lines=1")
    wait_until(lambda: site.get("/events").json().count("stream closed") == 2, 5, "close() is called again")


def test_file_wrapper(site: Site, tmp_path: Path) -> None:
    blob = os.urandom(2_000_000)
    file = tmp_path / "blob"
    file.write_bytes(blob)
    assert site.get(f"/file?path={file}").content == blob
    assert site.get(f"/file?path={file}&from=1500000").content == blob[1_500_000:]


def test_a_body_shorter_than_it_says_is_broken_off(site: Site) -> None:
    site.allow_log("length|short|Content-Length|content-length")
    with site.raw() as client:
        client.request("GET /short").head()
        with pytest.raises(Closed):
            client.exactly(10)


def test_repeated_and_latin_1_fields(site: Site) -> None:
    with site.raw() as client:
        answer = client.request("GET /fields").answer()
    assert [value for name, value in answer.fields if name == "Set-Cookie"] == ["a=1", "b=2"]
    assert answer.get("X-Name") == "Gr\xfcn"


def test_response_splitting_is_a_500(site: Site) -> None:
    site.allow_log("header|X-Evil|control")
    response = site.get("/bad-fields")
    assert response.status_code in {500, 502}
    assert "set-cookie" not in response.headers


def test_status_lines_of_the_apps_own(site: Site) -> None:
    with site.raw() as client:
        answer = client.request("GET /status?line=299%20Almost%20Fine").answer()
    assert (answer.status, answer.reason) == (299, "Almost Fine")


def test_what_the_app_prints_is_seen(site: Site) -> None:
    site.get("/print?say=here")
    site.log.wait_for("printed here")
    site.log.wait_for("erred here")


def test_threads_of_a_worker_run_side_by_side(plain: Start) -> None:
    site = plain(workers=1, threads=4)
    clients = [site.raw().request("GET /sleep?seconds=1") for _ in range(4)]
    wait_until(lambda: site.status()["gateway"]["slots_busy"] == 4, 3, "all four run")
    assert {client.answer().status for client in clients} == {200}
    for client in clients:
        client.close()


class TestValidated:
    """wsgiref.validate wrapped around the apps: it watches both sides of the contract."""

    def test_the_plain_app(self, start: Start) -> None:
        env = {"VALIDATED_APP": "plain:application"}
        site = start("plain", flags=("--app", "validated:application"), env=env)
        for path in ("/hello", "/environ", "/big?size=300000", "/stream?lines=3", "/write", "/fields"):
            assert site.get(path).status_code == 200, path
        for how in ("sized", "lines", "readline", "readlines"):
            assert site.post(f"/echo?how={how}", content=b"a\nb\n" * 50_000).content == b"a\nb\n" * 50_000
        assert site.fetch("HEAD", "/hello").status_code == 200

    def test_the_shop(self, start: Start, shop_data: ShopData) -> None:
        env = {"VALIDATED_APP": "shop.wsgi:application", "PYTHONPATH": str(places.APPS / "plain")}
        site = start("shop", flags=("--app", "validated:application"), env=env)
        with Visitor(site) as visitor:
            for path in (
                "/",
                "/catalogue/?page=2",
                "/api/products/",
                "/export/products.csv",
                "/hello/",
                "/nowhere",
            ):
                assert visitor.open(path).status_code in {200, 404}, path
            visitor.submit("", {"username": "customer", "password": "demo"}, on="/accounts/login/")
            product = next(link for link in visitor.links() if link.startswith("/product/"))
            photo = b"\x89PNG\r\n\x1a\n" + os.urandom(500_000)
            visitor.submit(
                "/review/",
                {"stars": "5", "text": "x"},
                files={"photo": ("a.png", photo, "image/png")},
                on=product,
            )
            assert "Thank you" in visitor.page.text
            picture = next(link for link in visitor.links() if link.startswith("/media/reviews/"))
            assert visitor.open(picture).content == photo


def test_json_of_the_environ_has_strings_only(site: Site) -> None:
    with site.raw() as client:
        environ = json.loads(client.request("GET /environ").answer().text)
    for name in (
        "REQUEST_METHOD",
        "SERVER_NAME",
        "SERVER_PORT",
        "PATH_INFO",
        "QUERY_STRING",
        "SERVER_PROTOCOL",
    ):
        assert isinstance(environ[name], str), name
