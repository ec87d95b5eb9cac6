"""A plain ASGI app without a framework: every corner of ASGI 3 that a story wants to see."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

Scope = dict[str, Any]
Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

TEXT = (b"content-type", b"text/plain; charset=utf-8")
EVENTS = (b"content-type", b"text/event-stream")
# What happened in this process, for stories to ask about: /notes.
NOTES: list[str] = []


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The page `/name` is the function `page_name`."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await websocket(receive, send)
    else:
        name = scope["path"].strip("/").partition("/")[0].replace("-", "_") or "hello"
        page = globals().get(f"page_{name}")
        if page is None:
            await answer(send, "no such page\n", 404)
            return
        query = {key: values[0] for key, values in parse_qs(scope["query_string"].decode()).items()}
        await page(scope, receive, send, query)


async def lifespan(receive: Receive, send: Send) -> None:
    """Starts, unless the story wants it to fail; notes its end."""
    assert (await receive())["type"] == "lifespan.startup"
    if reason := os.environ.get("STORY_LIFESPAN"):
        await send({"type": "lifespan.startup.failed", "message": reason})
        return
    NOTES.append("started")
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    if path := os.environ.get("STORY_SHUTDOWN"):
        with open(path, "a") as file:
            file.write("shut down\n")
    await send({"type": "lifespan.shutdown.complete"})


async def websocket(receive: Receive, send: Send) -> None:
    """Echoes, and notes how it ended."""
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")})
    NOTES.append(f"websocket {event['code']}")


async def start(send: Send, status: int = 200, fields: Any = (TEXT,), **more: Any) -> None:
    """The head of a response."""
    await send({"type": "http.response.start", "status": status, "headers": list(fields), **more})


async def piece(send: Send, data: bytes | str, *, more: bool = True) -> None:
    """A piece of its body."""
    data = data.encode() if isinstance(data, str) else data
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def answer(send: Send, data: bytes | str, status: int = 200) -> None:
    """A response of one piece."""
    await start(send, status)
    await piece(send, data, more=False)


async def pieces(receive: Receive) -> Any:
    """The pieces of the request's body."""
    while (event := await receive())["type"] == "http.request":
        yield event.get("body", b"")
        if not event.get("more_body"):
            return
    NOTES.append("the body broke off")


async def page_hello(_scope: Scope, _receive: Receive, send: Send, _query: dict[str, str]) -> None:
    """A greeting."""
    await answer(send, "hello")


async def page_pid(_scope: Scope, _receive: Receive, send: Send, _query: dict[str, str]) -> None:
    """Which process answers."""
    await answer(send, str(os.getpid()))


async def page_notes(_scope: Scope, _receive: Receive, send: Send, _query: dict[str, str]) -> None:
    """What happened in this process."""
    await answer(send, json.dumps(NOTES))


async def page_scope(scope: Scope, _receive: Receive, send: Send, _query: dict[str, str]) -> None:
    """The scope, with bytes as text."""
    plain = {key: value for key, value in scope.items() if key not in {"state", "headers"}}
    plain["headers"] = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    await answer(send, json.dumps(plain, default=lambda value: value.decode("latin-1")))


async def page_echo(_scope: Scope, receive: Receive, send: Send, _query: dict[str, str]) -> None:
    """The request's body, once it is complete."""
    await answer(send, b"".join([data async for data in pieces(receive)]))


async def page_relay(_scope: Scope, receive: Receive, send: Send, _query: dict[str, str]) -> None:
    """Every piece of the request's body as soon as it is here."""
    await start(send)
    async for data in pieces(receive):
        await piece(send, data.upper())
    await piece(send, b"", more=False)


async def page_slow(_scope: Scope, _receive: Receive, send: Send, query: dict[str, str]) -> None:
    """Holds a slot for a while."""
    await asyncio.sleep(float(query["seconds"]))
    await answer(send, "slow")


async def page_count(_scope: Scope, _receive: Receive, send: Send, query: dict[str, str]) -> None:
    """A body in pieces that is no event stream."""
    await start(send)
    for number in range(int(query["to"])):
        await piece(send, f"{number}\n")
        await asyncio.sleep(float(query.get("pause", 0)))
    await piece(send, b"", more=False)


async def page_events(_scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    """Events that carry the time they were sent, until they are `to` or the client is gone."""
    await start(send, fields=(EVENTS,))
    gone = asyncio.ensure_future(wait_disconnect(receive))
    for number in range(int(query.get("to", 1_000_000))):
        await piece(send, f"id: {number}\ndata: {time.monotonic()}\n\n")
        done, _ = await asyncio.wait([gone], timeout=float(query.get("pause", 0.05)))
        if done:
            NOTES.append("the listener left")
            return
    gone.cancel()
    await piece(send, b"", more=False)


async def wait_disconnect(receive: Receive) -> None:
    """Until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def page_stubborn(_scope: Scope, _receive: Receive, send: Send, _query: dict[str, str]) -> None:
    """One event, and then none for an hour, whatever its client does."""
    await start(send, fields=(EVENTS,))
    await piece(send, "id: 1\n\n")
    await asyncio.sleep(3600)


async def page_flood(_scope: Scope, _receive: Receive, send: Send, query: dict[str, str]) -> None:
    """An event stream faster than its client; how far it came is noted."""
    await start(send, fields=(EVENTS,))
    NOTES.append("flood 0")
    for number in range(1, int(query["kib"]) + 1):
        await piece(send, b":" + b"x" * 1021 + b"\n\n")
        NOTES[-1] = f"flood {number}"
    await piece(send, b"", more=False)


async def page_wait(_scope: Scope, receive: Receive, _send: Send, _query: dict[str, str]) -> None:
    """Answers never; notes when its client has left."""
    await wait_disconnect(receive)
    NOTES.append("left without an answer")


async def page_hints(_scope: Scope, _receive: Receive, send: Send, _query: dict[str, str]) -> None:
    """Early hints before the response."""
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload; as=style"]})
    await asyncio.sleep(0.2)
    await answer(send, "hinted")


async def page_trailers(_scope: Scope, _receive: Receive, send: Send, _query: dict[str, str]) -> None:
    """A body with a field behind it."""
    await start(send, trailers=True)
    await piece(send, "body", more=False)
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"7")], "more_trailers": False})


async def page_file(_scope: Scope, _receive: Receive, send: Send, query: dict[str, str]) -> None:
    """A file by its path."""
    await start(send)
    await send({"type": "http.response.pathsend", "path": query["path"]})


async def page_boom(_scope: Scope, _receive: Receive, _send: Send, _query: dict[str, str]) -> None:
    """A bug."""
    raise RuntimeError("a bug of the app")


async def page_half(_scope: Scope, _receive: Receive, send: Send, _query: dict[str, str]) -> None:
    """A bug in the middle of a response."""
    await start(send)
    await piece(send, "half")
    raise RuntimeError("a bug in the middle")
