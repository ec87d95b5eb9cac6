"""`quintet import` knows every option of the servers that requirements/test.txt pins, and its result runs."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import places

pytestmark = pytest.mark.any_python

# Options that are no configuration.
ASIDE = {"--help", "--version"}


def run(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(places.quintet()), *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=30)


def flags(server: str) -> list[str]:
    """Every long option of the server, with a value where it takes one."""
    if server in {"uvicorn", "granian"}:
        module, name = ("uvicorn.main", "main") if server == "uvicorn" else ("granian.cli", "cli")
        command = getattr(importlib.import_module(module), name)
        return [
            name if option.is_flag else f"{name}=1"
            for option in command.params
            for name in (*option.opts, *option.secondary_opts)
            if name.startswith("--") and name not in ASIDE
        ]
    help_text = subprocess.run(
        [sys.executable, "-m", server, "--help"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    named = re.findall(r"^  (?:-\w,? ?[A-Z_]*,? ?)*(--[a-z_-]+)( [A-Z_]+)?", help_text, re.MULTILINE)
    return [name + ("=1" if value else "") for name, value in named if name not in ASIDE]


@pytest.mark.parametrize("server", ["uvicorn", "granian", "hypercorn", "daphne"])
def test_every_option_of_the_installed_version_is_known(server: str, tmp_path: Path) -> None:
    options = flags(server)
    assert len(options) > 10, options
    said = run("import", "--", server, "shop.asgi:application", *options, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "# Not known here" not in said.stdout, said.stdout


def test_what_was_imported_is_a_configuration(tmp_path: Path) -> None:
    """The way of a new user: import, look, start."""
    (tmp_path / "gunicorn.conf.py").write_text(
        "wsgi_app = 'app'\nbind = ['127.0.0.1:0']\nthreads = 3\ntimeout = 45\n"
    )
    said = run("import", "gunicorn.conf.py", "--output", "quintet.toml", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "5 settings carried" in said.stderr
    shown = run("config", "show", "--changed", cwd=tmp_path)
    assert '"app:application"' in shown.stdout
    assert '"45s"' in shown.stdout
    # What is there is not overwritten.
    before = (tmp_path / "quintet.toml").read_text()
    again = run("import", "gunicorn.conf.py", "--output", "quintet.toml", cwd=tmp_path)
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert (tmp_path / "quintet.toml").read_text() == before


def test_a_configuration_that_fails_shows_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("workers = 1 / 0\n")
    said = run("import", "gunicorn.conf.py", cwd=tmp_path)
    assert said.returncode == 1
    assert "ZeroDivisionError" in said.stderr
    assert "gunicorn.conf.py cannot be run" in said.stderr
    assert "<string>" not in said.stderr, "no frame of ours"
    assert not said.stdout
