"""Holds idle keep-alive connections: `hold.py HOST PORT PATH COUNT` as a process of its own.

Every connection asks once and reads the answer, so that the server has seen a whole request and waits for the next.
Then a line `{"open": N}` is printed; when standard input ends, `{"alive": N}` tells how many are still open.
"""

from __future__ import annotations

import json
import resource
import socket
import sys

# Client addresses: 127.0.1.1 and on. One address has some 28,000 ports; several look more like clients.
_ADDRESSES = 8
_TIMEOUT_SECONDS = 10.0


def main() -> None:
    """Opens, waits, counts."""
    host, port, path, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
    held = [_open(host, port, request, f"127.0.1.{1 + number % _ADDRESSES}") for number in range(count)]
    print(json.dumps({"open": len(held)}), flush=True)
    sys.stdin.read()
    print(json.dumps({"alive": sum(_alive(connection) for connection in held)}), flush=True)


def _open(host: str, port: int, request: bytes, source: str) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS, source_address=(source, 0))
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _read(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
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


if __name__ == "__main__":
    main()
