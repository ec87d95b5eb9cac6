"""Where things lie."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SHOP = ROOT / "examples" / "shop"
APPS = ROOT / "tests" / "apps"
CACHE = ROOT / ".cache"
WHEELS = CACHE / "wheels"


def quintet() -> Path:
    """The program under test: what `pip install` put beside this Python, or QUINTET_UNDER_TEST."""
    return Path(os.environ.get("QUINTET_UNDER_TEST", Path(sys.executable).parent / "quintet"))


def python() -> Path:
    """The Python of the sites, in the environment of the program under test."""
    return quintet().parent / "python"
