"""Holds idle connections: `python -m bench.hold HOST PORT PATH COUNT [websocket]` as a process of its own.

Every connection asks once and reads the answer, so that the server has seen a whole request and waits for the next; or
it becomes a WebSocket, on which nobody says anything.
Then a line `{"open": N}` is printed; when standard input ends, `{"alive": N}` tells how many are still open.
"""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator

from bench.errors import BenchError
from bench.places import ROOT
from bench.stacks import Stack

# Client addresses: 127.0.1.1 and on. One address has some 28,000 ports; several look more like clients.
_ADDRESSES = 8
_TIMEOUT_SECONDS = 10.0
_UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


def main() -> None:
    """Opens, waits, counts."""
    host, port, path, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    upgrade = _UPGRADE if "websocket" in sys.argv[5:] else ""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{upgrade}\r\n".encode()
    found = [_open(host, port, request, f"127.0.1.{1 + number % _ADDRESSES}") for number in range(count)]
    print(json.dumps({"open": len(found)}), flush=True)
    sys.stdin.read()
    print(json.dumps({"alive": sum(_alive(connection) for connection in found)}), flush=True)


def _open(host: str, port: int, request: bytes, source: str) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS, source_address=(source, 0))
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _read(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 101"):
        return connection
    if b"Upgrade:" in request or not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"answered {head[:60]!r}")
    lengths = [
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    while len(body) < lengths[0]:
        body += _read(connection)
    return connection


def _read(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise SystemExit("the server closed a connection before its answer was whole")
    return data


def _alive(connection: socket.socket) -> bool:
    """Open and silent: a read would wait."""
    connection.setblocking(False)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def held(stack: Stack, path: str, count: int, *, websocket: bool = False) -> Iterator[None]:
    """`count` idle connections; all of them must still be open at the end."""
    holder = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "bench.hold",
            stack.host,
            str(stack.port),
            path,
            str(count),
            *(["websocket"] if websocket else []),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin
    assert holder.stdout
    assert holder.stderr
    try:
        if not holder.stdout.readline():
            raise BenchError(
                f"{stack.name} did not take {count} connections",
                holder.stderr.read().strip()[-500:],
                stack.log_tails(),
            )
        yield
        holder.stdin.close()
        alive = json.loads(holder.stdout.readline() or "{}").get("alive", 0)
        if alive != count:
            raise BenchError(
                f"{stack.name} closed idle connections",
                f"{count - alive} of {count} are gone",
                stack.log_tails(),
            )
    finally:
        holder.kill()
        holder.wait()


if __name__ == "__main__":
    main()
