"""What a run needs and how it gets there: tools from Debian, rivals from PyPI, the load generator from cargo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from bench.errors import BenchError
from bench.places import BENCH, LOAD, PROJECT_PYTHON, RIVALS_VENV, STATIC, WORK

# command: Debian package
_PACKAGES = {
    "wrk": "wrk",
    "nginx": "nginx-core",
    "h2load": "nghttp2-client",
    "haproxy": "haproxy",
    "slowhttptest": "slowhttptest",
    "pgbouncer": "pgbouncer",
    "postgres": "postgresql",
    "openssl": "openssl",
    "gcc": "build-essential",
    "valgrind": "valgrind",
    "Python.h": "python3-dev",
}
# The sizes of the `static` scenario, in bytes. The names end in .png: nobody tries to compress them.
STATIC_SIZES = {"1kB": 1_000, "100kB": 100_000, "10MB": 10_000_000}


def tools(names: Iterable[str]) -> None:
    """Installs what is missing when we may, says the command otherwise."""
    missing = sorted({_PACKAGES[name] for name in names if find(name) is None})
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        command = ["sudo", "-n", *command]
    print(f"installing {', '.join(missing)} …", flush=True)
    # The packages' services must not start: the harness runs its own, privately.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        detail = (done.stderr or done.stdout)[-800:] if done.returncode else ""
    except FileNotFoundError as error:
        detail = str(error)
    still = [name for name in names if find(name) is None]
    if still:
        raise BenchError(
            f"{', '.join(still)} not found", detail, f"run as root: apt-get install {' '.join(missing)}"
        )


def find(name: str) -> str | None:
    """A command, also where Debian puts servers (sbin, postgresql's own directory)."""
    if name == "Python.h":
        header = Path(sysconfig.get_path("include"), name)
        return str(header) if header.exists() else None
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found or name != "postgres":
        return found
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return str(newest[-1]) if newest else None


def rivals() -> None:
    """A venv over the project's: the same interpreter, the same Django, and the rivals on top."""
    wanted = (BENCH / "requirements.txt").read_text()
    stamp = RIVALS_VENV / "installed.txt"
    mark = f"{PROJECT_PYTHON}\n{wanted}"
    if stamp.exists() and stamp.read_text() == mark:
        return
    print("installing the rivals (uWSGI is compiled, half a minute) …", flush=True)
    shutil.rmtree(RIVALS_VENV, ignore_errors=True)
    _step([str(PROJECT_PYTHON), "-m", "venv", str(RIVALS_VENV)])
    python = RIVALS_VENV / "bin" / "python"
    _step(
        [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            str(BENCH / "requirements.txt"),
        ]
    )
    inner = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    Path(inner.stdout.strip(), "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    stamp.write_text(mark)


def load_generator() -> None:
    """Builds it; cargo does nothing when nothing changed."""
    _step(
        [
            "cargo",
            "build",
            "--quiet",
            "--release",
            "--manifest-path",
            str(BENCH / "load" / "Cargo.toml"),
            "--target-dir",
            str(LOAD.parent.parent),
        ]
    )


def static_files() -> None:
    """Random bytes, so that no layer can make them smaller."""
    STATIC.mkdir(parents=True, exist_ok=True)
    for name, size in STATIC_SIZES.items():
        file = STATIC / f"{name}.png"
        if not file.exists() or file.stat().st_size != size:
            file.write_bytes(os.urandom(size))


def certificate() -> tuple[Path, Path]:
    """A self-signed one for 127.0.0.1: P-256, what most sites have today. It lives a week and only in bench/.work."""
    chain, key = WORK / "tls" / "certificate.pem", WORK / "tls" / "key.pem"
    if not chain.exists():
        chain.parent.mkdir(parents=True, exist_ok=True)
        _step(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "7",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
                "-keyout",
                str(key),
                "-out",
                str(chain),
            ]
        )
    return chain, key


def _step(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BenchError(
            f"{command[0]} not found", str(error), "`make help` names what a machine needs"
        ) from error
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command[:4])} … failed", (done.stderr or done.stdout).strip()[-1500:])
