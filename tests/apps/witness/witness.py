"""An app that writes down each request that reaches it: a line of JSON in the file $WITNESS. For WSGI and ASGI servers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

# Longer bodies are none of a test's.
_BODY_BYTES_MAX = 1 << 20


def _note(method: str, path: bytes, body: bytes | None, fields: dict[str, str]) -> bytes:
    """What was seen, written down and as the answer. `body` is None where it did not come whole."""
    seen = {
        "method": method,
        "path": path.decode("latin-1"),
        "bytes": None if body is None else len(body),
        "sha256": None if body is None else hashlib.sha256(body).hexdigest(),
        "request_id": fields.get("x-request-id"),
        "attack": fields.get("x-attack"),
    }
    # A line is one write, so that processes do not mix theirs.
    file = os.open(os.environ["WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, json.dumps(seen).encode() + b"\n")
    finally:
        os.close(file)
    return json.dumps(seen).encode()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """WSGI."""
    try:
        body = environ["wsgi.input"].read(_BODY_BYTES_MAX)
        if len(body) < int(environ.get("CONTENT_LENGTH") or 0):
            body = None
    except Exception:  # noqa: BLE001 (each server has its own word for a body that breaks off)
        body = None
    fields = {
        key[5:].lower().replace("_", "-"): value for key, value in environ.items() if key[:5] == "HTTP_"
    }
    said = _note(environ["REQUEST_METHOD"], environ["PATH_INFO"].encode("latin-1"), body, fields)
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(said)))])
    return [said]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """ASGI."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            body = None
            break
        body += message.get("body", b"")
        more = message.get("more_body", False)
    fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    path = (
        unquote_to_bytes(scope["raw_path"].partition(b"?")[0])
        if scope.get("raw_path")
        else scope["path"].encode()
    )
    said = _note(scope["method"], path, body, fields)
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(said)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": said})
