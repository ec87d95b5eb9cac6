"""gunicorn's own suites for ASGI over sockets: compliance, and the same contract kept by apps of many frameworks.

They were written for containers; the apps are theirs, the server is quintet. gunicorn 27 itself passes 438 of the 444 of its
framework grid. `asgi` is a shell script around the first of these apps; the rest of tests/docker is about gunicorn's own
processes and protocols.
"""

from __future__ import annotations

import pytest

from suites import Suite, judge

GUNICORN = "27.0.1"
COMPLIANCE = Suite(
    "gunicorn",
    GUNICORN,
    shim="gunicorn_shim",
    directory="tests/docker/asgi_compliance",
    files=["test_*.py"],
    all_files="test_*.py",
    options=("-o", "asyncio_mode=auto"),
)
FRAMEWORKS = Suite(
    "gunicorn",
    GUNICORN,
    shim="gunicorn_shim",
    directory="tests/docker/asgi_framework_compat",
    files=["tests/test_*.py"],
    options=("-o", "asyncio_mode=auto", "--skip-docker-check"),
)
COMPLIANCE_DEVIATIONS = {
    "*TestProxyRequests::test_proxy_headers_forwarded": "the X-Forwarded-For of their nginx; no proxy stands before quintet here",
}
FRAMEWORKS_DEVIATIONS = {
    "*::test_status_100_continue*": "their suite skips it itself: 100 is no final answer",
}


@pytest.mark.timeout(300)
def test_compliance() -> None:
    judge(COMPLIANCE.run(), COMPLIANCE_DEVIATIONS, count=273)


@pytest.mark.timeout(300)
def test_frameworks() -> None:
    judge(FRAMEWORKS.run(), FRAMEWORKS_DEVIATIONS, count=446)
