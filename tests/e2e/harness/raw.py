"""HTTP/1.1 by hand: bytes out, answers in, so that a story sees what a client library would hide."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from types import TracebackType

# No answer of a test is longer in coming.
READ_SECONDS_MAX = 15


@dataclass
class Answer:
    """A response as it came over the wire."""

    version: str
    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        """The value of a field, several joined by commas; None when it is absent."""
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def text(self) -> str:
        return self.body.decode()


class Closed(Exception):
    """The server closed before an answer, or in the middle of one."""


class Raw:
    """A connection; a context manager."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.settimeout(READ_SECONDS_MAX)
        self._buffer = b""

    @classmethod
    def tcp(cls, host: str, port: int, tls: ssl.SSLContext | None = None, source: str | None = None) -> Raw:
        """Connect over TCP, with TLS if a context is given."""
        connected = socket.create_connection((host, port), 5, (source, 0) if source else None)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(tls.wrap_socket(connected, server_hostname="localhost") if tls else connected)

    @classmethod
    def unix(cls, path: str) -> Raw:
        """Connect to a unix socket."""
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(path)
        return cls(connected)

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def reset(self) -> None:
        """Hang up without manners: a RST instead of a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes | str) -> Raw:
        """Send as it is."""
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def request(self, line: str, *fields: str, body: bytes = b"", host: str = "localhost") -> Raw:
        """Send a well-formed request: `request("GET / HTTP/1.1", "Accept: */*")`."""
        lines = [line if " HTTP/" in line else f"{line} HTTP/1.1", f"Host: {host}", *fields]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def answer(self, *, head_only: bool = False) -> Answer:
        """Read one response; `head_only` after a HEAD."""
        first, *lines = self.head()
        version, _, rest = first.partition(" ")
        code, _, reason = rest.partition(" ")
        fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        found = Answer(version, int(code), reason, fields, b"")
        if head_only or found.status in {204, 304} or found.status < 200:
            return found
        if (found.get("transfer-encoding") or "").lower() == "chunked":
            self._chunks(found)
        elif (length := found.get("content-length")) is not None:
            found.body = self.exactly(int(length))
        else:
            found.body = self.rest()
        return found

    def head(self) -> list[str]:
        """The lines of a head, without the empty one."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head.decode("latin-1").split("\r\n")

    def exactly(self, count: int) -> bytes:
        """This many bytes."""
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def line(self) -> bytes:
        """Up to the next CRLF."""
        while b"\r\n" not in self._buffer:
            self._more()
        taken, _, self._buffer = self._buffer.partition(b"\r\n")
        return taken

    def rest(self) -> bytes:
        """Until the server closes."""
        try:
            while True:
                self._more()
        except Closed:
            taken, self._buffer = self._buffer, b""
            return taken

    def is_closed(self) -> bool:
        """Wait for the server to close; False when it says something instead."""
        try:
            self._more()
        except Closed:
            return True
        return False

    def is_silent(self, seconds: float) -> bool:
        """Does nothing come for this long?"""
        if self._buffer:
            return False
        self.socket.settimeout(seconds)
        try:
            self._more()
        except TimeoutError:
            return True
        except Closed:
            return False
        finally:
            self.socket.settimeout(READ_SECONDS_MAX)
        return False

    def _more(self) -> None:
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            raise Closed(f"after {self._buffer[:200]!r}")
        self._buffer += data

    def _chunks(self, found: Answer) -> None:
        parts = []
        while size := int(self.line().split(b";")[0], 16):
            parts.append(self.exactly(size))
            assert self.line() == b"", "a chunk ends with CRLF"
        while trailer := self.line().decode("latin-1"):
            name, _, value = trailer.partition(":")
            found.trailers.append((name, value.strip()))
        found.body = b"".join(parts)
