"""Taking a server of an upstream out by hand, and seeing how all of them fare."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from harness import places
from harness.load import Load
from harness.processes import wait_until
from harness.site import Site, Start

SECONDS_MAX = 15


def front(start: Start, directory: Path, backs: list[Site], more: str = "") -> Site:
    """A site whose /api/ is on these servers."""
    shutil.copy(places.APPS / "plain" / "plain.py", directory / "plain.py")
    servers = json.dumps([address(back) for back in backs])
    (directory / "quintet.toml").write_text(
        f"""
[server]
state_dir = "state"

[[upstream]]
name = "api"
servers = {servers}
{more}

[[route]]
path = "/api/*"
strip_prefix = "/api"
upstream = "api"
"""
    )
    return start(directory, flags=("--app", "plain:application"))


def address(back: Site) -> str:
    """As it is written in `servers`."""
    return f"127.0.0.1:{back.port}"


def servers(site: Site) -> dict[str, dict[str, Any]]:
    """`quintet upstream list`, by server."""
    done = site.quintet("upstream", "list", "--json")
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)["upstreams"][0]["servers"]}


def standings(site: Site) -> list[str]:
    """In the order of the configuration."""
    return [row["standing"] for row in servers(site).values()]


def answering(site: Site, count: int = 12) -> set[int]:
    """Who answers."""
    return {int(site.get("/api/pid").text) for _ in range(count)}


@pytest.mark.short
def test_a_server_is_drained_and_comes_back(start: Start, plain: Start, tmp_path: Path) -> None:
    backs = [plain(threads=4), plain(threads=4)]
    site = front(start, tmp_path, backs)
    with Load(site, "/api/hello", "/api/pid", clients=4) as load:
        load.wait_for(50)
        slow = threading.Thread(target=lambda: site.get("/api/sleep?seconds=1.5"))
        slow.start()
        done = site.quintet("upstream", "drain", "api", address(backs[0]), "--wait", "10s")
        assert done.returncode == 0, done.stderr
        assert "gets no new requests" in done.stdout
        assert done.stdout.endswith("it works on nothing any more\n")
        backs[0].stop()
        load.wait_for(100)
        slow.join(SECONDS_MAX)
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert standings(site) == ["draining", "serving"]
    site.kill_gateway()
    site.allow_log("the gateway .* died")
    site.wait_ready()
    assert standings(site) == ["draining", "serving"], "whoever drained it at night finds it so"
    upgraded = site.quintet("upgrade")
    assert upgraded.returncode == 0, upgraded.stderr
    assert standings(site) == ["draining", "serving"], "an upgrade changes nothing either"
    backs[0].start()
    back = site.quintet("upstream", "undrain", "api", f"http://{address(backs[0])}")
    assert "gets requests again, slowly at first" in back.stdout
    wait_until(lambda: len(answering(site)) == 2, SECONDS_MAX, "requests for both")
    told = site.quintet("status").stdout
    assert f"  api       http://{address(backs[1])}" in told
    metrics = site.metrics()
    labels = f'{{upstream="api",server="http://{address(backs[1])}"}}'
    assert metrics[f"quintet_upstream_server_serving{labels}"] == 1
    assert metrics[f"quintet_upstream_server_requests_total{labels}"] >= 1


def test_when_all_are_drained_clients_are_told_to_come_again(
    start: Start, plain: Start, tmp_path: Path
) -> None:
    back = plain()
    site = front(start, tmp_path, [back])
    done = site.quintet("upstream", "drain", "api", address(back))
    assert "note: no server of this upstream takes new requests now" in done.stdout
    site.allow_log("all servers are being drained")
    answer = site.get("/api/hello")
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert site.get("/hello").text == "hello"


def test_mistakes_are_told(start: Start, plain: Start, tmp_path: Path) -> None:
    back = plain()
    site = front(start, tmp_path, [back])
    for arguments, expected in (
        (("drain", "shop", "a:80"), ['there is no upstream "shop"', "hint: there is api"]),
        (("undrain", "api", "a:80"), ['"api" has no server "a:80"', f"hint: it has http://{address(back)}"]),
        (("drain", "api", address(back), "--wait", "soon"), ['"soon" is no time to wait']),
    ):
        done = site.quintet("upstream", *arguments)
        assert done.returncode in (1, 2)
        for line in expected:
            assert line in done.stderr
    assert standings(site) == ["serving"]


def test_clients_that_belong_to_a_drained_server(start: Start, plain: Start, tmp_path: Path) -> None:
    backs = [plain(), plain()]
    site = front(start, tmp_path, backs, 'sticky_cookie = "srv"')
    first = site.get("/api/pid")
    cookie = {"Cookie": f"srv={first.cookies['srv']}"}
    own = next(back for back in backs if int(first.text) in back.workers())
    done = site.quintet("upstream", "drain", "api", address(own))
    assert "those who belong to it stay" in done.stdout
    assert int(first.text) not in answering(site)
    assert site.get("/api/pid", headers=cookie).text == first.text
    site.quintet("upstream", "drain", "api", address(own), "--all")
    moved = site.get("/api/pid", headers=cookie)
    assert moved.text != first.text
    assert moved.cookies["srv"] != first.cookies["srv"]


def test_by_the_admin_http(start: Start, plain: Start, tmp_path: Path) -> None:
    back = plain()
    site = front(start, tmp_path, [back])
    transport = httpx.HTTPTransport(uds=str(site.runtime_dir / "admin.sock"))
    with httpx.Client(transport=transport, base_url="http://admin") as admin:
        assert admin.post("/upstreams/api/drain?server=nobody:80").status_code == 404
        assert admin.post(f"/upstreams/api/drain?server={address(back)}").status_code == 202
        wait_until(lambda: standings(site) == ["draining"], SECONDS_MAX, "drained")
        status = admin.get("/status").json()["upstreams"][0]
        assert (status["name"], status["servers"][0]["standing"]) == ("api", "draining")
        assert admin.post(f"/upstreams/api/undrain?server={address(back)}").status_code == 202
        wait_until(lambda: standings(site) == ["warming"], SECONDS_MAX, "back")


def test_a_server_that_fails_is_shown(start: Start, plain: Start, tmp_path: Path) -> None:
    backs = [plain(), plain()]
    site = front(start, tmp_path, backs, 'policy = "round_robin"\neject_after = 2')
    backs[0].stop()
    site.allow_log("trying another server|has failed too often and rests")
    for _ in range(20):
        assert site.get("/api/hello").status_code == 200
    row = servers(site)[f"http://{address(backs[0])}"]
    assert row["standing"] == "ejected"
    assert row["ejections_total"] == 1
    assert 0 < row["back_in_ms"] <= 10_000
    assert "ejected, " in site.quintet("upstream", "list").stdout


def test_websockets_are_told_when_the_proxy_goes(start: Start, tmp_path: Path) -> None:
    back = start("sockets", flags=("--app", "sockets:application"))
    site = front(start, tmp_path, [back], '[workers]\nlong_lived_grace = "500ms"')
    with connect(f"ws://127.0.0.1:{site.port}/api/echo", proxy=None) as client:
        client.send("hello")
        assert client.recv(timeout=SECONDS_MAX) == "hello"
        assert site.metrics()['quintet_upstream_long_lived{upstream="api"}'] == 1
        assert site.status()["gateway"]["long_lived"] == 1
        assert "api: 1 WebSocket or event stream is open" in site.quintet("upstream", "list").stdout
        stopping = threading.Thread(target=site.stop)
        stopping.start()
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=SECONDS_MAX)
        stopping.join(SECONDS_MAX)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    wait_until(lambda: ["/echo", 1001] in [it[:2] for it in back.get("/heard").json()], SECONDS_MAX, "1001")
