"""The package itself: `python -m quintet`, and what it says without the program."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from harness import places


def test_python_m_quintet_is_the_program(package_version: str, package_dir: Path) -> None:
    program = Path(sysconfig.get_path("scripts"), "quintet")
    if (package_dir / "quintet").resolve() == places.ROOT / "python" / "quintet" and not program.exists():
        pytest.skip("the source tree is tested here, nothing is installed")
    environment = {"PYTHONPATH": str(package_dir)}
    command = [sys.executable, "-m", "quintet", "--version"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, f"quintet {package_version}\n")


@pytest.mark.every_python
def test_without_the_program_it_says_how_to_get_it(python: str, package_dir: Path, tmp_path: Path) -> None:
    # A prefix of its own has no scripts; an empty PATH nothing to find.
    code = "import sys; sys.executable = sys.argv[1]; import quintet.__main__ as m; m.sysconfig.get_path = "
    code += "lambda *_: sys.argv[1]; sys.exit(m.main())"
    environment = {"PYTHONPATH": str(package_dir), "PATH": ""}
    command = [python, "-c", code, str(tmp_path / "nothing")]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert told.stderr.startswith("error: the quintet program is not installed")
    assert "hint: " in told.stderr
