"""Where things lie. Everything a run writes is under bench/.work; only results and charts leave it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
SITES = BENCH / "sites"
SHOP = ROOT / "examples" / "shop"
WORK = BENCH / ".work"
STATIC = WORK / "static"
RESULTS = BENCH / "results"
CHARTS = ROOT / "docs" / "benchmarks"
DOCUMENT = ROOT / "docs" / "benchmarks.md"

# The project's interpreter: every stack runs this Python with this Django. `make bench` starts us with it.
PROJECT_PYTHON = Path(sys.executable)
RIVALS_VENV = WORK / "venv"
LOAD = WORK / "target" / "release" / "quintet-bench-load"


def quintet() -> Path:
    """The binary under test: QUINTET_BENCH_BINARY, or what `pip install` put beside the project's Python."""
    named = os.environ.get("QUINTET_BENCH_BINARY")
    return Path(named) if named else PROJECT_PYTHON.parent / "quintet"
