"""Stopping in order: what is under way is finished, what is new goes elsewhere, and it ends in time."""

from __future__ import annotations

import signal
import threading
import time

import httpx
import pytest

from harness.processes import wait_until
from harness.site import Start


@pytest.mark.short
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_under_way_is_finished(plain: Start, number: int) -> None:
    site = plain(workers=1)
    with site.raw() as client:
        client.request("GET /sleep?seconds=1.5&say=done")
        wait_until(lambda: site.status()["gateway"]["slots_busy"] == 1, 5, "the request is under way")
        site.terminate(number)
        answer = client.answer()
        assert answer.text == "done"
        assert (answer.get("connection") or "").lower() == "close"
        assert client.is_closed()
    assert site.wait_exit() == 0


def test_a_long_download_is_finished(plain: Start) -> None:
    site = plain(workers=1)
    with site.raw() as client:
        client.request("GET /stream?lines=20&pause=0.1")
        client.head()
        site.terminate()
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += client.exactly(1)
        assert b"line 19\n" in body
    assert site.wait_exit() == 0


def test_idle_connections_are_closed(plain: Start) -> None:
    site = plain(workers=1)
    with site.raw() as idle, site.raw() as silent:
        assert idle.request("GET /hello").answer().status == 200
        site.terminate()
        assert idle.is_closed()
        assert silent.is_closed()
    assert site.wait_exit(15) == 0


def test_readiness_goes_off_while_the_listeners_stay(plain: Start) -> None:
    site = plain(workers=1, env={"QUINTET_SERVER_DRAIN_DELAY": "2s"})
    site.terminate()
    wait_until(lambda: site.get("/readyz").status_code == 503, 2, "not ready")
    # The load balancer has not noticed yet: its clients are served.
    assert site.get("/hello").text == "hello"
    assert site.get("/healthz").status_code == 200
    assert site.wait_exit(20) == 0
    with pytest.raises(httpx.ConnectError):
        site.get("/hello")


def test_a_request_that_never_ends_is_cut_off(plain: Start) -> None:
    site = plain(workers=1, env={"QUINTET_SERVER_DRAIN_TIMEOUT": "1s"})
    site.allow_log("drain|worker|cut")
    started = time.monotonic()
    with site.raw() as client:
        client.request("GET /sleep?seconds=30")
        wait_until(lambda: site.status()["gateway"]["slots_busy"] == 1, 5, "the request is under way")
        site.terminate()
        site.wait_exit(15)
        assert time.monotonic() - started < 15
        client.rest()
    site.process.returncode = 0


def test_quintet_stop_returns_when_it_is_over(plain: Start) -> None:
    site = plain(workers=2)
    done = site.quintet("stop")
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.wait_exit(5) == 0
    assert site.quintet("status").returncode == 5


def test_stopping_under_load_fails_no_accepted_request(plain: Start) -> None:
    """Clients that keep their connection are told; each request that was taken is answered."""
    site = plain(workers=2, env={"QUINTET_SERVER_DRAIN_DELAY": "1s"})
    broken: list[str] = []
    answered = 0

    def visitor() -> None:
        nonlocal answered
        while True:
            with httpx.Client(base_url=site.url, timeout=10) as client:
                try:
                    while True:
                        response = client.get("/sleep?seconds=0.05&say=x")
                        answered += 1
                        if response.headers.get("connection", "").lower() == "close":
                            break
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    broken.append(repr(error))
                    return

    threads = [threading.Thread(target=visitor, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: answered > 30, 10, "some answers")
    site.terminate()
    assert site.wait_exit() == 0
    for thread in threads:
        thread.join(15)
    assert broken == []
