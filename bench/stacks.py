"""A stack: the server processes that together answer a request, and the site they serve."""

from __future__ import annotations

import http.client
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import BenchError
from bench.processes import Tree, cpu_seconds, memory_mib, wait_until

# Importing Django and its apps takes a second on a quiet machine; a compiler beside it makes that ten.
START_SECONDS = 60.0


@dataclass(frozen=True)
class Site:
    """What a stack serves. Workers and threads are the same for all stacks of a scenario."""

    directory: Path
    settings: str
    # The callable, WSGI or (see `asgi`) ASGI, as MODULE:NAME.
    wsgi: str
    workers: int = 2
    threads: int = 1
    env: dict[str, str] = field(default_factory=dict)
    static_url: str = "/static/"
    static_root: Path | None = None
    asgi: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """What the server's processes get on top of ours."""
        # A site without settings is a plain app.
        return ({"DJANGO_SETTINGS_MODULE": self.settings} if self.settings else {}) | self.env


@dataclass
class Stack:
    """Started servers."""

    name: str
    trees: list[Tree]
    port: int
    host: str = "127.0.0.1"
    tls_port: int | None = None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"

    def url(self, path: str, *, tls: bool = False) -> str:
        """The URL of a path."""
        return (
            f"https://{self.host}:{self.tls_port}{path}" if tls else f"http://{self.host}:{self.port}{path}"
        )

    def pids(self) -> list[int]:
        """All server processes, alive now."""
        return [pid for tree in self.trees for pid in tree.pids()]

    def cpu_seconds(self) -> float:
        """What all of them have used so far."""
        return cpu_seconds(self.pids())

    def memory_mib(self) -> tuple[float, float]:
        """(RSS, PSS)."""
        return memory_mib(self.pids())

    def stop(self) -> None:
        """The last one started stops first: the proxy stands in front of the app."""
        for tree in reversed(self.trees):
            tree.stop()

    def log_tails(self) -> str:
        """For the message when something went wrong."""
        return "\n".join(f"-- {tree.name}: {tree.log}\n{tree.tail()}" for tree in self.trees)

    def get(self, path: str, *, tls: bool = False, timeout: float = 10.0) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        if tls:
            context = ssl._create_unverified_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self.host, self.tls_port, timeout=timeout, context=context
            )
        else:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def check(self, path: str, expected: bytes | None = None, *, tls: bool = False) -> bytes:
        """Waits until `path` is answered with 200, then insists on the body. A wrong answer fails the run."""
        last = "no answer"

        def ready() -> bool:
            nonlocal last
            try:
                status, body = self.get(path, tls=tls)
            except (OSError, http.client.HTTPException) as error:
                last = f"{type(error).__name__}: {error}"
                return False
            last = f"status {status}, body {body[:120]!r}"
            return status == 200

        try:
            wait_until(self.trees[0], ready, START_SECONDS, "no 200")
        except BenchError as error:
            raise BenchError(
                f"{self.name} did not answer {path}", f"last: {last}\n{self.log_tails()}", error.hint
            ) from error
        _, body = self.get(path, tls=tls)
        if expected is not None and body != expected:
            raise BenchError(
                f"{self.name} answers {path} wrongly", f"expected {expected[:120]!r}, got {body[:120]!r}"
            )
        return body


def free_port() -> int:
    """A port nobody listens on now; the harness starts one server at a time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
