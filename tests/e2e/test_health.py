"""Workers that get stuck or grow are found out, told about, and replaced; nobody else notices."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path

import pytest

from harness import places
from harness.load import Load
from harness.processes import alive, wait_until
from harness.site import Site, Start

STUCK = "beyond its time limit|did not answer within|runs no Python any more|not done in time|does not go"


def stacks(site: Site) -> str:
    """The entry with the stacks, up to the next entry."""
    entry = site.log.wait_for(r"^\S+ +WARN a request is beyond its time limit.*\n(?:(?!\d{4}-).*\n)*")
    return entry.group()


def line_of(page: str, text: str) -> int:
    """Where a line of the plain app stands."""
    lines = (places.APPS / "plain" / "plain.py").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"def {page}("))
    return next(number for number, line in enumerate(lines, 1) if number > start and text in line)


def request_id(response_headers: dict[str, str]) -> str:
    """As the client sees it."""
    return response_headers["x-request-id"]


@pytest.mark.short
def test_the_stacks_of_a_stuck_worker_are_logged_with_the_request_id(plain: Start) -> None:
    site = plain(workers=1, threads=2, env={"QUINTET_TIMEOUTS_APP": "1s"})
    site.allow_log(STUCK)
    before = site.workers()
    began = time.monotonic()
    response = site.get("/sleep?seconds=20")
    assert response.status_code == 504
    assert 0.9 < time.monotonic() - began < 4
    entry = stacks(site)
    assert f'request_id="{request_id(response.headers)}"' in entry
    marked = entry.split("which has the request:", 1)[1].split("thread ", 1)[0]
    assert f'plain.py", line {line_of("page_sleep", "time.sleep")}, in page_sleep' in marked
    # Python could say it itself, so with the source; the other thread is named, our own frames are not.
    assert "time.sleep(float(" in marked
    assert "thread quintet-slot-" in entry
    assert "waits for a request" in entry
    assert "threading.py" not in entry
    assert site.log.count("stacks of its") == 1
    wait_until(lambda: site.workers() and site.workers() != before, 20, "another worker")


def test_what_tasks_wait_for_is_logged_too(start: Start) -> None:
    site = start(
        "plain_asgi",
        workers=1,
        flags=("--app", "plain_asgi:application"),
        env={"QUINTET_TIMEOUTS_APP": "1s"},
    )
    site.allow_log(STUCK)
    response = site.get("/slow?seconds=20")
    assert response.status_code == 504
    entry = stacks(site)
    assert f'request_id="{request_id(response.headers)}"' in entry
    marked = re.search(r"^task \S+, which has the request:\n((?: .*\n)+)", entry, re.MULTILINE).group(1)
    assert "in page_slow\n    await asyncio.sleep(float(" in marked
    # The most recent call last, and nothing of ours.
    assert marked.index("in application") < marked.index("in page_slow")
    assert "quintet/_asgi.py" not in marked


@pytest.mark.short
def test_a_worker_that_hangs_in_c_is_a_504_with_stacks_and_is_killed(plain: Start) -> None:
    site = plain(workers=2, threads=2, env={"QUINTET_TIMEOUTS_APP": "2s"})
    site.allow_log(STUCK + "|worker died")
    before = set(site.workers())
    answers: list[tuple[int, float]] = []
    lock = threading.Lock()

    def hang() -> None:
        began = time.monotonic()
        response = site.get("/hang-in-c?seconds=30")
        with lock:
            answers.append((response.status_code, time.monotonic() - began))

    hanging = threading.Thread(target=hang)
    with Load(site, "/hello", clients=4) as load:
        load.wait_for(20)
        hanging.start()
        hanging.join(20)
        assert not hanging.is_alive()
        wait_until(lambda: len(set(site.workers()) - before) == 1, 20, "another worker")
        load.wait_for(50)
    (status, seconds), *_ = answers
    assert status == 504
    assert 1.9 < seconds < 6
    entry = stacks(site)
    assert "Python hangs in a call into C" in entry
    # Of a request that waits for the GIL in the same worker, and was there a moment earlier, the time is over first: then the
    # entry is about that one, and no thread has it yet. The next story is alone with its request.
    hanging_thread = next(part for part in entry.split("\nthread ") if "in page_hang_in_c" in part)
    assert f'plain.py", line {line_of("page_hang_in_c", "usleep")} in page_hang_in_c' in hanging_thread
    # The most recent call last, as in a traceback.
    assert hanging_thread.index("in application") < hanging_thread.index("in page_hang_in_c")
    site.log.wait_for("keeps the GIL; it is killed")
    # Siblings in the same worker were tried elsewhere, or are told; none waited for the thirty seconds.
    assert load.failures == []
    assert set(load.statuses) <= {200, 502, 504}
    assert load.slowest < 6
    wait_until(lambda: len(before & set(site.workers())) == 1, 5, "the one that hung is gone")
    assert sum(alive(pid) for pid in before) == 1


def test_the_entry_is_one_object_in_a_json_log(plain: Start) -> None:
    for page in ("/sleep?seconds=20", "/hang-in-c?seconds=20"):
        site = plain(workers=1, flags=("--log-format", "json"), env={"QUINTET_TIMEOUTS_APP": "1s"})
        site.allow_log(STUCK)
        response = site.get(page)
        assert response.status_code == 504
        line = site.log.wait_for(r'^\{.*"stacks":.*\}$').group()
        entry = json.loads(line)
        assert entry["request_id"] == request_id(response.headers)
        assert entry["level"] == "WARN"
        assert entry["worker"] == 1
        marked = entry["stacks"].split("which has the request:", 1)[1].split("thread ", 1)[0]
        assert "in page_" in marked


def test_an_app_that_uses_the_signal_itself_keeps_it(start: Start, tmp_path: Path) -> None:
    for moment in ("before", "after"):
        project = tmp_path / moment
        project.mkdir()
        take = "signal.signal(signal.SIGRTMAX - 2, lambda *_: print('the app heard it', flush=True))"
        source = "import os, signal\nfrom plain import application as inner\nimport plain\n"
        if moment == "before":
            source += f"{take}\n"
        source += (
            "def application(environ, start_response):\n"
            "    if environ['PATH_INFO'] == '/take':\n"
            "        import ctypes\n"
            "        keep.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: None))\n"
            "        ctypes.CDLL(None).signal(signal.SIGRTMAX - 2, keep[0])\n"
            "    elif environ['PATH_INFO'] == '/own-signal':\n"
            "        os.kill(os.getpid(), signal.SIGRTMAX - 2)\n"
            "    return inner(environ, start_response)\n"
            "keep = []\n"
        )
        (project / "plain.py").write_text((places.APPS / "plain" / "plain.py").read_text())
        (project / "greedy.py").write_text(source)
        site = start(
            project, workers=1, flags=("--app", "greedy:application"), env={"QUINTET_TIMEOUTS_APP": "1s"}
        )
        site.allow_log(STUCK)
        if moment == "before":
            site.get("/own-signal")
            site.log.wait_for("the app heard it")
        else:
            site.get("/take")
        assert site.get("/hang-in-c?seconds=20").status_code == 504
        entry = stacks(site)
        assert "signal that would make them" in entry
        site.wait_workers(1)


def test_a_worker_that_leaks_is_recycled_and_no_request_is_lost(plain: Start) -> None:
    site = plain(workers=2, threads=2, env={"QUINTET_WORKERS_MEMORY_MAX": "120MiB"})
    before = set(site.workers())
    with Load(site, "/leak?mib=0.5", "/hello", "/sleep?seconds=0.02", clients=4, pause=0.01) as load:
        wait_until(lambda: not before & set(site.workers()), 40, "both workers are replaced")
        load.wait_for(50)
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert (
        site.log.count(r"worker \d+ is being replaced: it takes \d+ MiB \(workers.memory_max is 120 MiB\)")
        >= 2
    )
    site.wait_workers(2)
    assert site.metrics()["quintet_workers_recycled_total"] >= 2


def test_workers_are_recycled_after_their_lifetime(plain: Start) -> None:
    site = plain(workers=2, env={"QUINTET_WORKERS_LIFETIME": "10s"})
    before = set(site.workers())
    with Load(site, "/hello", clients=2, pause=0.01) as load:
        wait_until(lambda: not before & set(site.workers()), 25, "both workers are replaced")
        load.wait_for(20)
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert "workers.lifetime" in site.log


def test_workers_are_recycled_after_their_requests(plain: Start) -> None:
    site = plain(workers=2, env={"QUINTET_WORKERS_REQUESTS_MAX": "200"})
    before = set(site.workers())
    with Load(site, "/hello", "/sleep?seconds=0.02", clients=4) as load:
        wait_until(lambda: not before & set(site.workers()), 40, "both workers are replaced")
        load.wait_for(50)
    assert load.failures == []
    assert set(load.statuses) == {200}
    # A tenth more or less, and what was under way meanwhile.
    counts = re.findall(r"it has answered (\d+) requests", str(site.log))
    assert counts
    assert 180 <= int(counts[0]) <= 600


@pytest.mark.parametrize("app", ["plain", "plain_asgi"])
def test_garbage_between_requests_serves_as_ever(start: Start, app: str) -> None:
    site = start(app, workers=1, flags=("--app", f"{app}:application"), env={"QUINTET_WORKERS_GC": "between"})
    with Load(site, "/hello", clients=4) as load:
        load.wait_for(300)
    assert load.failures == []
    assert set(load.statuses) == {200}
