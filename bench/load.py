"""The load generators: wrk and h2load as fast as the server answers, our own one on a schedule.

They run on the same cores as the servers. CPU per request is not touched by that (only the server's processes
are read); throughput is: it is what a machine of this size can do while it also plays the clients.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from typing import Any

from bench.errors import BenchError
from bench.places import BENCH, LOAD

# One thread a core of the small machines this runs on; more would only take turns.
THREADS = 2
# Enough to keep every worker busy, far below what any of the servers limits.
CONNECTIONS = 64


@dataclass
class Found:
    """One run of a generator."""

    seconds: float
    answered: int
    errors: int
    p50_ms: float
    p99_ms: float
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Throughput."""
        return self.answered / self.seconds if self.seconds else 0.0


def wrk(
    url: str, seconds: float, connections: int = CONNECTIONS, *headers: str, post_bytes: int = 0
) -> Found:
    """A closed loop of keep-alive connections (HTTP/1.1, with TLS when the URL says so); POSTs of so many bytes, or GETs."""
    arguments = [
        "wrk",
        "-t",
        str(min(THREADS, connections)),
        "-c",
        str(connections),
        "-d",
        f"{max(1, round(seconds))}s",
        "--timeout",
        "10s",
        "-s",
        str(BENCH / "wrk_report.lua"),
    ]
    for header in headers:
        arguments += ["-H", header]
    env = {**os.environ, "BENCH_POST_BYTES": str(post_bytes)} if post_bytes else None
    found = _json(_run([*arguments, url], seconds, env), "wrk")
    return Found(
        found["seconds"], found["answered"], found["errors"], found["p50_ms"], found["p99_ms"], found
    )


def h2load(url: str, requests: int, connections: int, streams: int) -> Found:
    """`requests` in all, `streams` at once on each HTTP/2 connection. p50 and p99 stand for mean and maximum."""
    text = _run(
        [
            "h2load",
            "-t",
            str(min(THREADS, connections)),
            "-c",
            str(connections),
            "-m",
            str(streams),
            "-n",
            str(requests),
            url,
        ],
        60,
    )
    took = re.search(r"finished in ([\d.]+(?:us|ms|s)),", text)
    codes = re.search(r"status codes: (\d+) 2xx", text)
    times = re.search(r"time for request:\s+(\S+)\s+(\S+)\s+(\S+)", text)
    if not took or not codes or not times or "Application protocol: h2" not in text:
        raise BenchError("h2load's report was not understood", text[-1500:])
    good = int(codes[1])
    return Found(_ms(took[1]) / 1000, good, requests - good, _ms(times[3]), _ms(times[2]))


def scheduled(
    address: str,
    path: str,
    rate: float,
    seconds: float,
    *,
    connections: int = CONNECTIONS,
    warmup: float = 0.5,
    seed: int = 1,
    slow: tuple[str, float] | None = None,
) -> Found:
    """An open loop: Poisson arrivals, latency counted from the moment a request was due."""
    arguments = [
        "open",
        "--address",
        address,
        "--path",
        path,
        "--rate",
        f"{rate:.2f}",
        "--seconds",
        f"{seconds:g}",
        "--warmup",
        f"{warmup:g}",
        "--connections",
        str(connections),
        "--seed",
        str(seed),
    ]
    if slow:
        arguments += ["--slow-path", slow[0], "--slow-share", str(slow[1])]
    return _own(arguments, seconds + warmup + 15)


def closed(
    address: str, path: str, seconds: float, connections: int = CONNECTIONS, requests: int | None = None
) -> Found:
    """A closed loop that tells failures by kind."""
    arguments = [
        "closed",
        "--address",
        address,
        "--path",
        path,
        "--seconds",
        f"{seconds:g}",
        "--connections",
        str(connections),
    ]
    if requests:
        arguments += ["--requests", str(requests)]
    return _own(arguments, seconds + 15)


def websocket(address: str, path: str, seconds: float, connections: int, message_bytes: int) -> Found:
    """Echoes over WebSockets in a closed loop."""
    arguments = ["websocket", "--address", address, "--path", path, "--seconds", f"{seconds:g}"]
    arguments += ["--connections", str(connections), "--bytes", str(message_bytes)]
    return _own(arguments, seconds + 15)


def _own(arguments: list[str], seconds: float) -> Found:
    found = _json(_run([str(LOAD), *arguments], seconds), "quintet-bench-load")
    fast = found["fast"]
    return Found(found["seconds"], found["answered"], found["errors"], fast["p50_ms"], fast["p99_ms"], found)


def _run(arguments: list[str], seconds: float, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=seconds + 30, check=False, env=env
    )
    if done.returncode != 0:
        raise BenchError(f"{arguments[0]} failed", (done.stderr or done.stdout).strip()[-1500:])
    return done.stdout


def _json(text: str, who: str) -> dict[str, Any]:
    lines = [line for line in text.splitlines() if line.startswith("{")]
    if not lines:
        raise BenchError(f"{who} printed no report", text[-1500:])
    report: dict[str, Any] = json.loads(lines[-1])
    return report


def _ms(text: str) -> float:
    """h2load's '1.23ms', '456us', '1.2s'."""
    match = re.fullmatch(r"([\d.]+)(us|ms|s)", text)
    if not match:
        raise BenchError("h2load's report was not understood", text)
    return float(match[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[match[2]]
