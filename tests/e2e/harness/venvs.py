"""Environments: quintet's wheel and a framework in a venv of its own, made once and kept in .cache/venvs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness import places

PIP_SECONDS_MAX = 600


@dataclass(frozen=True)
class Interpreter:
    """A CPython of this machine."""

    path: Path
    version: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"


@cache
def interpreters() -> tuple[Interpreter, ...]:
    """Every CPython from 3.10 on that is installed, one a minor version, oldest first."""
    candidates = [Path(sys._base_executable)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += sorted(pyenv.glob("3.*/bin/python"), reverse=True)
    candidates += [Path(found) for n in range(10, 20) if (found := shutil.which(f"python3.{n}"))]
    found: dict[tuple[int, int], Interpreter] = {}
    for path in candidates:
        # Free-threaded builds cannot load a stable-ABI extension; they are another matter.
        script = (
            "import sys, sysconfig, venv, ensurepip; "
            "assert not sysconfig.get_config_var('Py_GIL_DISABLED'); print(*sys.version_info[:2])"
        )
        done = subprocess.run([path, "-c", script], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            major, minor = (int(part) for part in done.stdout.split())
            if (major, minor) >= (3, 10):
                found.setdefault((major, minor), Interpreter(path, (major, minor)))
    return tuple(found[version] for version in sorted(found))


def newest() -> Interpreter:
    """The newest of them."""
    return interpreters()[-1]


def venv(interpreter: Interpreter, *requirements: str) -> Path:
    """The python of a venv with these packages and quintet's wheel."""
    name = "-".join([str(interpreter), *(r.replace("~=", "").replace("[binary]", "") for r in requirements)])
    directory = places.CACHE / "venvs" / name.lower()
    python = directory / "bin" / "python"
    wheel = _wheel()
    # The same wheel and packages as last time: nothing to do.
    wanted = f"{hashlib.sha256(wheel.read_bytes()).hexdigest()} {' '.join(requirements)}"
    stamp = directory / "quintet-installed"
    with places.one_at_a_time(directory):
        found = stamp.read_text() if stamp.exists() else ""
        if found == wanted:
            return python
        if not python.exists():
            _run(str(interpreter.path), "-m", "venv", str(directory))
        # Another wheel alone, which is the usual case, needs no look at the packages: pip would leave them as they are.
        if found.partition(" ")[2] != " ".join(requirements):
            _pip(python, *requirements)
        _pip(python, "--no-deps", "--force-reinstall", str(wheel))
        stamp.write_text(wanted)
    return python


def _wheel() -> Path:
    wheels = sorted(places.WHEELS.glob("quintet-*.whl"))
    assert wheels, "no wheel in .cache/wheels; `make build` makes it"
    return wheels[-1]


def _pip(python: Path, *arguments: str) -> None:
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]
    retry = str(places.ROOT / "scripts" / "retry")
    _run(retry, *pip, *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS_MAX, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def main() -> None:
    """`python -m harness.venvs`: prepares the newest Python for the whole suite and prints where it is.

    Prints nothing when that is the Python that runs this.
    """
    if newest().version != sys.version_info[:2]:
        print(venv(newest(), "Django", "psycopg[binary]", "channels"))


if __name__ == "__main__":
    main()
