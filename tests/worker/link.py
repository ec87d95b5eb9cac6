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
CREDIT_TO_WORKER, MESSAGE_TO_WORKER, CLOSE_TO_WORKER = 7, 8, 9
HELLO, RESPONSE_HEAD, RESPONSE_BODY, RESPONSE_FILE = 64, 65, 66, 67
EARLY_HINTS, TRAILERS, DETACHED, CREDIT_TO_GATEWAY, MESSAGE_TO_GATEWAY, CLOSE_TO_GATEWAY = (
    68,
    69,
    70,
    71,
    72,
    73,
)
END, ABORT = 1, 2
TIMEOUT_S = 10.0
HEADER_BYTES = 8
WINDOW_BYTES = 256 << 10


class ClosedError(Exception):
    """The worker has closed its stream."""


@dataclass
class Frame:
    """One frame as received."""

    kind: int
    flags: int
    payload: bytes
    fd: int | None = None
    stream: int = 0


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
    hints: list[list[tuple[str, str]]] = field(default_factory=list)
    trailers: list[tuple[str, str]] | None = None
    # Set when the exchange goes on as this stream of the long link.
    detached: int | None = None

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


def encode_frame(kind: int, payload: bytes, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack("<IBBH", len(payload), kind, flags, stream) + payload


def encode_local(local: tuple[str, int | None] | None) -> bytes:
    if local is None:
        return bytes([0])
    host, port = local
    if port is None:
        return bytes([1]) + short(host.encode())
    version = 6 if ":" in host else 4
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    return bytes([version]) + socket.inet_pton(family, host) + struct.pack("<H", port)


def pem(text: str) -> str:
    """Something with the form of a certificate."""
    return f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"


# A client's certificate and the one above it.
SHOWN = (
    *("CN=anna", "anna", "CN=authority", "01AB", "f00d"),
    *("Jan  2 00:00:00 2026 GMT", "Jan  2 00:00:00 2027 GMT", pem("own") + pem("over it")),
)


def encode_client(client: tuple[str, ...] | None) -> bytes:
    """Not asked, nothing shown, or the eight texts of a certificate, of which the chain is the last."""
    if not client:
        return bytes([0 if client is None else 1])
    *texts, chain = (text.encode() for text in client)
    return b"\x02" + b"".join(map(short, texts)) + long(chain)


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
    local: tuple[str, int | None] | None = ("192.0.2.80", 8000),
    remote: tuple[str, int] = ("192.0.2.7", 50123),
    exchange: int = 0,
    tls: tuple[int, int] = (0, 0),
    client: tuple[str, ...] | None = None,
    number: int = 0,
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
        encode_local(local),
        short(remote[0].encode()),
        struct.pack("<H", remote[1]),
        struct.pack("<BHH", exchange, *tls),
        encode_client(client),
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
    return encode_frame(REQUEST, b"".join(out), stream=number)


def decode_head(payload: bytes) -> tuple[Response, bytes]:
    status, reason_len = struct.unpack_from("<HH", payload)
    at = 4 + reason_len
    reason = payload[4:at]
    headers, at = decode_fields(payload, at)
    return Response(status, reason, headers), payload[at:]


def decode_fields(payload: bytes, at: int = 0) -> tuple[list[tuple[str, str]], int]:
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
    return headers, at


class Talk:
    """One exchange: frames both ways, wherever they travel."""

    def frame(self) -> Frame:
        raise NotImplementedError

    def send_frame(self, kind: int, payload: bytes, flags: int = 0) -> None:
        raise NotImplementedError

    def send_body(self, data: bytes, end: bool = False) -> None:
        self.send_frame(REQUEST_BODY, data, END if end else 0)

    def break_off_body(self) -> None:
        self.send_frame(REQUEST_BODY, b"", ABORT)

    def cancel(self) -> None:
        self.send_frame(CANCEL, b"")

    def response(self, response: Response | None = None) -> Response:
        """All of the next response, or the rest of one whose head has been read."""
        hints = []
        flags = 0
        if response is None:
            frame = self.frame()
            while frame.kind == EARLY_HINTS:
                hints.append(decode_fields(frame.payload)[0])
                frame = self.frame()
            flags = frame.flags
            if frame.kind == DETACHED:
                response, first = decode_head(frame.payload[2:])
                (response.detached,) = struct.unpack_from("<H", frame.payload)
                assert not flags
                flags = END
            else:
                assert frame.kind == RESPONSE_HEAD, frame
                response, first = decode_head(frame.payload)
            if first:
                response.pieces.append(first)
            response.frames = 1
            response.hints = hints
        while not flags & (END | ABORT):
            frame = self.frame()
            flags = frame.flags
            response.frames += 1
            if frame.kind == RESPONSE_FILE:
                offset, length = struct.unpack("<QQ", frame.payload)
                assert frame.fd is not None
                response.files.append(File(frame.fd, offset, length))
            elif frame.kind == TRAILERS:
                response.trailers = decode_fields(frame.payload)[0]
            else:
                assert frame.kind == RESPONSE_BODY, frame
                if frame.payload:
                    response.pieces.append(frame.payload)
        response.aborted = bool(flags & ABORT)
        return response


class Slot(Talk):
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

    def send_frame(self, kind: int, payload: bytes, flags: int = 0) -> None:
        self.stream.sendall(encode_frame(kind, payload, flags))

    def frame(self) -> Frame:
        frame = self.any_frame()
        assert frame.stream == 0
        return frame

    def any_frame(self) -> Frame:
        """The next frame, with the descriptor that came with it."""
        while True:
            if len(self.buffer) >= 8:
                length, kind, flags, stream = struct.unpack_from("<IBBH", self.buffer)
                assert length <= 1024 * 1024
                if len(self.buffer) >= 8 + length:
                    payload, self.buffer = self.buffer[8 : 8 + length], self.buffer[8 + length :]
                    fd = self.fds.pop(0) if kind == RESPONSE_FILE else None
                    return Frame(kind, flags, payload, fd, stream)
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

    def retire(self) -> None:
        self.stream.sendall(encode_frame(RETIRE, b""))

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


class Long(Slot):
    """The long link of a worker: many exchanges, told apart by their numbers."""

    def __init__(self, stream: socket.socket, hello: Slot) -> None:
        self.stream, self.buffer, self.fds, self.hello = stream, hello.buffer, hello.fds, hello.hello
        self.waiting: dict[int, list[Frame]] = {}
        self.number = 0

    def frame_of(self, number: int) -> Frame:
        """The next frame of that exchange; those of others wait."""
        while not self.waiting.get(number):
            frame = self.any_frame()
            self.waiting.setdefault(frame.stream, []).append(frame)
        return self.waiting[number].pop(0)

    def websocket(self, target: str = "/", **request: Any) -> LongStream:
        """Begins a handshake."""
        self.number += 1
        self.stream.sendall(encode_request(number=self.number, target=target, exchange=1, **request))
        return LongStream(self, self.number)


class LongStream(Talk):
    """One exchange of a long link."""

    def __init__(self, link: Long, number: int) -> None:
        self.link = link
        self.number = number

    def send_frame(self, kind: int, payload: bytes, flags: int = 0) -> None:
        self.link.stream.sendall(encode_frame(kind, payload, flags, self.number))

    def frame(self) -> Frame:
        return self.link.frame_of(self.number)

    def next(self, kind: int) -> Frame:
        """The next frame, which must be of this kind."""
        frame = self.frame()
        assert frame.kind == kind, frame
        return frame

    def head(self) -> Response:
        """A head without the end."""
        frame = self.next(RESPONSE_HEAD)
        assert not frame.flags, frame
        return decode_head(frame.payload)[0]

    def credit(self, count: int) -> None:
        self.send_frame(CREDIT_TO_WORKER, struct.pack("<I", count))

    def credited(self) -> int:
        return struct.unpack("<I", self.next(CREDIT_TO_GATEWAY).payload)[0]

    def send_message(self, message: str | bytes, piece_bytes: int = 64 << 10) -> None:
        """A message of the client, in pieces."""
        kind, data = (1, message.encode()) if isinstance(message, str) else (2, message)
        data = bytes([kind]) + data
        for at in range(0, len(data), piece_bytes):
            end = at + piece_bytes >= len(data)
            self.send_frame(MESSAGE_TO_WORKER, data[at : at + piece_bytes], END if end else 0)

    def message(self) -> str | bytes:
        """A message of the app; returns what credit it used."""
        data = b""
        while True:
            frame = self.frame()
            if frame.kind == CREDIT_TO_GATEWAY:
                continue
            assert frame.kind == MESSAGE_TO_GATEWAY, frame
            assert len(frame.payload) <= 64 << 10
            data += frame.payload
            if frame.flags & END:
                return data[1:].decode() if data[0] == 1 else data[1:]

    def close(self, code: int = 1000, reason: str = "") -> None:
        """The client closes."""
        self.send_frame(CLOSE_TO_WORKER, struct.pack("<H", code) + reason.encode())

    def closed(self) -> tuple[int, str]:
        """The app's close."""
        frame = self.next(CLOSE_TO_GATEWAY)
        assert frame.flags & END
        return struct.unpack_from("<H", frame.payload)[0], frame.payload[2:].decode()


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
        self.long: Long | None = None
        self.concurrency = start.get("concurrency", 1)
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
        is_wsgi = word["app"]["interface"] == "wsgi"
        for _ in range(self.threads if is_wsgi else 0):
            self.slots.append(self.gateway.accept().welcome())
        if word["app"]["interface"] == "asgi":
            self.meet()
        self.slots.sort(key=lambda slot: slot.hello["slot"])
        return word["app"]

    def meet(self) -> None:
        """Accepts every stream of an ASGI worker: slots and the long link."""
        for _ in range(self.concurrency + 1):
            slot = self.gateway.accept().welcome()
            if slot.hello["channel"] == "long":
                self.long = Long(slot.stream, slot)
            else:
                self.slots.append(slot)
        self.slots.sort(key=lambda slot: slot.hello["slot"])

    @property
    def link(self) -> Long:
        assert self.long is not None
        return self.long

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
        for slot in [*self.slots, *([self.long] if self.long else [])]:
            slot.close()
        self.lines.close()
        self.control.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"the worker did not leave with its supervisor: {self.stderr()}") from None
