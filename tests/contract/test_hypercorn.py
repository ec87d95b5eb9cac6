"""Hypercorn's end-to-end tests: the only ones of its suite that open a socket."""

from __future__ import annotations

import pytest

from suites import Suite, judge

INSIDE = "feeds Hypercorn's protocol classes from memory; no socket"
SUITE = Suite(
    "hypercorn",
    "0.18.0",
    shim="hypercorn_shim",
    files=["tests/e2e/test_httpx.py"],
    paths=(".", "src"),
    left_out={
        "tests/asyncio/*": INSIDE,
        "tests/middleware/*": "Hypercorn's own middleware, called in process",
        "tests/protocol/*": INSIDE,
        "tests/test___main__.py": "Hypercorn's own command line",
        "tests/test_app_wrappers.py": INSIDE,
        "tests/test_config.py": "Hypercorn's own settings",
        "tests/test_logging.py": "Hypercorn's own access log",
        "tests/test_utils.py": INSIDE,
        "tests/trio/*": INSIDE,
    },
)
DEVIATIONS = {
    "*::test_handle_isolate_state": "ASGI 3.0: `state` is there when the app took part in the lifespan, which this one refuses",
}


@pytest.mark.timeout(120)
def test_hypercorn() -> None:
    judge(SUITE.run(), DEVIATIONS, count=2)
