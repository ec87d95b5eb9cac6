"""Daphne's tests of HTTP and WebSockets: what reaches the app, and what of its messages reaches the client."""

from __future__ import annotations

import pytest
from suites import Suite, judge

SUITE = Suite(
    "daphne",
    "4.2.3",
    shim="daphne_shim",
    files=["tests/test_http_request.py", "tests/test_http_response.py", "tests/test_websocket.py"],
    paths=(".", "tests"),
    left_out={
        "tests/test_checks.py": "Daphne's own check of INSTALLED_APPS",
        "tests/test_cli.py": "Daphne's own command line",
        "tests/test_http_protocol.py": "calls Daphne's classes in process; no server is asked",
        "tests/test_packaging.py": "Daphne's own plugin for Twisted",
        "tests/test_utils.py": "calls Daphne's functions in process; no server is asked",
    },
)
DEVIATIONS: dict[str, str] = {}


@pytest.mark.timeout(300)
def test_daphne() -> None:
    judge(SUITE.run(), DEVIATIONS, count=0)
