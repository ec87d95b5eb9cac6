"""A Redis (or Valkey) of a story's own, and a line to it that can be cut, held up or slowed down."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from harness.processes import wait_until
from harness.site import free_port

START_SECONDS_MAX = 10


def program() -> str:
    """Valkey answers to the same words; where only that is installed, it is used."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    assert found, "redis-server was not found\nhint: on Debian, apt-get install redis-server"
    return found


class PrivateRedis:
    """A server on a port and a socket of its own, with nothing on disk."""

    def __init__(self, *flags: str) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="story-redis-"))
        self.port = free_port()
        self.socket = self.dir / "socket"
        self.flags = flags
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        command = [program(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += [
            "--unixsocket",
            str(self.socket),
            "--dir",
            str(self.dir),
            "--appendonly",
            "no",
            *self.flags,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, START_SECONDS_MAX, "Redis answers")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            self.do("PING")
            return True
        return False

    def do(self, *words: str, auth: str | None = None) -> str:
        """One command on a connection of its own; the bytes of its answer, as far as they come in one piece."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
            for command in ([("AUTH", auth)] if auth else []) + [words]:
                parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in command)
                line.sendall(f"*{len(command)}\r\n{parts}".encode())
                answer = line.recv(1 << 16).decode(errors="replace")
            return answer

    def pause(self) -> None:
        """It hears and says nothing any more; its connections stay open."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """It is gone at once, and all that it knew."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """For the end of the story."""
        if self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


class Line:
    """A TCP line to a server: whole at first; then as the story wants it."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.delay = 0.0
        self.swallows = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The server's address by this line."""
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Every connection breaks now; new ones are made."""
        held, self._open = self._open, []
        for one in held:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """For the end of the story."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                time.sleep(self.delay)
                # What was swallowed never comes: TCP would break, but not for a quarter of an hour.
                while self.swallows:
                    time.sleep(0.02)
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
