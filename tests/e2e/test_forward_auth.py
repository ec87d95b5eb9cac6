"""`forward_auth`: somebody else decides who may pass a route. The app itself, a pool of its workers, or another server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from harness import places
from harness.data import Certificate
from harness.site import Site, Start

ROUTES = """
[[route]]
name = "closed"
path = ["/closed", "/closed/*"]
forward_auth = "{whom}/check"
forward_auth_headers = ["X-User", "X-Roles"]
forward_auth_timeout = "1s"
response_headers = ["X-Route: closed"]

[[route]]
name = "files"
path = "/secret/*"
strip_prefix = "/secret"
files = "secret"
forward_auth = "{whom}/check"
"""
POOL = """
[[worker_pool]]
name = "deciders"
match = "/nowhere"
"""
UPSTREAM = """
[[upstream]]
name = "sso"
servers = ["{server}"]
"""

Gated = Callable[..., Site]


@pytest.fixture
def gated(start: Start, tmp_path: Path) -> Gated:
    """`gated("who")`: the gate's app behind routes that ask the app, a pool, or an upstream at this address."""
    directory = tmp_path / "front"
    directory.mkdir()

    def starter(whom: str = "", config: str = "", **options: object) -> Site:
        shutil.copy(places.APPS / "gate" / "gate.py", directory / "gate.py")
        (directory / "secret").mkdir()
        (directory / "secret" / "plan.txt").write_text("the plan")
        (directory / "quintet.toml").write_text(ROUTES.replace("{whom}", whom and f"{whom} ") + config)
        flags = ("--app", "gate:application", *options.pop("flags", ()))
        site = start(directory, workers=1, flags=flags, wait=False, **options)
        site.wait_ready()
        # Each pool has one.
        site.wait_workers(1 + config.count("[[worker_pool]]"))
        return site

    return starter


@pytest.fixture
def deciding(start: Start, tmp_path: Path) -> Site:
    """The gate's app on a server of its own."""
    directory = tmp_path / "sso"
    shutil.copytree(places.APPS / "gate", directory)
    env = {"QUINTET_PROXY_TRUSTED": "127.0.0.1"}
    return start(directory, workers=1, flags=("--app", "gate:application"), env=env)


def get(site: Site, path: str, who: str = "", **fields: str) -> httpx.Response:
    """As somebody with this cookie."""
    cookie = {"Cookie": f"who={who}"} if who else {}
    return site.get(path, headers=cookie | fields, timeout=10)


@pytest.fixture(params=["app", "pool", "upstream", "upstream over HTTP/2"])
def site(request: pytest.FixtureRequest, gated: Gated) -> Site:
    """In each way of asking."""
    match request.param:
        case "app":
            return gated()
        case "pool":
            return gated("deciders", POOL)
    server = request.getfixturevalue("deciding")
    server.allow_log("the gate is broken|raised an exception")
    protocol = 'protocol = "h2"\n' if "HTTP/2" in request.param else ""
    return gated("sso", UPSTREAM.format(server=f"127.0.0.1:{server.port}") + protocol)


def test_a_yes_lets_pass_and_a_no_goes_to_the_client(site: Site) -> None:
    passed = get(site, "/closed/a?b=1", "anna")
    assert passed.status_code == 200
    seen = passed.json()
    assert (seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/closed/a", "b=1")
    assert (seen["HTTP_X_USER"], seen["HTTP_X_ROLES"]) == ("anna", "reader,writer")
    assert "HTTP_X_SECRET" not in seen, "only what the route names"
    assert "HTTP_X_FORWARDED_URI" not in seen, "the request itself is no question"
    assert passed.headers["X-Route"] == "closed"
    assert passed.headers.get_list("set-cookie") == ["page=own", "seen=anna; Path=/"]

    login = get(site, "/closed/")
    assert (login.status_code, login.headers["Location"]) == (302, "/login")
    unknown = get(site, "/closed/", "nobody")
    assert (unknown.status_code, unknown.text) == (401, "who are you?")
    assert (unknown.headers["WWW-Authenticate"], unknown.headers["X-Route"]) == ("Bearer", "closed")
    guest = get(site, "/closed/", "guest")
    assert (guest.status_code, guest.text) == (403, "not you, guest")

    assert get(site, "/open").status_code == 200
    assert get(site, "/secret/plan.txt", "anna").text == "the plan"
    assert get(site, "/secret/plan.txt").status_code == 302
    metrics = site.metrics()
    assert metrics['quintet_forward_auth_total{answer="passed"}'] == 2
    assert metrics['quintet_forward_auth_total{answer="refused"}'] == 4


def test_what_is_asked(site: Site) -> None:
    fields = {"Range": "bytes=0-1", "X-Forwarded-Uri": "/harmless", "X-User": "root"}
    refused = site.post("/closed/a?b=1", content=b"x" * 5000, headers={"Cookie": "who=guest", **fields})
    assert refused.status_code == 403
    asked = json.loads(refused.headers["X-Asked"])
    assert (asked["REQUEST_METHOD"], refused.headers["X-Body"]) == ("GET", "0")
    assert (asked["HTTP_X_FORWARDED_METHOD"], asked["HTTP_X_FORWARDED_URI"]) == ("POST", "/closed/a?b=1")
    assert asked["HTTP_HOST"] == f"localhost:{site.port}"
    for nothing in ("CONTENT_LENGTH", "HTTP_X_USER", "HTTP_UPGRADE", "HTTP_RANGE"):
        assert asked[nothing] is None, nothing
    # The body waits, and goes on with the request.
    passed = site.post("/closed/a", content=b"x" * 5000, headers={"Cookie": "who=anna"})
    assert (passed.json()["body"], passed.json()["REQUEST_METHOD"]) == ("x" * 5000, "POST")


def test_nobody_says_of_himself_who_he_is(site: Site) -> None:
    lies = {"X-User": "root", "x-roles": "admin"}
    seen = get(site, "/closed/", "anna", **lies).json()
    assert (seen["HTTP_X_USER"], seen["HTTP_X_ROLES"]) == ("anna", "reader,writer")
    # The app believes the field wherever it comes from: so it comes from nowhere else.
    for path in ("/open", "/check-not"):
        seen = get(site, path, "anna", **lies, X_User="root").json()
        assert "HTTP_X_USER" not in seen
        assert "HTTP_X_ROLES" not in seen


def test_without_an_answer_nobody_passes(site: Site) -> None:
    site.allow_log("decides about a request|the gate is broken|500")
    for who, status in (("slow", 504), ("broken", 502), ("odd", 502), ("much", 502)):
        assert get(site, "/closed/", who).status_code == status, who
    assert site.metrics()['quintet_forward_auth_total{answer="failed"}'] == 4
    assert get(site, "/closed/", "anna").status_code == 200


def test_nobody_passes_while_who_decides_is_away(gated: Gated, deciding: Site) -> None:
    site = gated("sso", UPSTREAM.format(server=f"127.0.0.1:{deciding.port}"))
    assert get(site, "/closed/", "anna").status_code == 200
    deciding.stop()
    site.allow_log("upstream|server")
    for path in ("/closed/", "/secret/plan.txt"):
        assert get(site, path, "anna").status_code == 502
    assert get(site, "/open").status_code == 200


def test_clients_of_http2_are_asked_about_too(gated: Gated, certificate: Certificate) -> None:
    site = gated(flags=certificate.flags, tls=certificate.trust)
    with httpx.Client(
        http2=True, verify=certificate.trust, base_url=f"https://localhost:{site.port}"
    ) as client:
        passed = client.post("/closed/", content=b"body", headers={"Cookie": "who=anna", "X-User": "root"})
        assert (passed.http_version, passed.json()["HTTP_X_USER"]) == ("HTTP/2", "anna")
        refused = client.post("/closed/", content=b"body", headers={"Cookie": "who=guest"})
        assert (refused.status_code, refused.text) == (403, "not you, guest")


def test_websockets_are_asked_about_too(start: Start, deciding: Site, tmp_path: Path) -> None:
    directory = tmp_path / "sockets"
    shutil.copytree(places.APPS / "sockets", directory)
    (directory / "quintet.toml").write_text(
        ROUTES.replace("{whom}", "sso ")
        .replace('["/closed", "/closed/*"]', '"/*"')
        .split('\n\n[[route]]\nname = "files')[0]
        + UPSTREAM.format(server=f"127.0.0.1:{deciding.port}")
    )
    site = start(directory, workers=1, flags=("--app", "sockets:application"))
    url = f"ws://127.0.0.1:{site.port}/echo"
    with connect(url, additional_headers={"Cookie": "who=anna"}) as socket:
        socket.send("hello")
        assert "hello" in str(socket.recv(timeout=10))
        assert "seen=anna; Path=/" in socket.response.headers.get_all("Set-Cookie")
    for who, status in (("guest", 403), ("nobody", 401)):
        with pytest.raises(InvalidStatus) as refused:
            connect(url, additional_headers={"Cookie": f"who={who}"})
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.headers["X-Asked"])["HTTP_UPGRADE"] is None


def test_routes_shows_who_is_asked(gated: Gated) -> None:
    site = gated()
    shown = site.quintet("routes", "/closed/a").stdout
    assert "closed  takes it" in shown
    assert "if the app lets it pass, asked for /check" in shown
