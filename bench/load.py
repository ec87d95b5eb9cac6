"""The load generators: wrk and h2load as fast as the server answers, our own one on a schedule.

They run on the same cores as the servers. CPU per request is not touched by that (only the server's processes
are read); throughput is: it is what a machine of this size can do while it also plays the clients.
"""

from __future__ import annotations

import json
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
        return self.answered / self.seconds if self.seconds else 0.0


def wrk(url: str, seconds: float, connections: int = CONNECTIONS, *headers: str) -> Found:
    """A closed loop of keep-alive connections (HTTP/1.1, with TLS when the URL says so)."""
    arguments = ["wrk", "-t", str(min(THREADS, connections)), "-c", str(connections), "-d", f"{max(1, round(seconds))}s", "--timeout", "10s",
                 "-s", str(BENCH / "wrk_report.lua")]
    for header in headers:
        arguments += ["-H", header]
    found = _json(_run([*arguments, url], seconds), "wrk")
    return Found(found["seconds"], found["answered"], found["errors"], found["p50_ms"], found["p99_ms"], found)


def h2load(url: str, seconds: float, connections: int, streams: int) -> Found:
    """A closed loop of `streams` at once on each HTTP/2 connection."""
    text = _run(["h2load", "-t", str(min(THREADS, connections)), "-c", str(connections), "-m", str(streams),
                 "-D", str(max(1, round(seconds))), "--warm-up-time", "1", url], seconds + 1)
    totals = re.search(r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", text)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    mean = re.search(r"time for request:\s+(\S+)\s+(\S+)\s+(\S+)", text)
    if not totals or not codes or not mean:
        raise BenchError("h2load's report was not understood", text[-1500:])
    good = int(codes[1])
    errors = int(totals[5]) + int(totals[6]) + int(codes[2]) + int(codes[3]) + int(codes[4])
    found = Found(float(max(1, round(seconds))), good, errors, _ms(mean[3]), _ms(mean[2]))
    found.more["latency_is"] = "mean and maximum: h2load prints no percentiles"
    return found


def scheduled(address: str, path: str, rate: float, seconds: float, *, connections: int = CONNECTIONS, warmup: float = 0.5,
              seed: int = 1, slow: tuple[str, float] | None = None) -> Found:
    """An open loop: Poisson arrivals, latency counted from the moment a request was due."""
    arguments = ["open", "--address", address, "--path", path, "--rate", f"{rate:.2f}", "--seconds", f"{seconds:g}", "--warmup", f"{warmup:g}",
                 "--connections", str(connections), "--seed", str(seed)]
    if slow:
        arguments += ["--slow-path", slow[0], "--slow-share", str(slow[1])]
    return _own(arguments, seconds + warmup + 15)


def closed(address: str, path: str, seconds: float, connections: int = CONNECTIONS, requests: int | None = None) -> Found:
    """A closed loop that tells failures by kind."""
    arguments = ["closed", "--address", address, "--path", path, "--seconds", f"{seconds:g}", "--connections", str(connections)]
    if requests:
        arguments += ["--requests", str(requests)]
    return _own(arguments, seconds + 15)


def _own(arguments: list[str], seconds: float) -> Found:
    found = _json(_run([str(LOAD), *arguments], seconds), "quintet-bench-load")
    fast = found["fast"]
    return Found(found["seconds"], found["answered"], found["errors"], fast["p50_ms"], fast["p99_ms"], found)


def _run(arguments: list[str], seconds: float) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=seconds + 30, check=False)
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
