"""Upstreams with servers that die, stall, trickle and lie: what visitors see, and what is left when it is over."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from harness.fronts import front
from harness.processes import wait_until
from harness.site import Site, Start

SECONDS_MAX = 15
PATIENCE = 'connect_timeout = "400ms"\nresponse_timeout = "400ms"\nidle_timeout = "400ms"'


def in_front_of(start: Start, directory: Path, servers: list[str]) -> Site:
    """A site whose /api/ is on these servers."""
    site = front(start, directory, {"api": (servers, PATIENCE)})
    # Whatever happens to a server is told.
    for said in ("another server", "the client was told so", "has failed too often", "was cut"):
        site.allow_log(said)
    return site


def backs(plain: Start, count: int) -> list[Site]:
    """Hosts with the plain app."""
    return [plain(workers=1, threads=4) for _ in range(count)]


def addresses(sites: list[Site]) -> list[str]:
    return [f"127.0.0.1:{site.port}" for site in sites]


class Bad:
    """A server that does the same to every connection."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.asked = 0
        self._held: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        if way == "refuses":
            self._listener.close()
        else:
            self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        self._held.append(connection)
        connection.settimeout(SECONDS_MAX)
        with suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                piece = connection.recv(65536)
                if not piece:
                    connection.close()
                    return
                request += piece
            self.asked += 1
            getattr(self, self.way)(connection)

    def dies_before_a_word(self, connection: socket.socket) -> None:
        connection.close()

    def dies_in_the_head(self, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
        connection.close()

    def dies_in_the_body(self, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
        connection.close()

    def dies_in_a_chunk(self, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nxx")
        connection.close()

    def resets(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    def says_nothing(self, _connection: socket.socket) -> None:
        """Open, and silent."""

    def stalls_in_the_body(self, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel")

    def trickles_its_head(self, connection: socket.socket) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello":
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    def fails_at_once(self, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        connection.close()

    def says_too_much(self, connection: socket.socket) -> None:
        poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + poison)

    def lies_in_both_framings(self, connection: socket.socket) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )

    def talks_rubbish(self, connection: socket.socket) -> None:
        connection.sendall(os.urandom(3000))

    def close(self) -> None:
        """Ends it, and all of its connections."""
        with suppress(OSError):
            # A thread that waits in accept() is not woken by close().
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._held:
            connection.close()


@contextmanager
def bad(way: str) -> Iterator[Bad]:
    server = Bad(way)
    try:
        yield server
    finally:
        server.close()


# What a visitor may see of a server besides the good answer of the other one. Where nothing of an answer has come, a GET is asked again.
SEEN: dict[str, set[Any]] = {
    "refuses": set(),
    "dies_before_a_word": set(),
    "resets": set(),
    "dies_in_the_head": set(),
    "dies_in_the_body": {"broken off", 502},
    "dies_in_a_chunk": {"broken off", 502},
    "says_nothing": {504},
    "stalls_in_the_body": {"broken off", 504, 502},
    "trickles_its_head": {504},
    "fails_at_once": {500},
    "says_too_much": {502},
    "lies_in_both_framings": {502},
    "talks_rubbish": {502},
}


def ask(site: Site) -> Any:
    """What a visitor sees: a status, `broken off`, or `good`."""
    with site.raw() as raw:
        raw.request("GET /api/hello")
        try:
            answer = raw.answer()
        except Exception:  # noqa: BLE001 (closed, reset: all the same to a visitor)
            return "broken off"
    if answer.status != 200:
        return answer.status
    assert answer.text == "hello", answer
    return "good"


@pytest.mark.parametrize("way", SEEN)
def test_a_bad_server_beside_a_good_one(plain: Start, start: Start, tmp_path: Path, way: str) -> None:
    good = backs(plain, 1)
    with bad(way) as server:
        site = in_front_of(start, tmp_path, [server.address, *addresses(good)])
        began = time.monotonic()
        seen = [ask(site) for _ in range(60)]
        took = time.monotonic() - began
        assert set(seen) <= {"good", *SEEN[way]}, seen
        # It is noticed: after a few it gets nothing for a while. One that answers well, and then too much, is none to be noticed.
        if way != "says_too_much":
            assert seen.count("good") >= 50, seen
            assert seen[-30:] == ["good"] * 30, seen
        if SEEN[way] and way != "says_too_much":
            assert set(seen) - {"good"}, "it was asked, and it showed"
        assert took < SECONDS_MAX
        # Nothing is left of it but what may be kept.
        in_use = 'quintet_upstream_connections{upstream="api"}'
        wait_until(lambda: site.metrics()[in_use] <= 4, 5, "connections are given back")
        assert site.status()["gateway"]["upstreams"][0]["servers"][0]["pending"] == 0
