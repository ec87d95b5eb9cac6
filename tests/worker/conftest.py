"""Fixtures: workers for apps that a test writes, on every Python that is asked for."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

# `QUINTET_TEST_PACKAGE=installed` tests what is installed in each Python; otherwise the source tree with the extension
# that `scripts/dev-install` has put into it.
PACKAGE_DIR = None if os.environ.get("QUINTET_TEST_PACKAGE") == "installed" else ROOT / "python"


Serve = Callable[..., Any]


@functools.cache
def package_version(python: str) -> str:
    environment = dict(os.environ)
    if PACKAGE_DIR:
        environment["PYTHONPATH"] = str(PACKAGE_DIR)
    code = "import quintet; print(quintet.__version__)"
    return subprocess.check_output([python, "-c", code], env=environment, text=True).strip()


@pytest.fixture
def python() -> str:
    """The interpreter of the workers: QUINTET_TEST_PYTHON, or the one that runs the tests."""
    return os.environ.get("QUINTET_TEST_PYTHON", sys.executable)


@pytest.fixture
def start_worker(tmp_path: Path, python: str) -> Iterator[Serve]:
    """`start_worker(source, **start)`: writes the source to app.py and starts a worker for it."""
    from link import Gateway, Worker

    gateways: list[Any] = []
    workers: list[Any] = []

    def start(source: str = "", **options: Any) -> Any:
        if source:
            (tmp_path / "app.py").write_text(textwrap.dedent(source))
        if not gateways:
            gateways.append(Gateway(tmp_path / "link.sock"))
        worker = Worker(gateways[0], tmp_path, python, **options)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop()
    for gateway in gateways:
        gateway.close()


@pytest.fixture
def serve(start_worker: Serve) -> Serve:
    """`serve(source)`: a worker that is ready."""

    def ready(source: str = "", **options: Any) -> Any:
        worker = start_worker(source, **options)
        worker.report = worker.ready()
        return worker

    return ready
