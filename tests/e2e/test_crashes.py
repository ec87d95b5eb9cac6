"""Any process may die at any moment. Whoever is not concerned does not notice, whoever is gets an answer."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from harness import places
from harness.load import Load
from harness.processes import alive, marked, wait_until
from harness.raw import Closed
from harness.site import Start

WORKER_DIED = "worker.*(died|ended|killed|signal)"


@pytest.mark.short
def test_a_worker_killed_under_load_costs_at_most_its_own_requests(plain: Start) -> None:
    site = plain(workers=2, threads=2)
    site.allow_log(WORKER_DIED)
    with Load(site, "/sleep?seconds=0.02&say=x", "/hello", clients=8) as load:
        for _ in range(3):
            load.wait_for(100)
            site.kill_worker()
            site.wait_workers(2)
        load.wait_for(100)
    # GETs are repeated on another worker: every client got its answer, on its own connection.
    assert load.failures == []
    assert set(load.statuses) <= {200, 502}
    # Two threads a worker, three kills.
    assert load.statuses[502] <= 6


def test_a_post_whose_worker_dies_is_answered_502_and_not_repeated(plain: Start, tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    site = plain(workers=2, env={"DEATHS": str(deaths)})
    site.allow_log(WORKER_DIED)
    response = site.post("/die", content=b"x")
    assert response.status_code == 502
    assert len(deaths.read_text().splitlines()) == 1


def test_a_poison_request_kills_two_workers_at_most(plain: Start, tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    site = plain(workers=4, env={"DEATHS": str(deaths)})
    site.allow_log(WORKER_DIED)
    response = site.get("/die")
    assert response.status_code == 502
    assert len(deaths.read_text().splitlines()) <= 2
    site.wait_workers(4)
    assert site.get("/hello").text == "hello"


def test_a_response_whose_worker_dies_midway_is_broken_off(plain: Start) -> None:
    site = plain(workers=1)
    site.allow_log(WORKER_DIED)
    with site.raw() as client:
        client.request("GET /die-midway")
        head = client.head()
        assert head[0].startswith("HTTP/1.1 200")
        # The client can tell that this is not all.
        with pytest.raises(Closed):
            client.exactly(1_000_000)
    site.wait_workers(1)


@pytest.mark.short
def test_the_gateway_is_killed_and_no_connection_is_refused(plain: Start) -> None:
    site = plain(workers=2)
    site.allow_log("gateway")
    workers = set(site.workers())
    with Load(site, "/hello", clients=6) as load:
        for _ in range(2):
            load.wait_for(100)
            before = site.kill_gateway()
            load.wait_for(100)
            wait_until(lambda before=before: site.gateway() not in {None, before}, 10, "the next gateway")
    assert load.refused == 0
    # What was under way in the gateway that died is lost; one exchange a client and kill at most.
    assert len(load.failures) <= 12, load.failures
    assert set(load.statuses) <= {200, 503}
    # The app was not started again.
    assert set(site.workers()) == workers
    assert site.status()["gateway_restarts"] == 2


@pytest.mark.short
def test_nothing_outlives_a_supervisor_that_is_killed(plain: Start) -> None:
    site = plain(workers=2)
    assert len(marked(site.mark)) >= 4
    site.terminate(signal.SIGKILL)
    site.wait_exit()
    wait_until(lambda: not marked(site.mark), 5, "all processes end")
    # The next start finds its way although nobody cleaned up.
    again = plain(workers=1, env={"QUINTET_SERVER_RUNTIME_DIR": str(site.runtime_dir)})
    assert again.get("/hello").text == "hello"
    again.stop()
    site.process.returncode = 0


def test_an_app_that_does_not_import_is_told_first_and_ends_with_3(start: Start, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    site = start(tmp_path, workers=2, flags=("--app", "broken:application"), wait=False)
    assert site.wait_exit() == 3
    log = str(site.log)
    assert "ModuleNotFoundError: No module named 'nowhere_to_be_found'" in log
    # Once, not once a worker, and none of our own frames.
    assert log.count("Traceback") == 1
    assert "quintet/worker.py" not in log
    site.allow_log("nowhere_to_be_found")
    site.process.returncode = 0


def test_a_worker_that_dies_at_once_is_not_started_in_a_frenzy(start: Start, tmp_path: Path) -> None:
    shutil.copy(places.APPS / "plain" / "plain.py", tmp_path / "plain.py")
    starts = tmp_path / "starts"
    switch = tmp_path / "die-now"
    (tmp_path / "fragile.py").write_text(
        "import os, signal\n"
        "from plain import application\n"
        "from quintet import postfork\n"
        "@postfork\n"
        "def die():\n"
        f"    open({str(starts)!r}, 'a').write('x')\n"
        f"    if os.path.exists({str(switch)!r}): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    site = start(tmp_path, workers=1, flags=("--app", "fragile:application"))
    site.allow_log("worker")
    switch.touch()
    site.kill_worker()
    time.sleep(4)
    tries = len(starts.read_text())
    # With back-off: a few in four seconds, not hundreds.
    assert 2 <= tries <= 10
    assert alive(site.process.pid)
    switch.unlink()
    site.wait_workers(1)
    assert site.get("/hello").text == "hello"


def test_an_app_that_hangs_is_a_504_and_its_worker_is_replaced(plain: Start) -> None:
    site = plain(
        workers=1, threads=2, env={"QUINTET_TIMEOUTS_APP": "1s", "QUINTET_SERVER_DRAIN_TIMEOUT": "2s"}
    )
    site.allow_log("worker|time")
    before = site.workers()
    assert site.get("/sleep?seconds=20").status_code == 504
    wait_until(lambda: site.workers() and site.workers() != before, 20, "another worker")
    assert site.get("/hello").text == "hello"


def test_requests_wait_while_the_only_worker_is_replaced(plain: Start) -> None:
    site = plain(workers=1)
    site.allow_log(WORKER_DIED)
    site.kill_worker()
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(site.get("/hello").status_code)) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [200] * 5


def test_a_stopped_process_is_noticed(plain: Start) -> None:
    """SIGSTOP stands for a machine that swaps: nothing is lost, it only takes longer."""
    site = plain(workers=1)
    worker = site.workers()[0]
    os.kill(worker, signal.SIGSTOP)
    try:
        with site.raw() as client:
            client.request("GET /hello")
            assert client.is_silent(0.5)
            os.kill(worker, signal.SIGCONT)
            assert client.answer().text == "hello"
    finally:
        os.kill(worker, signal.SIGCONT)
