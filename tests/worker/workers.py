"""What the tests of the worker share: Pythons and Djangos to run them on, and waiting."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from link import Response, Worker

from harness import places, venvs

# What the fixtures of conftest.py give.
Serve = Callable[..., Any]


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits for what another process is about to do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@functools.cache
def pythons() -> dict[str, str]:
    """Installed Pythons, oldest first: version ("3.12") to program."""
    found = {str(interpreter): str(interpreter.path) for interpreter in venvs.interpreters()}
    # The one that runs the tests has their packages in its environment.
    return found | {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}


def django_dir(series: str, python: str = sys.executable) -> Path:
    """The newest Django of a series ("5.2"): pure Python, so that one installation serves every interpreter."""
    # What its dependency asgiref needs on Python 3.10 only. By a Python that this Django takes: pip asks.
    return _package(
        python, places.CACHE / "django" / series, "django", f"django=={series}.*", "typing_extensions"
    )


@functools.cache
def uvloop_dir(python: str) -> Path:
    """uvloop for that Python, for PYTHONPATH."""
    version = subprocess.check_output(
        [python, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], text=True
    )
    return _package(
        python, places.CACHE / "uvloop" / version.strip(), "uvloop", "uvloop", "--only-binary", ":all:"
    )


def _package(python: str, directory: Path, name: str, *arguments: str) -> Path:
    """The directory, with that package in it."""
    with places.one_at_a_time(directory):
        if not (directory / name / "__init__.py").exists():
            pip = [str(places.ROOT / "scripts" / "retry"), python, "-m", "pip", "install", "-q"]
            pip += ["--disable-pip-version-check", "--target", str(directory), "--upgrade"]
            subprocess.run([*pip, *arguments], check=True)
    return directory


def ask_for_a_key_error(worker: Worker, log_json: bool) -> tuple[Response, str]:
    """The app raises `KeyError("lost")` at /before: the client learns the request id, the log all the rest.

    The answer, and the traceback of the one entry.
    """
    response = worker.slot.exchange(target="/before?secret=1", request_id="the-id")
    assert (response.status, response.frames) == (500, 1)
    assert response.header("content-type") == "text/plain; charset=utf-8"
    assert b"the-id" in response.body
    assert b"KeyError" not in response.body
    logged = worker.stderr()
    if log_json:
        entry = json.loads(logged)
        assert entry["message"] == "the app raised an exception"
        assert (entry["level"], entry["request_id"], entry["method"]) == ("ERROR", "the-id", "GET")
        assert (entry["path"], entry["worker"]) == ("/before", 1)
        trace = entry["traceback"]
    else:
        first, _, trace = logged.partition("\n")
        assert 'ERROR the app raised an exception request_id="the-id" method="GET" path="/before"' in first
    assert trace.startswith("Traceback")
    assert trace.rstrip().endswith("KeyError: 'lost'")
    return response, trace
