"""The rivals that serve ASGI, each with the fastest parts its documentation names: uvloop for all that can."""

from __future__ import annotations

from pathlib import Path

from bench import processes
from bench.places import RIVALS_VENV
from bench.rivals import Start
from bench.stacks import Site, Stack, free_port

_BIN = RIVALS_VENV / "bin"
# As many idle WebSockets as the scenario holds must find room: Granian counts connections against its backpressure.
_CONNECTIONS = 8192


def uvicorn(site: Site, work: Path) -> Stack:
    """uvicorn[standard]: httptools, uvloop, websockets."""
    port = free_port()
    command = [
        *(_BIN / "uvicorn", site.wsgi, "--app-dir", site.directory, "--port", port),
        *("--workers", site.workers, "--loop", "uvloop", "--http", "httptools", "--ws", "websockets"),
        *("--no-access-log", "--log-level", "warning"),
    ]
    return Stack("uvicorn", [_start("uvicorn", command, site, work)], port)


def granian(site: Site, work: Path) -> Stack:
    """Granian with uvloop."""
    port = free_port()
    command = [
        *(_BIN / "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", port),
        *("--workers", site.workers, "--loop", "uvloop", "--runtime-mode", "st", "--http", "1", "--ws"),
        *("--backlog", "2048", "--backpressure", _CONNECTIONS, "--log-level", "warning"),
        *("--working-dir", site.directory, site.wsgi),
    ]
    return Stack("granian", [_start("granian", command, site, work)], port)


def daphne(site: Site, work: Path) -> Stack:
    """Daphne has no workers of its own: one process."""
    port = free_port()
    command = [
        _BIN / "daphne",
        "-b",
        "127.0.0.1",
        "-p",
        port,
        "-v",
        "0",
        "--access-log",
        "/dev/null",
        site.wsgi,
    ]
    return Stack("daphne", [_start("daphne", command, site, work)], port)


STARTS: dict[str, Start] = {"uvicorn": uvicorn, "granian": granian, "daphne": daphne}


def _start(name: str, command: list[object], site: Site, work: Path) -> processes.Tree:
    words: list[str | Path] = [str(word) for word in command]
    return processes.start(name, words, work / f"{name}.log", env=site.environment, cwd=site.directory)
