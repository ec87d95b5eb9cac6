"""asgiref's own tests, inside a worker: sync_to_async, thread-sensitive contexts and locals on the worker's loop.

They open no socket, so there is nothing to point at quintet; what quintet brings is the loop, its main thread and its executor.
Channels' own tests are not in its source distributions: tests/e2e/test_channels.py runs a project with Channels, and gunicorn's suite
(test_gunicorn_asgi.py) another one.
"""

from __future__ import annotations

import os

import pytest

from harness import places
from harness.site import Site
from suites import Suite, judge, reported

SUITE = Suite(
    "asgiref",
    "3.13.0",
    shim="",
    files=[
        "tests/test_compatibility.py",
        "tests/test_garbage_collection.py",
        "tests/test_local.py",
        "tests/test_sync.py",
        "tests/test_sync_contextvars.py",
        "tests/test_sync_executor_context_scenario.py",
        "tests/test_sync_thread_sensitive_context.py",
        "tests/test_testing.py",
        "tests/test_timeout.py",
        "tests/test_wsgi.py",
    ],
    left_out={
        "tests/test_benchmark_local.py": "measures, and needs a plugin for it",
        "tests/test_server.py": "asgiref's own base class for servers",
    },
)
DEVIATIONS = {
    "*::test_sync_to_async_with_blocker_thread_sensitive": "asgiref's suite expects it to fail (xfail), and it does",
}
UVLOOP = {
    "*test_sync.py::test_sync_to_async": "looks for a private attribute of asyncio's loop, which uvloop's has not"
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
def test_asgiref(event_loop: str) -> None:
    root = SUITE.unpacked(event_loop)
    report = root / "report.jsonl"
    env = {
        "INSIDE_FILES": os.pathsep.join([str(root), *(str(root / file) for file in SUITE.files)]),
        "PYTHONPATH": str(places.ROOT / "tests" / "contract"),
        "SUITE_REPORT": str(report),
        "QUINTET_TIMEOUTS_APP": "150s",
        "QUINTET_WORKERS_EVENT_LOOP": event_loop,
    }
    flags = ("--app", "inside:application", "--workers", "1")
    site = Site(places.APPS / "inside", flags=flags, env=env)
    try:
        site.start()
        with site.client() as client:
            # 0: all passed, 1: some did not.
            assert client.get("/run", timeout=160).text in {"0", "1"}, site.log
    finally:
        # The log is full of what the tests provoke.
        site.close()
    judge(reported(report), DEVIATIONS | (UVLOOP if event_loop == "uvloop" else {}), count=120)
