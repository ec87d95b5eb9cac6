"""Fixtures: workers for apps that a test writes, on every Python that is installed.

Each test runs on the Python that runs pytest and on the newest one; those marked `every_python` on the others, too.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from link import Gateway, Worker

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"

# What the fixtures below give.
Serve = Callable[..., Any]


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits for what another process is about to do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_python: runs on every installed Python, not only on two")


@functools.cache
def pythons() -> dict[str, str]:
    """Installed Pythons from 3.10 up: version ("3.12") to program."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for minor in range(10, 15):
        version = f"3.{minor}"
        candidates = [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"))]
        candidates += [path for path in [shutil.which(f"python{version}")] if path]
        code = "import sys; print('{}.{}'.format(*sys.version_info))"
        for candidate in candidates:
            told = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
            if told.returncode == 0 and told.stdout.strip() == version:
                found.setdefault(version, candidate)
    return dict(sorted(found.items(), key=lambda item: int(item[0].partition(".")[2])))


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
        package = ROOT / "python" / "quintet"
        subprocess.run([ROOT / "scripts" / "dev-install"], check=True)
    directory = tmp_path_factory.mktemp("package")
    (directory / "quintet").symlink_to(package)
    return directory


@pytest.fixture(scope="session")
def package_version(package_dir: Path) -> str:
    """The version of the package."""
    code = "import quintet; print(quintet.__version__)"
    environment = {**os.environ, "PYTHONPATH": str(package_dir)}
    return subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip()


def django_dir(series: str, python: str = sys.executable) -> Path:
    """The newest Django of a series ("5.2"): pure Python, so that one installation serves every interpreter."""
    directory = CACHE / "django" / series
    if not (directory / "django" / "__init__.py").exists():
        # By a Python that this Django takes: pip asks.
        command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        # What its dependency asgiref needs on Python 3.10 only.
        command += ["--target", str(directory), "--upgrade", f"django=={series}.*", "typing_extensions"]
        subprocess.run(command, check=True)
    return directory


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
