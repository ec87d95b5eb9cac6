"""uvicorn's WebSocket and TLS tests: the app of each runs in the test's process, the server is quintet."""

from __future__ import annotations

import pytest
from suites import Suite, judge

INSIDE = "calls uvicorn's classes in process; no server is asked"
OWN = "uvicorn's own command line and settings"
SUITE = Suite(
    "uvicorn",
    "0.54.0",
    shim="uvicorn_shim",
    files=["tests/protocols/test_websocket.py", "tests/test_ssl.py"],
    options=("-p", "anyio"),
    left_out={
        "tests/benchmarks/*": "measures uvicorn's protocol classes in process",
        "tests/importer/*": "uvicorn's own way to find an app",
        "tests/middleware/*": INSIDE,
        "tests/protocols/test_http.py": "hands bytes to uvicorn's protocol classes over a mock transport; no socket",
        "tests/protocols/test_http2.py": "hands bytes to uvicorn's protocol classes over a mock transport; no socket",
        "tests/protocols/test_utils.py": INSIDE,
        "tests/supervisors/*": "uvicorn's own processes, which it watches in process",
        "tests/test_auto_detection.py": OWN,
        "tests/test_cli.py": OWN,
        "tests/test_compat.py": INSIDE,
        "tests/test_config.py": OWN,
        "tests/test_default_headers.py": "uvicorn's own settings for Server and Date",
        "tests/test_lifespan.py": INSIDE,
        "tests/test_main.py": OWN,
        "tests/test_server.py": "signals and sockets of uvicorn's server in the process of the test",
        "tests/test_subprocess.py": INSIDE,
    },
)
DEVIATIONS: dict[str, str] = {}


@pytest.mark.timeout(300)
def test_uvicorn() -> None:
    judge(SUITE.run(), DEVIATIONS, count=0)
