"""Physical limits, printed beside the figures: what no server can go below."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

from bench import load, processes
from bench.errors import BenchError
from bench.places import BENCH, LOAD, PROJECT_PYTHON, WORK
from bench.stacks import Site, free_port


def bare_call(site: Site, path: str, requests: int) -> float:
    """CPU microseconds of the page without a server (bench/bare.py)."""
    done = subprocess.run(
        [PROJECT_PYTHON, BENCH / "bare.py", site.directory, site.wsgi, path, str(requests)],
        capture_output=True,
        text=True,
        env={**os.environ, **site.environment},
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError("the bare call failed", done.stderr.strip()[-1500:])
    return float(done.stdout)


def loopback_echo(bytes_out: int, seconds: float) -> float:
    """CPU microseconds to read wrk's request and write `bytes_out` bytes: two system calls on the loopback."""
    port = free_port()
    tree = processes.start(
        "echo", [LOAD, "echo", "--address", f"127.0.0.1:{port}", "--bytes", str(bytes_out)], WORK / "echo.log"
    )
    try:
        processes.wait_until(tree, lambda: _listens(port), 5, "no connection")
        before = processes.cpu_seconds(tree.pids())
        found = load.wrk(f"http://127.0.0.1:{port}/", seconds)
        return (processes.cpu_seconds(tree.pids()) - before) / max(found.answered, 1) * 1e6
    finally:
        tree.stop()


def memcpy(size: int, seconds: float = 0.3) -> float:
    """CPU microseconds to copy `size` bytes once in memory."""
    source, target = bytes(os.urandom(min(size, 1 << 20))) * max(1, size >> 20), bytearray(size)
    source = source[:size].ljust(size, b"\0")
    view = memoryview(target)
    copies, begin = 0, time.process_time()
    while time.process_time() - begin < seconds:
        for _ in range(10):
            view[:] = source
        copies += 10
    return (time.process_time() - begin) / copies * 1e6


def _listens(port: int) -> bool:
    import socket

    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def machine() -> str:
    """What the figures were taken on, without names."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown CPU",
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / (1 << 20)
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {os.uname().release.split('-')[0]}"
