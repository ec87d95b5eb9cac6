"""Hosts that come and go while visitors are there: health checks, restarts, crashes."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import httpx
import pytest

from harness.data import Certificate
from harness.fronts import front
from harness.load import Load
from harness.processes import marked, wait_until
from harness.site import Site, Start

CLIENTS = 6
# A server is found out within a second.
CHECKED = 'health_path = "/readyz"\nhealth_interval = "200ms"\nhealth_fall = 2\nslow_start = "0s"'


def address(site: Site) -> str:
    """As it is written in `servers`."""
    return f"127.0.0.1:{site.port}"


class Posts:
    """One client that POSTs all the time: nothing of it may be sent twice."""

    def __init__(self, site: Site, path: str) -> None:
        self._site = site
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers: list[str] = []

    def __enter__(self) -> Posts:
        self._thread.start()
        return self

    def __exit__(self, *_how: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        with self._site.client() as client:
            while not self._over.is_set():
                try:
                    self.answers.append(str(client.post(self._path, content=b"once").status_code))
                except httpx.TransportError as error:
                    self.answers.append(repr(error))
                self._over.wait(0.01)


def test_a_host_that_leaves_politely_fails_no_request_at_all(
    start: Start, plain: Start, tmp_path: Path
) -> None:
    backs = [plain(env={"QUINTET_SERVER_DRAIN_DELAY": "5s"}) for _ in range(3)]
    site = front(start, tmp_path, {"api": ([address(back) for back in backs], CHECKED)})
    site.allow_log("health checks say")
    leaving = backs[0]
    pid = str(leaving.workers()[0]).encode()
    with Load(site, "/api/pid", clients=CLIENTS) as load, Posts(site, "/api/length") as posts:
        load.wait_for(200)
        leaving.terminate()
        site.log.wait_for("is down and gets no requests.*it answered 503")
        assert leaving.get("/pid").text.encode() == pid, "it still serves"
        seen = load.bodies[pid]
        load.wait_for(200)
        assert load.bodies[pid] - seen <= CLIENTS, "but those that were on their way, it gets nothing"
        leaving.wait_exit()
        leaving.start()
        site.log.wait_for("is up again")
        again = str(leaving.workers()[0]).encode()
        wait_until(lambda: load.bodies[again] > 10, 15, "it gets requests again")
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert len(posts.answers) > 20
    assert set(posts.answers) == {"200"}
    assert site.log.count("is down and gets") == 1, "said once"
    assert site.log.count("is up again") == 1
    metrics = site.metrics()
    assert metrics['quintet_upstream_failures_total{upstream="api"}'] == 0
    assert metrics['quintet_upstream_health_failures_total{upstream="api"}'] >= 2


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_one_host_of_three_is_restarted_under_load(
    start: Start, plain: Start, tmp_path: Path, how: signal.Signals
) -> None:
    backs = [plain() for _ in range(3)]
    more = 'slow_start = "0s"\neject_time = "500ms"'
    site = front(start, tmp_path, {"api": ([address(back) for back in backs], more)})
    site.allow_log("trying another server")
    site.allow_log("has failed too often and rests")
    with Load(site, "/api/hello", "/api/pid", clients=CLIENTS) as load:
        load.wait_for(300)
        backs[0].terminate(how)
        backs[0].process.wait(40)
        wait_until(lambda: not marked(backs[0].mark), 10, "nothing of it is left")
        load.wait_for(300)
        backs[0].start()
        backs[0].wait_workers(1)
        pid = str(backs[0].workers()[0]).encode()
        wait_until(lambda: load.bodies[pid] > 10, 20, "it gets requests again")
    assert load.failures == []
    assert set(load.statuses) == {200}


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_checks_over_tls(
    start: Start, plain: Start, tmp_path: Path, certificate: Certificate, protocol: str
) -> None:
    back = plain(flags=certificate.flags, tls=certificate.trust)
    more = f'{CHECKED}\nprotocol = "{protocol}"\ntls_ca = "{certificate.ca}"'
    site = front(start, tmp_path, {"api": ([f"https://127.0.0.1:{back.port}"], more)})
    checks = 'quintet_upstream_health_checks_total{upstream="api"}'
    wait_until(lambda: site.metrics()[checks] >= 5, 15, "it is checked")
    assert site.metrics()['quintet_upstream_health_failures_total{upstream="api"}'] == 0
    assert site.get("/api/hello").text == "hello"
