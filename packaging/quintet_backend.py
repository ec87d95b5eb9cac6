"""The build backend (PEP 517): maturin, with the native program built first.

One wheel holds both halves: maturin builds the extension `quintet._core`, and copies the program `quintet` from its data
folder into the scripts of the environment. It only copies what is there, so that this wrapper runs cargo for it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import maturin

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "target" / "wheel-data" / "scripts"

get_requires_for_build_wheel = maturin.get_requires_for_build_wheel
get_requires_for_build_editable = maturin.get_requires_for_build_editable
get_requires_for_build_sdist = maturin.get_requires_for_build_sdist
build_sdist = maturin.build_sdist


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """A wheel with the extension and the program."""
    _build_program()
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """For `pip install -e .`: the program as it is now, the Python files in place."""
    _build_program()
    return maturin.build_editable(wheel_directory, config_settings, metadata_directory)


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: dict[str, Any] | None = None
) -> str:
    """Metadata alone; maturin wants its data folder to exist."""
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    return maturin.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def _build_program() -> None:
    if shutil.which("cargo") is None:
        sys.exit(
            "error: quintet is built with Rust, and there is no cargo on PATH\n"
            "hint: https://rustup.rs tells how to install it; then open a new shell"
        )
    command = ["cargo", "build", "--release", "-p", "quintet", "--message-format=json-render-diagnostics"]
    # Cargo says where it put the program: CARGO_TARGET_DIR and the user's configuration may move it.
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:
        sys.exit("error: the quintet program could not be built; cargo's messages above say why")
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    programs = [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "quintet"]
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    target = SCRIPTS / "quintet"
    temporary = SCRIPTS / ".quintet.new"
    shutil.copy2(programs[-1], temporary)
    if shutil.which("strip"):
        subprocess.run(["strip", "--strip-debug", str(temporary)], check=False)
    temporary.replace(target)
