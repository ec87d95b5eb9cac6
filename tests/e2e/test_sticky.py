"""Sticky upstreams: a client comes back to its server, whatever happens to the gateway, and to another one when that is gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from websockets.sync.client import connect

from harness import places
from harness.data import Certificate
from harness.site import Site, Start

SECONDS_MAX = 15
COOKIE = "shop_server"


def front(start: Start, directory: Path, backs: list[Site], more: str = "", **options: object) -> Site:
    """A site whose /api/ is on these servers, its state beside it."""
    directory.mkdir(exist_ok=True)
    shutil.copy(places.APPS / "plain" / "plain.py", directory / "plain.py")
    servers = json.dumps([f"127.0.0.1:{back.port}" for back in backs])
    (directory / "quintet.toml").write_text(
        f"""
[server]
state_dir = "state"

[[upstream]]
name = "api"
servers = {servers}
policy = "round_robin"
sticky_cookie = "{COOKIE}"
{more}

[[route]]
path = "/api/*"
strip_prefix = "/api"
upstream = "api"
"""
    )
    flags = ("--app", "plain:application", *options.pop("flags", ()))  # type: ignore[misc]
    return start(directory, flags=flags, **options)


@pytest.fixture
def backs(plain: Start) -> list[Site]:
    """Three servers, each of which has one process."""
    return [plain() for _ in range(3)]


def pids(site: Site, cookie: str | None, count: int = 4) -> set[str]:
    """Who answers a client that brings this cookie."""
    headers = {"Cookie": f"theme=dark; {COOKIE}={cookie}"} if cookie else {}
    return {site.get("/api/pid", headers=headers).text for _ in range(count)}


@pytest.mark.short
def test_clients_come_back_to_their_servers(start: Start, backs: list[Site], tmp_path: Path) -> None:
    site = front(start, tmp_path, backs)
    assert len(pids(site, None, 6)) == 3, "who brings no cookie is anybody's"
    first = site.get("/api/pid")
    cookie = first.cookies[COOKIE]
    assert first.headers["set-cookie"] == f"{COOKIE}={cookie}; Path=/; HttpOnly; SameSite=Lax"
    assert first.headers["cache-control"] == "private"
    again = site.get("/api/environ", headers={"Cookie": f"a=b; {COOKIE}={cookie}"})
    assert "set-cookie" not in again.headers
    assert "cache-control" not in again.headers
    assert again.json()["HTTP_COOKIE"] == "a=b", "the server does not see it"
    assert "HTTP_COOKIE" not in site.get("/api/environ", headers={"Cookie": f"{COOKIE}={cookie}"}).json()
    assert pids(site, cookie) == {first.text}
    secret = tmp_path / "state" / "sticky"
    assert secret.stat().st_mode & 0o777 == 0o600
    site.kill_gateway()
    site.allow_log("the gateway .* died")
    site.wait_ready()
    assert pids(site, cookie) == {first.text}, "a crash of the gateway changes nothing"
    assert site.stop() == 0
    site.start()
    assert pids(site, cookie) == {first.text}, "nor does a restart"


def test_a_server_that_is_gone_hands_its_clients_on(start: Start, backs: list[Site], tmp_path: Path) -> None:
    site = front(start, tmp_path, backs)
    site.allow_log("trying another server|has failed too often and rests")
    first = site.get("/api/pid")
    cookie = first.cookies[COOKIE]
    own = next(back for back in backs if int(first.text) in back.workers())
    own.stop()
    moved = site.get("/api/pid", headers={"Cookie": f"{COOKIE}={cookie}"})
    assert moved.status_code == 200
    assert moved.cookies[COOKIE] != cookie
    assert pids(site, moved.cookies[COOKIE]) == {moved.text}


def test_gateways_that_share_a_secret(start: Start, backs: list[Site], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("6bd1f40f8e7b4e0c9d4b1d2f5f0b7f7e\n")
    more = f'sticky_secret_file = "{secret}"\nsticky_time = "1h"'
    one = front(start, tmp_path / "one", backs, more)
    other = front(start, tmp_path / "other", list(reversed(backs)), more)
    first = one.get("/api/pid")
    assert first.headers["set-cookie"].endswith("; Max-Age=3600")
    assert pids(other, first.cookies[COOKIE]) == {first.text}
    stranger = front(start, tmp_path / "stranger", backs)
    assert (
        "set-cookie"
        in stranger.get("/api/pid", headers={"Cookie": f"{COOKIE}={first.cookies[COOKIE]}"}).headers
    )


def test_over_tls_and_http2(
    start: Start, backs: list[Site], tmp_path: Path, certificate: Certificate
) -> None:
    site = front(start, tmp_path, backs, flags=certificate.flags, tls=certificate.trust)
    with site.client(http2=True) as client:
        first = client.get("/api/pid")
        assert first.http_version == "HTTP/2"
        assert "; Secure" in first.headers["set-cookie"]
        assert {client.get("/api/pid").text for _ in range(4)} == {first.text}, "as a browser does it"


def test_websockets_too(start: Start, tmp_path: Path) -> None:
    backs = [start("sockets", flags=("--app", "sockets:application")) for _ in range(2)]
    site = front(start, tmp_path, backs)
    url = f"ws://127.0.0.1:{site.port}/api/greet"

    def greeted(cookie: str | None) -> tuple[int, str | None]:
        headers = {"Cookie": cookie} if cookie else {}
        with connect(url, proxy=None, additional_headers=headers) as client:
            pid = json.loads(client.recv(timeout=SECONDS_MAX))["pid"]
            return pid, client.response.headers.get("set-cookie") if client.response else None

    pid, said = greeted(None)
    assert said is not None
    cookie = said.partition(";")[0]
    assert [greeted(cookie) for _ in range(3)] == [(pid, None)] * 3
    assert site.get("/api/pid", headers={"Cookie": cookie}).json() == pid, "requests and WebSockets share it"


def test_a_secret_that_is_none(start: Start, tmp_path: Path, backs: list[Site]) -> None:
    (tmp_path / "secret").write_text("short")
    site = front(start, tmp_path, backs, f'sticky_secret_file = "{tmp_path}/secret"', wait=False)
    site.allow_log("a secret has at least 16 letters")
    assert site.wait_exit() == 2
