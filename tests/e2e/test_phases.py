"""The worker dies (kill -9), or the code is reloaded, at each phase of a request: what the client sees."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from harness.processes import marked, wait_until
from harness.raw import Answer, Closed
from harness.site import Site, Start

WORKER_DIED = "worker.*(died|ended|killed|signal)"
APPS = {"wsgi": "phases:application", "asgi": "phases:asgi"}


@pytest.fixture(params=APPS)
def site(start: Start, request: pytest.FixtureRequest) -> Site:
    """One worker, so that it is the one that dies."""
    env = {"QUINTET_BUFFERS_REQUEST_STREAM": "/body"}
    found = start("phases", flags=("--app", APPS[request.param]), env=env)
    found.allow_log(WORKER_DIED)
    return found


def is_served(site: Site, old: list[int]) -> None:
    """By another worker."""
    answer = site.post("/ok", content=b"abc")
    assert answer.status_code == 200
    length, _, pid = answer.text.partition(" of ")
    assert length == "3"
    assert int(pid) not in old


def test_while_the_body_arrives_nobody_notices(site: Site) -> None:
    """The gateway has the body; the worker is asked when it is complete."""
    old = site.workers()
    with site.raw() as client:
        client.request("POST /ok", "Content-Length: 6")
        client.send("abc")
        site.kill_worker(old[0])
        time.sleep(0.3)
        client.send("def")
        assert client.answer().text.startswith("6 of ")
    is_served(site, old)


def test_while_the_body_is_streamed_to_it_the_client_gets_a_502(site: Site) -> None:
    old = site.workers()
    with site.raw() as client:
        client.request("POST /body", "Content-Length: 200000")
        client.send(b"x" * 100_000)
        assert client.answer().status == 502
    is_served(site, old)


def test_before_the_head_a_get_is_repeated_and_a_post_is_not(site: Site, tmp_path: Path) -> None:
    old = site.workers()
    answer = site.get(f"/before-head?once={tmp_path}/get")
    assert answer.status_code == 200
    assert int(answer.text.partition(" of ")[2]) not in old
    assert site.post(f"/before-head?once={tmp_path}/post", content=b"x").status_code == 502
    is_served(site, old)


@pytest.mark.parametrize("phase", ["after-head", "mid-body"])
def test_in_the_middle_of_the_body_the_client_can_tell(site: Site, phase: str) -> None:
    """What was said cannot be taken back, so the connection breaks before the body has the length that was promised."""
    old = site.workers()
    with site.raw() as client:
        client.request(f"GET /{phase}")
        try:
            answer: Answer | None = client.answer()
        except Closed:
            answer = None
        # A death so early that nothing had left the house is a 502 instead.
        assert answer is None or answer.status == 502
    is_served(site, old)


@pytest.mark.parametrize("phase", ["after-head", "mid-body"])
def test_over_http_2_nothing_breaks_but_the_stream(site: Site, phase: str) -> None:
    old = site.workers()
    with site.client(http1=False, http2=True) as client:

        def socket_of(answer: httpx.Response) -> object:
            return answer.extensions["network_stream"].get_extra_info("client_addr")

        before = socket_of(client.post("/ok", content=b""))
        with contextlib.suppress(httpx.RemoteProtocolError):
            assert client.get(f"/{phase}").status_code == 502
        after = client.post("/ok", content=b"")
        assert after.status_code == 200
        assert socket_of(after) == before
    is_served(site, old)


def test_after_the_end_the_client_has_everything_and_keeps_its_connection(site: Site) -> None:
    old = site.workers()
    with site.raw() as client:
        client.request("GET /end")
        answer = client.answer()
        assert (answer.status, len(answer.body)) == (200, 500_000)
        wait_until(lambda: set(site.workers()).isdisjoint(old), 20, "the worker is dead")
        client.request("GET /ok")
        assert client.answer().status == 200
    is_served(site, old)


def test_a_storm_of_deaths_makes_no_storm_of_forks(start: Start) -> None:
    """All workers at once, again and again: never more processes than the site has places for."""
    site = start("phases", workers=4, flags=("--app", APPS["wsgi"]))
    site.allow_log(WORKER_DIED)
    most = usual = len(marked(site.mark))
    for _ in range(4):
        for pid in site.workers():
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 0.7
        while time.monotonic() < deadline:
            most = max(most, len(marked(site.mark)))
    site.wait_workers(4)
    # Ours that asks for the status, and one that is being forked twice, may be seen beside them.
    assert most <= usual + 2
    assert site.get("/ok").status_code == 200
    wait_until(lambda: len(marked(site.mark)) == usual, 5, "as many processes as before")


@pytest.mark.parametrize("kind", APPS)
def test_a_reload_while_a_slow_client_uploads(start: Start, kind: str) -> None:
    """The body is the gateway's as long as it arrives: the new code gets it, and no byte is lost."""
    site = start("phases", workers=2, flags=("--app", APPS[kind]))
    old = site.workers()
    with site.raw() as client:
        client.request("POST /ok", "Content-Length: 300000")
        for _ in range(3):
            client.send(b"x" * 50_000)
            time.sleep(0.1)
        done = site.reload()
        assert done.returncode == 0, done.stdout + done.stderr
        for _ in range(3):
            client.send(b"x" * 50_000)
            time.sleep(0.1)
        answer = client.answer()
    assert answer.status == 200
    length, _, pid = answer.text.partition(" of ")
    assert length == "300000"
    assert int(pid) not in old


@pytest.mark.parametrize("kind", APPS)
def test_a_reload_while_an_upload_is_streamed_to_the_app(start: Start, kind: str) -> None:
    """The app has a part of it already: the old worker finishes what it began."""
    site = start("phases", flags=("--app", APPS[kind]), env={"QUINTET_BUFFERS_REQUEST_STREAM": "/ok"})
    old = site.workers()
    with site.raw() as client:
        client.request("POST /ok", "Content-Length: 200000")
        client.send(b"x" * 100_000)
        wait_until(lambda: site.status()["gateway"]["slots_busy"] > 0, 5, "the app has begun")
        done = site.reload()
        assert done.returncode == 0, done.stdout + done.stderr
        assert int(site.post("/ok", content=b"").text.partition(" of ")[2]) not in old
        client.send(b"x" * 100_000)
        assert client.answer().text == f"200000 of {old[0]}"


def test_a_reload_while_a_response_is_streamed(plain: Start) -> None:
    """Every line arrives, and the new code does not wait for the last one."""
    site = plain(workers=1)
    with site.raw() as client:
        client.request("GET /stream?lines=20&pause=0.15")
        assert client.head()[0].startswith("HTTP/1.1 200")
        old = site.workers()
        done = site.reload()
        assert done.returncode == 0, done.stdout + done.stderr
        assert site.get("/pid").text not in map(str, old)
        lines = b""
        while b"line 19\n" not in lines:
            lines += client.exactly(1)
    assert [number for number in range(20) if f"line {number}\n".encode() not in lines] == []
