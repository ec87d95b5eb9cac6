"""Slow paths have a line and workers of their own: what happens in one pool does not reach the others."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import httpx
import pytest

from harness import places
from harness.load import Load
from harness.processes import wait_until
from harness.site import Site, Start

pytestmark = pytest.mark.any_python

CONFIG = """
[workers]
count = 1
threads = 2

[queue]
priority = ["/sleep/important*=critical"]

[[worker_pool]]
name = "slow"
match = ["/sleep/*", "/*/export"]
threads = 2
depth_max = 6
queue_timeout = "2s"
app_timeout = "1500ms"
"""
# A page of the default pool takes some milliseconds; on a machine that is shared, more.
QUICK_SECONDS_MAX = 1.0


def start_pools(start: Start, directory: Path) -> Site:
    """The plain app with two pools."""
    shutil.copy(places.APPS / "plain" / "plain.py", directory / "plain.py")
    (directory / "quintet.toml").write_text(CONFIG)
    site = start(directory, workers=1, flags=("--app", "plain:application"), wait=False)
    site.wait_ready()
    site.wait_workers(2)
    return site


def pids(site: Site) -> dict[str, int]:
    """The worker of each pool."""
    return {worker["pool"]: worker["pid"] for worker in site.status()["workers"]}


@pytest.mark.alone
def test_a_saturated_pool_does_not_delay_the_others(start: Start, tmp_path: Path) -> None:
    site = start_pools(start, tmp_path)
    took = []
    with Load(site, "/sleep/x?seconds=0.3&say=x", clients=12) as slow:
        slow.wait_for(12)
        for _ in range(60):
            began = time.monotonic()
            assert site.get("/hello").text == "hello"
            took.append(time.monotonic() - began)
    assert sorted(took)[55] < QUICK_SECONDS_MAX / 4
    assert max(took) < QUICK_SECONDS_MAX
    # Two slots, six in line: of twelve clients some are told so at once.
    assert set(slow.statuses) == {200, 503}

    def loads() -> dict[str, dict[str, int]]:
        return {pool["name"]: pool["load"] for pool in site.status()["pools"]}

    # Reports come ten times a second.
    wait_until(lambda: loads()["slow"]["served_total"] == slow.statuses[200], 5, "the report counts them all")
    assert loads()["default"]["served_total"] == 60

    # Who looks at metrics sees which pool it was.
    counted = site.metrics()
    for pool, refused in (("slow", slow.statuses[503]), ("default", 0)):
        reasons = ("full", "timeout", "overload")
        whys = [counted[f'quintet_queue_refused_total{{pool="{pool}",why="{why}"}}'] for why in reasons]
        assert sum(whys) == refused, (pool, whys)
    assert counted['quintet_queue_wait_seconds_count{pool="slow"}'] == slow.statuses[200]
    assert counted['quintet_queue_wait_seconds_count{pool="default"}'] == 60
    assert counted['quintet_slots{pool="slow"}'] == counted['quintet_slots{pool="default"}'] == 2
    assert counted['quintet_slots_busy{pool="slow"}'] == counted['quintet_queue_depth{pool="slow"}'] == 0


def test_the_path_that_the_app_sees_chooses_the_pool(start: Start, tmp_path: Path) -> None:
    site = start_pools(start, tmp_path)
    workers = pids(site)

    def answered_by(target: str) -> int:
        # By hand: a client would normalise the path.
        with site.raw() as raw:
            return int(raw.request(f"GET {target} HTTP/1.1").answer().body.rpartition(b" ")[2])

    assert answered_by("/sleep/x?seconds=0") == workers["slow"]
    assert answered_by("/%73leep/x?seconds=0") == workers["slow"]
    assert answered_by("/pid/export") == workers["slow"]
    assert answered_by("/pid%2Fexport") == workers["slow"]
    assert answered_by("/sleep?seconds=0") == workers["default"]
    # No dot segments are taken away: the app sees them, too, and this is not its /sleep/.
    assert answered_by("/pid/../sleep/x") == workers["default"]
    assert answered_by("/pid/%2e%2e/sleep/") == workers["default"]


def test_limits_are_those_of_the_pool(start: Start, tmp_path: Path) -> None:
    site = start_pools(start, tmp_path)
    site.allow_log("app did not answer within 1.5 s|worker")
    began = time.monotonic()
    assert site.get("/sleep/x?seconds=20").status_code == 504
    assert 1.4 < time.monotonic() - began < 5
    assert site.get("/sleep?seconds=2").status_code == 200, "the default pool has more patience"
    wait_until(lambda: site.get("/sleep/x?seconds=0").status_code == 200, 20, "its worker was replaced")


def test_a_path_that_is_named_important_gets_its_place_in_a_full_line(start: Start, tmp_path: Path) -> None:
    site = start_pools(start, tmp_path)
    answers: dict[str, list[int]] = {"usual": [], "important": []}

    def ask(kind: str, path: str) -> None:
        try:
            answers[kind].append(site.get(path).status_code)
        except httpx.HTTPError:
            answers[kind].append(0)

    usual = [threading.Thread(target=ask, args=("usual", "/sleep/x?seconds=0.7")) for _ in range(8)]
    for thread in usual:
        thread.start()
    wait_until(lambda: site.status()["pools"][1]["load"]["waiting"] == 6, 5, "the line is full")
    important = threading.Thread(target=ask, args=("important", "/sleep/important?seconds=0"))
    important.start()
    for thread in [important, *usual]:
        thread.join(30)
    assert answers["important"] == [200]
    assert sorted(answers["usual"]).count(503) >= 1, "somebody made room"
