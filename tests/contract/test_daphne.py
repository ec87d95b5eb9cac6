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
    rewritten=[
        # RFC 9112, 3.2: a request of HTTP/1.1 without Host MUST be refused.
        ("tests/http_base.py", r"putrequest\(method, (.*) skip_host=True", r"putrequest(method, \1 skip_host=False"),
        # RFC 9110, 2.5: an answer carries the server's own version, 1.1.
        ("tests/test_http_response.py", "HTTP/1.0 500", "HTTP/1.1 500"),
        # ASGI 3.0: http_version belongs into the scope of a WebSocket, extensions and state may be there.
        ("tests/test_http_request.py", '"client", "server"}', '"client", "server", "extensions", "state"}'),
        (
            "tests/test_websocket.py",
            '"client", "server", "subprotocols"}',
            '"client", "server", "subprotocols", "http_version", "extensions", "state"}',
        ),
    ],
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
