"""Routes: which requests go where, and what is changed on their way, as clients and the app see it."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from harness import places
from harness.site import Site, Start

CONFIG = """
[[worker_pool]]
name = "slow"
match = "/no-such-path"
app_timeout = "30s"

[[route]]
name = "admin"
path = ["/admin", "/admin/*"]
respond = ""
status = 403

[[route]]
name = "other-host"
host = ["docs.localhost", "*.docs.localhost"]
files = "public"
response_headers = ["X-Frame-Options: DENY", "-Accept-Ranges"]

[[route]]
name = "moved"
path = "/old/*"
rewrite = "^/old/(.*)$ => /new/$1"
redirect = "https://example.org{path}{query}"
status = 301

[[route]]
name = "gone"
path = "~^/gone/[0-9]+$"
respond = "It is gone."
status = 410

[[route]]
name = "write"
path = "/echo"
method = ["POST", "PUT"]
body_max = "100B"
app = "slow"

[[route]]
name = "beta"
path = "/environ"
header = ["X-Beta=1"]
app = "slow"
request_headers = ["X-Route: beta", "+X-Seen: {path}{query}", "-Cookie", "X-Forwarded-For: {client}"]
response_headers = ["+X-Answered: {scheme}", "-Content-Type"]

[[route]]
name = "stripped"
path = "/v1/*"
strip_prefix = "/v1"

[[route]]
name = "mounted"
path = "/below/*"
mount = "/below"

[[route]]
name = "quick"
path = "/sleep"
header = "X-Quick"
app_timeout = "300ms"

[[route]]
name = "static-docs"
path = ["/docs", "/docs/*"]
files = "public"
strip_prefix = "/docs"
"""


# bcrypt of "secret", of the least cost that there is: stories are not for guessing.
ANNA = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"


def start_routes(start: Start, directory: Path, config: str = CONFIG, **options: Any) -> Site:
    """The plain app with these routes."""
    shutil.copy(places.APPS / "plain" / "plain.py", directory / "plain.py")
    (directory / "quintet.toml").write_text(config)
    public = directory / "public"
    (public / "part").mkdir(parents=True)
    (public / "index.html").write_text("the front page")
    (public / "part" / "index.html").write_text("a part")
    (public / "a b.txt").write_text("a file")
    (directory / "secret.txt").write_text("not for you")
    site = start(directory, flags=("--app", "plain:application"), wait=False, **options)
    site.wait_ready()
    site.wait_workers(1 + config.count("[[worker_pool]]"))
    return site


@pytest.fixture
def site(start: Start, tmp_path: Path) -> Site:
    """All of `CONFIG`."""
    return start_routes(start, tmp_path)


def raw_status(site: Site, head: str) -> int:
    """By hand: a client would normalise the path."""
    with site.raw() as raw:
        return raw.request(head).answer().status


def test_host_path_method_and_header_choose(site: Site) -> None:
    assert site.get("/hello").text == "hello", "what no route takes goes the old way"
    for host in ("docs.localhost", "DOCS.localhost:8000", "a.b.docs.localhost"):
        assert site.get("/", headers={"Host": host}).text == "the front page"
    assert site.get("/", headers={"Host": "baddocs.localhost"}).text == "hello"
    pools = {worker["pool"]: worker["pid"] for worker in site.status()["workers"]}
    plainly = site.get("/environ").json()
    beta = site.get("/environ", headers={"X-Beta": "1"})
    assert "HTTP_X_ROUTE" not in plainly
    assert beta.json()["HTTP_X_ROUTE"] == "beta"
    assert site.get("/environ", headers={"X-Beta": "2"}).json().get("HTTP_X_ROUTE") is None
    assert set(pools) == {"default", "slow"}
    assert site.get("/echo?how=none").text == "", "GET is not the method of that route"
    assert site.post("/echo", content=b"x" * 100).content == b"x" * 100
    assert site.post("/echo", content=b"x" * 101).status_code == 413


def test_redirects_and_fixed_answers(site: Site) -> None:
    moved = site.get("/old/a%20b?x=1&y=%2F")
    assert (moved.status_code, moved.headers["location"]) == (301, "https://example.org/new/a%20b?x=1&y=%2F")
    gone = site.get("/gone/7")
    assert (gone.status_code, gone.text) == (410, "It is gone.")
    assert site.get("/gone/seven").status_code == 404, "the app's own"
    head = site.fetch("HEAD", "/gone/7")
    assert (head.status_code, head.content) == (410, b"")
    # A body that nobody has read does not confuse the connection.
    with site.client() as client:
        assert client.post("/old/x", content=b"y" * 50_000).status_code == 301
        assert client.get("/hello").text == "hello"


def test_files_of_a_route(site: Site) -> None:
    assert site.get("/docs/a%20b.txt").text == "a file"
    assert site.get("/docs/").text == "the front page"
    assert site.get("/docs/part/").text == "a part"
    slash = site.get("/docs/part?x=1")
    assert (slash.status_code, slash.headers["location"]) == (308, "/docs/part/?x=1")
    assert site.get("/docs/none").status_code == 404
    assert site.post("/docs/").status_code == 405
    other = site.get("/", headers={"Host": "docs.localhost"})
    assert (other.headers["x-frame-options"], other.headers.get("accept-ranges")) == ("DENY", None)
    for target in ("/docs/%2e%2e/secret.txt", "/docs/..%2fsecret.txt", "/docs/part/../../secret.txt"):
        assert raw_status(site, f"GET {target} HTTP/1.1") in (400, 404)


def test_the_app_sees_changed_paths_and_fields(site: Site) -> None:
    stripped = site.get("/v1/environ/%C3%A9?q=1").json()
    assert (stripped["SCRIPT_NAME"], stripped["PATH_INFO"].encode("latin-1")) == ("", "/environ/é".encode())
    assert stripped["REQUEST_URI"] == "/environ/%C3%A9?q=1"
    mounted = site.get("/below/environ?q=1").json()
    assert (mounted["SCRIPT_NAME"], mounted["PATH_INFO"]) == ("/below", "/environ")
    headers = {"X-Beta": "1", "Cookie": "a=b", "X-Seen": "before", "X-Forwarded-For": "6.6.6.6"}
    beta = site.get("/environ?a=%20", headers=headers)
    seen = beta.json()
    assert "HTTP_COOKIE" not in seen
    assert seen["HTTP_X_SEEN"].replace(" ", "") == "before,/environ?a=%20"
    assert seen["HTTP_X_FORWARDED_FOR"] == seen["REMOTE_ADDR"] == "127.0.0.1"
    assert (beta.headers["x-answered"], beta.headers.get("content-type")) == ("http", None)


def test_limits_are_those_of_the_route(site: Site) -> None:
    site.allow_log("app did not answer within 0.3 s|worker")
    assert site.get("/sleep?seconds=0.6").status_code == 200
    assert site.get("/sleep?seconds=20", headers={"X-Quick": "1"}).status_code == 504


def test_no_way_around_a_rule(site: Site) -> None:
    """Neither by other spellings of the path, nor by another form of the target."""
    closed = ("/admin", "/admin/", "/%61dmin/", "/admin%2F", "/admin/%ff", "/admin/%0a", "/admin/?x")
    for target in closed:
        assert raw_status(site, f"GET {target} HTTP/1.1") in (400, 403), target
    around = (
        *("//admin/", "/./admin/", "/x/../admin/", "/x/%2e%2e/admin/", "/%2e/admin/", "/x/..%2fadmin/"),
        *("/;/admin/", "/admin;x/", "/x/..;/admin/", "/\\admin/", "/%5cadmin/", "/%2Fadmin/", "///admin/"),
    )
    for target in around:
        assert raw_status(site, f"GET {target} HTTP/1.1") == 400, target
    assert raw_status(site, "GET http://localhost/admin/ HTTP/1.1") == 403
    assert site.get("/admin/", headers={"X-Original-URL": "/hello"}).status_code == 403
    assert raw_status(site, "GET //hello HTTP/1.1") == 200, "what leads nowhere else is the app's"
    transport = httpx.HTTPTransport(uds=str(site.runtime_dir / "admin.sock"))
    with httpx.Client(base_url="http://localhost", transport=transport) as admin:
        metrics = admin.get("/metrics").text
    refused = re.search(r"^quintet_routes_doubtful_total (\d+)", metrics, re.MULTILINE)
    assert int(refused.group(1)) >= len(around)


def test_a_rule_for_all_paths_holds_for_all_targets(start: Start, tmp_path: Path) -> None:
    config = '[[route]]\npath = "/*"\nrespond = ""\nstatus = 403\n'
    site = start_routes(start, tmp_path, config)
    for line in ("GET / HTTP/1.1", "GET /?x HTTP/1.1", "GET http://localhost HTTP/1.1", "OPTIONS * HTTP/1.1"):
        assert raw_status(site, line) == 403, line


def test_django_makes_its_links_below_the_mount(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "routes.toml"
    config.write_text(
        '[[route]]\npath = ["/store", "/store/*"]\nmount = "/store"\n'
        '[[route]]\npath = "/hidden/*"\nstrip_prefix = "/hidden"\n'
    )
    site = start("shop", flags=("--config", str(config)))
    below = site.get("/store/catalogue/")
    assert below.status_code == 200
    assert 'href="/store/basket/"' in below.text
    # With a relative STATIC_URL its static files have their URLs there, too.
    style = re.search(r'"(/static/[^"]+\.css)"', below.text).group(1)
    for path in (style, f"/store{style}"):
        served = site.get(path)
        assert (served.status_code, served.headers["content-type"].partition(";")[0]) == (200, "text/css")
    assert site.get("/store/static/none.css").status_code == 404
    # The app does not know that a prefix was taken away.
    hidden = site.get("/hidden/catalogue/")
    assert hidden.status_code == 200
    assert 'href="/basket/"' in hidden.text
    assert "/hidden/" not in hidden.text
    # Slashes that Django adds are added below the mount, too.
    assert site.get("/store/catalogue").headers["location"] == "/store/catalogue/"


def test_websockets_go_by_routes(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "routes.toml"
    config.write_text(
        '[[route]]\npath = "/closed/*"\nrespond = ""\nstatus = 403\n'
        '[[route]]\npath = "/v2/*"\nstrip_prefix = "/v2"\nresponse_headers = ["X-Route: v2"]\n'
    )
    site = start("sockets", flags=("--app", "sockets:application", "--config", str(config)))

    def opened(path: str) -> Any:
        plain = socket.create_connection(("127.0.0.1", site.port), 5)
        return connect(f"ws://localhost:{site.port}{path}", sock=plain, proxy=None)

    with opened("/v2/greet") as websocket:
        assert websocket.response.headers["X-Route"] == "v2"
        assert json.loads(websocket.recv())["scope"]["path"] == "/greet"
    with pytest.raises(InvalidStatus) as refused:
        opened("/closed/echo")
    assert refused.value.response.status_code == 403


def test_https_only(start: Start, tmp_path: Path) -> None:
    config = '[[route]]\nhttps = true\nhsts = "1d"\n[proxy]\ntrusted = ["127.0.0.1"]\n'
    site = start_routes(start, tmp_path, config)
    plainly = site.get("/hello?x=1", headers={"Host": "example.org:8000"})
    assert (plainly.status_code, plainly.headers["location"]) == (301, "https://example.org/hello?x=1")
    assert "strict-transport-security" not in plainly.headers
    secure = site.get("/hello", headers={"X-Forwarded-Proto": "https"})
    assert (secure.text, secure.headers["strict-transport-security"]) == ("hello", "max-age=86400")
    assert site.post("/hello", content=b"x").status_code == 308


def test_only_known_users_pass(start: Start, tmp_path: Path) -> None:
    (tmp_path / "staff").write_text(f"anna:{ANNA}\n")
    config = (
        '[[route]]\nname = "staff"\npath = ["/admin", "/admin/*", "/environ"]\nbasic_auth = "staff"\n'
        'request_headers = ["-Authorization"]\n'
    )
    site = start_routes(start, tmp_path, config)
    asked = site.get("/environ")
    assert (asked.status_code, asked.headers["www-authenticate"]) == (
        401,
        'Basic realm="staff", charset="UTF-8"',
    )
    assert site.get("/environ", auth=("anna", "wrong")).status_code == 401
    assert site.get("/environ", auth=("bert", "secret")).status_code == 401
    passed = site.get("/environ", auth=("anna", "secret"))
    assert passed.status_code == 200
    assert "HTTP_AUTHORIZATION" not in passed.json()
    assert site.get("/hello").text == "hello"
    for target in ("//environ", "/x/../environ", "/environ;x"):
        assert raw_status(site, f"GET {target} HTTP/1.1") == 400, target
    assert raw_status(site, "GET /%65nviron HTTP/1.1") == 401


def test_the_command_tells_which_route_takes_a_url(site: Site) -> None:
    table = site.quintet("routes")
    assert table.returncode == 0, table.stderr
    assert "static-docs" in table.stdout
    taken = site.quintet("routes", "/environ?x=1", "--header", "X-Beta: 1")
    assert "beta" in taken.stdout
    assert "takes it" in taken.stdout
    asked = json.loads(site.quintet("routes", "http://localhost//admin/", "--json").stdout)
    assert (asked["answer"]["refused"], asked["answer"]["taken_by"]) == (True, None)


def test_the_access_log_names_the_route(start: Start, tmp_path: Path) -> None:
    site = start_routes(start, tmp_path, CONFIG, env={"QUINTET_LOG_ACCESS": "json"})
    site.get("/gone/7")
    site.log.wait_for('"route":"gone"')
