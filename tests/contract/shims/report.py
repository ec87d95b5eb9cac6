"""One JSON line a test in SUITE_REPORT: its id and what became of it."""

from __future__ import annotations

import json
import os
from typing import Any

# Enough to see why; the whole is on the suite's own output.
_TAIL_CHARACTERS = 1500
_outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report: Any) -> None:
    """Set-up and tear-down count, too: a server that does not start is a failure."""
    if report.failed:
        _outcomes[report.nodeid] = f"failed in {report.when}: {report.longreprtext[-_TAIL_CHARACTERS:]}"
    elif report.skipped and not _outcomes.get(report.nodeid, "").startswith("failed"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
        _outcomes[report.nodeid] = f"skipped: {reason}"
    else:
        _outcomes.setdefault(report.nodeid, "passed")


def pytest_sessionfinish() -> None:
    """Written at the end, when the outcome of each is final."""
    with open(os.environ["SUITE_REPORT"], "w") as file:
        for test, outcome in _outcomes.items():
            file.write(json.dumps({"test": test, "outcome": outcome}) + "\n")
