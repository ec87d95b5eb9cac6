"""Apps whose process dies at a phase of the request that the path names: `application` (WSGI) and `asgi`.

`?once=FILE` dies only as long as FILE does not exist, and makes it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PIECE = b"x" * 50_000
PIECES = 10
LENGTH = str(PIECES * len(PIECE))


def die(query: str) -> None:
    """Kill -9 of this process, which the kernel carries out before the call returns."""
    once = query.removeprefix("once=")
    if once:
        if Path(once).exists():
            return
        Path(once).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def application(environ: dict[str, Any], start_response: Any) -> Any:
    """WSGI."""
    phase, query = environ["PATH_INFO"].strip("/"), environ["QUERY_STRING"]
    if phase == "body":
        environ["wsgi.input"].read(1)
        die(query)
    length = len(environ["wsgi.input"].read())
    if phase == "before-head":
        die(query)
    if phase in {"after-head", "mid-body", "end"}:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", LENGTH)])
        return Dying(phase, query)
    body = f"{length} of {os.getpid()}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


class Dying:
    """The body of a response whose process does not live to see its end."""

    def __init__(self, phase: str, query: str) -> None:
        self._phase, self._query = phase, query

    def __iter__(self) -> Iterator[bytes]:
        yield PIECE
        if self._phase == "after-head":
            die(self._query)
        for number in range(1, PIECES):
            if self._phase == "mid-body" and number == PIECES // 2:
                die(self._query)
            yield PIECE

    def close(self) -> None:
        """All is sent."""
        die(self._query)


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """ASGI."""
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    phase, query = scope["path"].strip("/"), scope["query_string"].decode()
    length, more = 0, True
    while more:
        message = await receive()
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
        if phase == "body":
            die(query)
    if phase == "before-head":
        die(query)
    headers = [(b"content-type", b"text/plain")]
    if phase not in {"after-head", "mid-body", "end"}:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": f"{length} of {os.getpid()}".encode()})
        return
    headers.append((b"content-length", LENGTH.encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(PIECES):
        if (phase, number) in {("after-head", 1), ("mid-body", PIECES // 2)}:
            die(query)
        await send({"type": "http.response.body", "body": PIECE, "more_body": number < PIECES - 1})
    # What `send` has taken may still be on its way out of the process.
    await asyncio.sleep(0.3)
    die(query)
