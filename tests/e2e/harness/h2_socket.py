"""A WebSocket in a stream of HTTP/2 (RFC 8441): the client that no library has."""

from __future__ import annotations

import os
import socket
import struct
from types import TracebackType

import h2.config
import h2.connection
import h2.events
import h2.settings

from harness.site import Site

# No answer of a test is longer in coming.
READ_SECONDS_MAX = 15


class H2Socket:
    """A connection with one WebSocket; a context manager. `headers` are those of the handshake's answer."""

    def __init__(self, site: Site, path: str, *fields: tuple[str, str]) -> None:
        context = site.tls
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", site.port), 5)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        self.socket.settimeout(READ_SECONDS_MAX)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.headers: dict[str, str] = {}
        self.ended = False
        self._data = b""
        setting = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
        while not self.h2.remote_settings.get(setting):
            self._read()
        self.stream = self.h2.get_next_available_stream_id()
        asked = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":path", path),
            (":authority", f"localhost:{site.port}"),
            ("sec-websocket-version", "13"),
            *fields,
        ]
        self.h2.send_headers(self.stream, asked)
        while not self.headers:
            self._read()

    def _read(self) -> None:
        self.socket.sendall(self.h2.data_to_send())
        received = self.socket.recv(65536)
        assert received, "the connection ended"
        for event in self.h2.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived):
                self.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h2.events.DataReceived):
                self._data += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                self.ended = True
        self.socket.sendall(self.h2.data_to_send())

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            assert not self.ended, f"the stream ended; unread: {self._data!r}"
            self._read()
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def send(self, opcode: int, payload: bytes) -> None:
        """A whole message or control frame."""
        mask = os.urandom(4)
        size = len(payload)
        head = (
            bytes([0x80 | opcode, 0x80 | size])
            if size < 126
            else struct.pack("!BBH", 0x80 | opcode, 0xFE, size)
        )
        frame = head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.h2.send_data(self.stream, frame)
        self.socket.sendall(self.h2.data_to_send())

    def receive(self) -> tuple[int, bytes]:
        """The next message or control frame: opcode and payload, put together from its fragments."""
        opcode, payload, last = 0, b"", False
        while not last:
            first, size = self._take(2)
            if size == 126:
                (size,) = struct.unpack("!H", self._take(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self._take(8))
            opcode, last = opcode or first & 15, bool(first & 0x80)
            payload += self._take(size)
        return opcode, payload

    def wait_end(self) -> None:
        """Until the server has ended the stream."""
        while not self.ended:
            self._read()

    def close(self) -> None:
        """Go without a word."""
        self.socket.close()

    def __enter__(self) -> H2Socket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
