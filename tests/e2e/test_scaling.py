"""Workers come when requests wait and go when nobody asks; slow paths have workers of their own."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness import places
from harness.load import Load
from harness.processes import wait_until
from harness.site import Site, Start

pytestmark = pytest.mark.any_python

PLAIN = ("--app", "plain:application")


def write_project(directory: Path, config: str) -> Path:
    """The plain app with a quintet.toml."""
    shutil.copy(places.APPS / "plain" / "plain.py", directory / "plain.py")
    (directory / "quintet.toml").write_text(config)
    return directory


def pool(site: Site, name: str = "default") -> dict[str, Any]:
    return next(pool for pool in site.status()["pools"] if pool["name"] == name)


def serving(site: Site, name: str = "default") -> int:
    workers = site.status()["workers"]
    return sum(worker["state"] == "ready" and worker["pool"] == name for worker in workers)


def test_a_burst_makes_workers_grow_and_quiet_makes_them_shrink(start: Start, tmp_path: Path) -> None:
    project = write_project(tmp_path, "[workers]\ncount = 1\nmax = 4\nthreads = 2\n")
    # `--workers 1` of the fixture is workers.count, too.
    site = start(project, workers=1, flags=PLAIN)
    assert (pool(site)["min"], pool(site)["max"]) == (1, 4)
    # Requests that last: a machine that is busy with something else starts workers for them all the same, only later.
    with Load(site, "/sleep?seconds=4&say=x", clients=8) as load:
        wait_until(lambda: serving(site) == 4, 40, "the pool grows")
        # With eight slots nobody waits any more.
        wait_until(lambda: pool(site)["load"]["waiting"] == 0, 10, "nobody waits")
        load.wait_for(8)
    assert load.failures == []
    # On a busy machine it takes a while, and who waited too long meanwhile is refused.
    assert set(load.statuses) <= {200, 503}
    assert site.log.count(r"INFO pool default: \d workers instead of \d: .*waited") >= 1
    assert "waited" in pool(site)["reason"]
    # Half a minute of quiet, then one by one.
    wait_until(lambda: serving(site) == 1, 100, "the pool shrinks")
    assert site.log.count("INFO pool default: 1 worker instead of 2: only") == 1
    assert site.get("/hello").text == "hello"


@pytest.mark.short
def test_a_slow_path_does_not_hold_up_the_quick_ones(start: Start, tmp_path: Path) -> None:
    project = write_project(
        tmp_path, '[workers]\ncount = 1\nthreads = 1\n[[worker_pool]]\nmatch = "/sleep/*"\nname = "slow"\n'
    )
    site = start(project, workers=1, flags=PLAIN, wait=False)
    site.wait_ready()
    site.wait_workers(2)
    results: list[httpx.Response] = []
    slow = [
        threading.Thread(target=lambda: results.append(site.get("/sleep/report?seconds=1"))) for _ in range(3)
    ]
    for thread in slow:
        thread.start()
    wait_until(lambda: pool(site, "slow")["load"]["waiting"] == 2, 5, "two slow ones wait for the third")
    began = time.monotonic()
    assert site.get("/hello").text == "hello"
    assert time.monotonic() - began < 0.9
    for thread in slow:
        thread.join()
    assert [response.status_code for response in results] == [200, 200, 200]
    pids = {worker["pool"]: worker["pid"] for worker in site.status()["workers"]}
    assert {int(response.text.rpartition(" ")[2]) for response in results} == {pids["slow"]}
    assert int(site.get("/pid").text) == pids["default"]
    shown = site.quintet("status").stdout
    assert "slow: 1 worker" in shown


@pytest.mark.short
def test_a_pool_with_no_worker_starts_one_on_demand_and_lets_it_go(start: Start, tmp_path: Path) -> None:
    project = write_project(
        tmp_path,
        '[workers]\ncount = 1\n[[worker_pool]]\nmatch = "/pid/report"\nname = "reports"\nmin = 0\nidle_timeout = "2s"\n',
    )
    site = start(project, workers=1, flags=PLAIN)
    assert pool(site, "reports")["wanted"] == 0
    for _ in range(2):
        began = time.monotonic()
        answered = site.get("/pid/report")
        seconds = time.monotonic() - began
        assert answered.status_code == 200
        assert int(answered.text) not in {int(site.get("/pid").text)}
        print(f"from no worker to an answer: {seconds:.3f} s")
        assert seconds < 5
        assert serving(site, "reports") == 1
        wait_until(lambda: not serving(site, "reports"), 15, "it goes again")
    # One of them is killed while it is needed: the next one takes its place.
    pid = int(site.get("/pid/report").text)
    site.allow_log("worker")
    os.kill(pid, signal.SIGKILL)
    answered = site.get("/pid/report")
    assert answered.status_code in (200, 502)
    wait_until(lambda: site.get("/pid/report").status_code == 200, 10, "it is served again")


def test_a_reload_keeps_the_number_that_was_found(start: Start, tmp_path: Path) -> None:
    project = write_project(tmp_path, "[workers]\ncount = 1\nmax = 3\nthreads = 1\n")
    site = start(project, workers=1, flags=PLAIN)
    with Load(site, "/sleep?seconds=3&say=x", clients=4) as load:
        wait_until(lambda: serving(site) == 3, 40, "the pool grows")
        assert site.reload().returncode == 0
        assert site.status()["generation"] == 2
        assert serving(site) == 3
        load.wait_for(4)
    assert load.failures == []
    assert set(load.statuses) <= {200, 503}


@pytest.mark.alone
def test_cpu_that_is_short_is_not_answered_with_workers(start: Start, tmp_path: Path) -> None:
    project = write_project(tmp_path, "[workers]\ncount = 2\nmax = 16\nthreads = 1\n")
    (tmp_path / "busy.py").write_text(
        "import time\nimport plain\nfrom plain import application\n"
        "def page_compute(_environ, start, _query):\n"
        "    until = time.thread_time() + 0.05\n"
        "    while time.thread_time() < until: pass\n"
        "    return plain.answer(start, 'done')\n"
        "plain.page_compute = page_compute\n"
    )
    site = start(project, workers=2, flags=("--app", "busy:application"))
    hogs = 2 * (os.cpu_count() or 1)
    with Load(site, "/compute", clients=4 + hogs) as load:
        load.wait_for(60)
        wait_until(
            lambda: any("short" in note for note in site.status()["notes"]), 15, "it says what is short"
        )
        load.wait_for(60)
        # A spike may have brought a few before the CPU was full; not as many as are allowed.
        assert serving(site) <= 2 + 2 * (os.cpu_count() or 1)
    assert load.failures == []


@pytest.mark.short
def test_workers_come_and_go_by_order_until_the_next_reload(plain: Start) -> None:
    site = plain(workers=2, threads=1)
    began = set(site.workers())
    with Load(site, "/hello", clients=2) as load:
        load.wait_for(10)
        # As an operator of gunicorn does; two signals are two workers.
        site.terminate(signal.SIGTTIN)
        wait_until(lambda: serving(site) == 3, 10, "one more")
        site.terminate(signal.SIGTTIN)
        wait_until(lambda: serving(site) == 4, 10, "two more")
        assert set(site.workers()) > began
        assert any("4 workers as ordered, 2 as configured" in note for note in site.status()["notes"])
        done = site.quintet("scale", "-1")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "pool default: 3 workers instead of 4, as ordered, until the next reload\n"
        wait_until(lambda: len(site.status()["workers"]) == 3, 10, "one fewer")
        site.terminate(signal.SIGTTOU)
        wait_until(lambda: len(site.status()["workers"]) == 2, 10, "two fewer")
        assert site.quintet("scale", "5").returncode == 0
        wait_until(lambda: serving(site) == 5, 10, "five")
        assert site.reload().returncode == 0
        wait_until(lambda: len(site.status()["workers"]) == 2, 10, "as configured")
        assert site.status()["notes"] == []
        load.wait_for(10)
    assert load.failures == []
    assert set(load.statuses) == {200}


@pytest.mark.short
def test_an_order_does_not_pass_what_is_configured(start: Start, tmp_path: Path) -> None:
    project = write_project(tmp_path, "[workers]\ncount = 1\nmax = 2\n")
    site = start(project, workers=1, flags=PLAIN)
    assert site.quintet("scale", "+1").returncode == 0
    assert (pool(site)["wanted"], pool(site)["min"], pool(site)["max"]) == (2, 2, 2)
    site.allow_log("the number of workers stays as it is")
    done = site.quintet("scale", "+1")
    assert done.returncode == 1
    assert "pool default has 2 workers at most" in done.stderr
    assert "raise workers.max" in done.stderr
    assert site.quintet("scale", "0").returncode == 1
    assert site.quintet("scale", "two").returncode == 2
    assert site.quintet("scale", "2", "--pool", "reports").returncode == 1
    assert pool(site)["wanted"] == 2


def test_who_names_the_most_workers_gets_no_more_by_order(start: Start, tmp_path: Path) -> None:
    pools = '[[worker_pool]]\nname = "slow"\nmatch = "/sleep"\nmax = 1\n[[worker_pool]]\nname = "free"\nmatch = "/version"\n'
    project = write_project(tmp_path, f"[workers]\ncount = 1\nmax = 1\n{pools}")
    site = start(project, workers=1, flags=PLAIN, wait=False)
    site.wait_ready()
    site.wait_workers(3)
    site.allow_log("the number of workers stays as it is")
    for name, most in (("default", "workers.max"), ("slow", "max in its")):
        done = site.quintet("scale", "+1", "--pool", name)
        assert done.returncode == 1, done.stdout
        assert f"pool {name} has 1 worker at most" in done.stderr
        assert f"raise {most}" in done.stderr
    # Where nobody has named the most, the number is free.
    assert site.quintet("scale", "+1", "--pool", "free").returncode == 0
    site.wait_workers(4)
