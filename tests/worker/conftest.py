"""Fixtures: workers for apps that a test writes, on every Python that is installed.

Each test runs on the Python that runs pytest and on the newest one; those marked `every_python` on the others, too.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from link import Gateway, Worker
from workers import Serve, django_dir, pythons, uvloop_dir

from harness import places


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_python: runs on every installed Python, not only on two")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrises what starts workers over the Pythons."""
    if "python" not in metafunc.fixturenames:
        return
    default = f"{sys.version_info[0]}.{sys.version_info[1]}"
    wanted = {default, list(pythons())[-1]}
    if metafunc.definition.get_closest_marker("every_python"):
        wanted = set(pythons())
    versions = [version for version in pythons() if version in wanted]
    metafunc.parametrize("python", [pythons()[version] for version in versions], ids=versions)


@pytest.fixture(scope="session")
def package_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with nothing but the `quintet` package, for PYTHONPATH: the installed one, else the source tree's.

    The extension is one for all Pythons, so that what is installed for this one serves the others.
    """
    spec = importlib.util.find_spec("quintet")
    if spec is not None and spec.origin:
        package = Path(spec.origin).parent
    else:
        package = places.ROOT / "python" / "quintet"
        subprocess.run([places.ROOT / "scripts" / "dev-install"], check=True)
    directory = tmp_path_factory.mktemp("package")
    (directory / "quintet").symlink_to(package)
    return directory


@pytest.fixture(scope="session")
def package_version(package_dir: Path) -> str:
    """The version of the package."""
    code = "import quintet; print(quintet.__version__)"
    environment = {**os.environ, "PYTHONPATH": str(package_dir)}
    return subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip()


@pytest.fixture(scope="session")
def django_5_2() -> Path:
    """A directory with Django 5.2, for PYTHONPATH."""
    return django_dir("5.2")


@pytest.fixture
def start_worker(tmp_path: Path, python: str, package_dir: Path, package_version: str) -> Iterator[Serve]:
    """`start_worker(source, **start)`: writes the source to app.py and starts a worker for it."""
    gateways: list[Gateway] = []
    workers: list[Worker] = []

    def start(source: str = "", *, path: list[Path] | None = None, **options: Any) -> Worker:
        if source:
            (tmp_path / "app.py").write_text(textwrap.dedent(source))
        if not gateways:
            gateways.append(Gateway(tmp_path / "link.sock"))
        search = [package_dir, *(path or [])]
        worker = Worker(gateways[0], tmp_path, python, search, {"version": package_version, **options})
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

    def ready(source: str = "", **options: Any) -> Worker:
        worker = start_worker(source, **options)
        worker.report = worker.ready()
        return worker

    return ready


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop(request: pytest.FixtureRequest) -> str:
    """Both event loops."""
    return request.param


@pytest.fixture
def serve_asgi(serve: Serve, python: str, event_loop: str) -> Serve:
    """`serve_asgi(source)`: a worker for an ASGI app, one slot unless told, in each of the event loops."""

    def ready(source: str = "", *, path: list[Path] | None = None, **options: Any) -> Worker:
        path = [*(path or []), *([uvloop_dir(python)] if event_loop == "uvloop" else [])]
        worker = serve(source, path=path, **{"event_loop": event_loop, "long_lived_max": 100, **options})
        assert (worker.report["interface"], worker.report["event_loop"]) == ("asgi", event_loop)
        return worker

    return ready
