"""The other side of the link: a gateway and a supervisor as small as they can be, for tests of the worker.

Speaks the frames of crates/py-link by hand, so that a mistake there does not cancel itself out.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REQUEST, REQUEST_BODY, CANCEL, RETIRE, WELCOME, REFUSE = 1, 2, 3, 4, 5, 6
HELLO, RESPONSE_HEAD, RESPONSE_BODY, RESPONSE_FILE = 64, 65, 66, 67
END, ABORT = 1, 2
TIMEOUT_S = 10.0
HEADER_BYTES = 8


class ClosedError(Exception):
    """The worker has closed its stream."""


@dataclass
class Frame:
    """One frame as received."""

    kind: int
    flags: int
    payload: bytes
    fd: int | None = None


@dataclass
class File:
    """A range of a file that came as a descriptor."""

    fd: int
    offset: int
    length: int

    def read(self) -> bytes:
        data = os.pread(self.fd, self.length, self.offset)
        os.close(self.fd)
        return data


@dataclass
class Response:
    """A response, put together from its frames."""

    status: int
    reason: bytes
    headers: list[tuple[str, str]]
    pieces: list[bytes] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    aborted: bool = False
    frames: int = 0

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1, found
        return found[0] if found else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def short(data: bytes) -> bytes:
    return struct.pack("<H", len(data)) + data


def long(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def encode_frame(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack("<IBBH", len(payload), kind, flags, 0) + payload


def encode_request(
    method: str = "GET",
    target: str | bytes = "/",
    headers: list[tuple[str, str | bytes]] | None = None,
    body: bytes | None = None,
    *,
    file_bytes: int | None = None,
    stream: bool = False,
    stream_bytes: int | None = None,
    mount: str = "",
    scheme: str = "http",
    version: int = 11,
    request_id: str = "req-1",
    server: tuple[str, int] = ("shop.example", 80),
    remote: tuple[str, int] = ("192.0.2.7", 50123),
    exchange: int = 0,
    tls: tuple[int, int] = (0, 0),
) -> bytes:
    if headers is None:
        headers = [("host", "shop.example")]
    raw = target if isinstance(target, bytes) else target.encode("latin-1")
    out = [
        short(request_id.encode()),
        short(method.encode()),
        long(raw),
        short(mount.encode("latin-1")),
        bytes([1 if scheme == "https" else 0, version]),
        short(server[0].encode()),
        struct.pack("<H", server[1]),
        short(remote[0].encode()),
        struct.pack("<H", remote[1]),
        struct.pack("<BHH", exchange, *tls),
        struct.pack("<H", len(headers)),
    ]
    for name, value in headers:
        out += [short(name.encode()), long(value if isinstance(value, bytes) else value.encode("latin-1"))]
    if file_bytes is not None:
        out.append(b"\x02" + struct.pack("<Q", file_bytes))
    elif stream:
        out.append(b"\x03" + struct.pack("<Q", 2**64 - 1 if stream_bytes is None else stream_bytes))
    elif body is not None:
        out.append(b"\x01" + body)
    else:
        out.append(b"\x00")
    return encode_frame(REQUEST, b"".join(out))


def decode_head(payload: bytes) -> tuple[Response, bytes]:
    status, reason_len = struct.unpack_from("<HH", payload)
    at = 4 + reason_len
    reason = payload[4:at]
    (count,) = struct.unpack_from("<H", payload, at)
    at += 2
    headers = []
    for _ in range(count):
        (name_len,) = struct.unpack_from("<H", payload, at)
        name = payload[at + 2 : at + 2 + name_len]
        at += 2 + name_len
        (value_len,) = struct.unpack_from("<I", payload, at)
        value = payload[at + 4 : at + 4 + value_len]
        at += 4 + value_len
        headers.append((name.decode("latin-1"), value.decode("latin-1")))
    return Response(status, reason, headers), payload[at:]


class Slot:
    """One accepted stream of a worker."""

    def __init__(self, stream: socket.socket) -> None:
        stream.settimeout(TIMEOUT_S)
        self.stream = stream
        self.buffer = b""
        self.fds: list[int] = []
        hello = self.frame()
        assert hello.kind == HELLO
        self.hello = json.loads(hello.payload)

    def welcome(self) -> Slot:
        self.stream.sendall(encode_frame(WELCOME, b""))
        return self

    def refuse(self, reason: str) -> None:
        self.stream.sendall(encode_frame(REFUSE, reason.encode()))

    def frame(self) -> Frame:
        """The next frame, with the descriptor that came with it."""
        while True:
            if len(self.buffer) >= 8:
                length, kind, flags, stream = struct.unpack_from("<IBBH", self.buffer)
                assert stream == 0
                assert length <= 1024 * 1024
                if len(self.buffer) >= 8 + length:
                    payload, self.buffer = self.buffer[8 : 8 + length], self.buffer[8 + length :]
                    fd = self.fds.pop(0) if kind == RESPONSE_FILE else None
                    return Frame(kind, flags, payload, fd)
            data, beside, _, _ = self.stream.recvmsg(1 << 20, socket.CMSG_SPACE(4))
            for level, kind, content in beside:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    numbers = array.array("i")
                    numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                    self.fds += numbers
            if not data:
                raise ClosedError
            self.buffer += data

    def send(self, **request: Any) -> None:
        self.stream.sendall(encode_request(**request))

    def send_with_file(self, fd: int, length: int, **request: Any) -> None:
        data = encode_request(file_bytes=length, **request)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        sent = self.stream.sendmsg([data], rights)
        self.stream.sendall(data[sent:])

    def send_body(self, data: bytes, end: bool = False) -> None:
        self.stream.sendall(encode_frame(REQUEST_BODY, data, END if end else 0))

    def break_off_body(self) -> None:
        self.stream.sendall(encode_frame(REQUEST_BODY, b"", ABORT))

    def cancel(self) -> None:
        self.stream.sendall(encode_frame(CANCEL, b""))

    def retire(self) -> None:
        self.stream.sendall(encode_frame(RETIRE, b""))

    def response(self) -> Response:
        """All of the next response."""
        frame = self.frame()
        assert frame.kind == RESPONSE_HEAD, frame
        response, first = decode_head(frame.payload)
        if first:
            response.pieces.append(first)
        response.frames = 1
        while not frame.flags & (END | ABORT):
            frame = self.frame()
            response.frames += 1
            if frame.kind == RESPONSE_FILE:
                offset, length = struct.unpack("<QQ", frame.payload)
                assert frame.fd is not None
                response.files.append(File(frame.fd, offset, length))
            else:
                assert frame.kind == RESPONSE_BODY, frame
                if frame.payload:
                    response.pieces.append(frame.payload)
        response.aborted = bool(frame.flags & ABORT)
        return response

    def exchange(self, **request: Any) -> Response:
        self.send(**request)
        return self.response()

    def get(self, target: str = "/", **request: Any) -> Response:
        return self.exchange(target=target, **request)

    def is_closed(self) -> bool:
        try:
            self.frame()
        except (ClosedError, ConnectionResetError):
            return True
        return False

    def close(self) -> None:
        self.stream.close()


class Gateway:
    """Listens where workers connect."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(64)
        self.listener.settimeout(TIMEOUT_S)

    def accept(self) -> Slot:
        return Slot(self.listener.accept()[0])

    def close(self) -> None:
        self.listener.close()


class Worker:
    """A real worker process, and the supervisor's end of its control socket."""

    def __init__(
        self, gateway: Gateway, directory: Path, python: str, path: list[Path], start: dict[str, Any]
    ) -> None:
        self.gateway = gateway
        ours, theirs = socket.socketpair()
        ours.settimeout(TIMEOUT_S * 3)
        self.control = ours
        self.lines = ours.makefile("r")
        start = {
            "worker": 1,
            "generation": 1,
            "threads": 1,
            "link": str(gateway.path),
            "token": "secret",
            "dir": str(directory),
            "app": "app:app",
            "settings": None,
            "log_json": False,
            "debug_static": True,
            **start,
        }
        self.start = start
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("QUINTET_", "DJANGO_"))}
        environment |= {
            "QUINTET_WORKER": json.dumps(start),
            "QUINTET_CONTROL_FD": str(theirs.fileno()),
            "PYTHONPATH": os.pathsep.join(map(str, path)),
        }
        self.log = directory / "stderr.log"
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [python, "-m", "quintet.worker"],
                env=environment,
                cwd=str(directory),
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        theirs.close()
        self.slots: list[Slot] = []
        self.report: dict[str, Any] = {}
        self.threads = start["threads"]

    def word(self) -> dict[str, Any]:
        """The next message to the supervisor."""
        line = self.lines.readline()
        assert line, f"the worker said nothing and closed: {self.stderr()}"
        return json.loads(line)

    def ready(self) -> dict[str, Any]:
        """Waits until it serves; what the app reports."""
        word = self.word()
        assert word["type"] == "ready", word
        for _ in range(self.threads):
            self.slots.append(self.gateway.accept().welcome())
        self.slots.sort(key=lambda slot: slot.hello["slot"])
        return word["app"]

    @property
    def slot(self) -> Slot:
        return self.slots[0]

    def tell(self, message: dict[str, Any]) -> None:
        self.control.sendall(json.dumps(message).encode() + b"\n")

    def stderr(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self) -> int:
        return self.process.wait(TIMEOUT_S)

    def stop(self) -> None:
        """Ends it, if a test has not; it must not need force."""
        for slot in self.slots:
            slot.close()
        self.lines.close()
        self.control.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"the worker did not leave with its supervisor: {self.stderr()}") from None
