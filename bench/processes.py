"""Server processes: started in a process group of their own, watched as a tree, stopped by their own pids.

All stay in the harness's session: the kernel shares CPU between sessions first (sched(7), autogroup), and a stack of two
sessions would get twice the share of a stack of one.

CPU time is read from each process's CPU clock (clock_getcpuclockid(3)): the user and system time that
/proc/PID/stat shows, threads included, in nanoseconds instead of ticks of 10 ms. Children that ended meanwhile are in
their parent's cutime and cstime.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import BenchError

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# How long a server has to stop by itself; then what is left of it is killed.
_STOP_SECONDS = 8.0


@dataclass
class Tree:
    """A server: the process the harness started and all its descendants."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    # What has taken over from the process the harness started: an upgrade hands the listeners to a new one.
    extra: list[int] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """The process the harness started."""
        return self.process.pid

    def pids(self) -> list[int]:
        """The root and its descendants, alive now."""
        return descendants([self.process.pid, *self.extra])

    def cpu_seconds(self) -> float:
        """User and system time of the whole tree so far."""
        return cpu_seconds(self.pids())

    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def stop(self) -> None:
        """SIGTERM and a wait; what is left of the tree is killed."""
        before = {pid: _started(pid) for pid in self.pids()}
        if self.alive():
            self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_SECONDS)
        for pid, started in before.items():
            # A number may have gone to another process meanwhile; its start time has not.
            if started is not None and _started(pid) == started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def start(
    name: str,
    command: list[str | Path],
    log: Path,
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    user: str | None = None,
) -> Tree:
    """Starts a server with its output in `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            preexec_fn=os.setpgrp,
            user=user,
            group=group_of(user),
            extra_groups=[] if user else None,
        )
    return Tree(name, process, log)


def group_of(user: str | None) -> int | None:
    """The user's own group."""
    return pwd.getpwnam(user).pw_gid if user else None


def wait_until(tree: Tree, ready: object, seconds: float, what: str) -> None:
    """Polls `ready()` until it is true; a server that ended or never answers fails the run."""
    assert callable(ready)
    deadline = time.monotonic() + seconds
    while not ready():
        if not tree.alive():
            raise BenchError(
                f"{tree.name} did not start",
                f"it exited with {tree.process.returncode}\n{tree.tail()}",
                f"its whole log is in {tree.log}",
            )
        if time.monotonic() > deadline:
            raise BenchError(
                f"{tree.name} did not start",
                f"{what} within {seconds:.0f} s\n{tree.tail()}",
                f"its whole log is in {tree.log}",
            )
        time.sleep(0.05)


def descendants(roots: list[int]) -> list[int]:
    """`roots` and every process below them."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(_parent(int(entry.name)), []).append(int(entry.name))
    found, queue = [], [pid for pid in roots if Path(f"/proc/{pid}").exists()]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue.extend(children.get(pid, []))
    return found


def children(pid: int) -> list[int]:
    """The processes that `pid` has started, alive now."""
    return [found for found in descendants([pid]) if found != pid and _parent_or_none(found) == pid]


def born(pid: int) -> float:
    """Seconds after boot."""
    return int(_stat(pid)[19]) * _TICK_NS / 1e9


def state(pid: int) -> str:
    """One letter, as in proc(5)."""
    return _stat(pid)[0]


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes and of their children that were waited for."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            # CPUCLOCK_SCHED of a process, as clock_getcpuclockid(3) computes it.
            total += time.clock_gettime_ns((~pid << 3) | 2)
            fields = _stat(pid)
            total += (int(fields[13]) + int(fields[14])) * _TICK_NS
    return total / 1e9


def memory_mib(pids: list[int]) -> tuple[float, float]:
    """(RSS, PSS): RSS counts shared pages once per process, PSS divides them by their sharers."""
    rss = pss = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:"):
                    rss += int(line.split()[1])
                elif line.startswith("Pss:"):
                    pss += int(line.split()[1])
    return rss / 1024, pss / 1024


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name; the first is the state (field 3 of proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _parent_or_none(pid: int) -> int | None:
    try:
        return _parent(pid)
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When the process started, in ticks after boot; None when it is gone."""
    try:
        return _stat(pid)[19]
    except OSError:
        return None
