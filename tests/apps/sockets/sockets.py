"""A plain ASGI app whose WebSockets do what their path says. No framework: the stories are about the server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any
from urllib.parse import parse_qs

# What WebSockets were told at their end, in order: [path, code, reason].
heard: list[list[Any]] = []


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The ASGI callable."""
    if scope["type"] == "websocket":
        await Socket(scope, receive, send).serve()
    elif scope["type"] == "http":
        body = json.dumps(heard if scope["path"] == "/heard" else os.getpid()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
    else:
        await lifespan(receive, send)


async def lifespan(receive: Any, send: Any) -> None:
    """Nothing to do at the start or the end."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


class Socket:
    """One WebSocket."""

    def __init__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.path = scope["path"]
        self.query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}

    async def serve(self) -> None:
        """From the handshake to the end."""
        assert (await self.receive())["type"] == "websocket.connect"
        if self.path == "/denied":
            return await self.send({"type": "websocket.close"})
        if self.path == "/denied/with-words":
            start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"none")]}
            await self.send(start)
            return await self.send({"type": "websocket.http.response.body", "body": b"who are you?"})
        if self.path == "/killed-before-accept":
            os.kill(os.getpid(), signal.SIGKILL)
        accept: dict[str, Any] = {"type": "websocket.accept"}
        if self.path == "/chat":
            accept |= {"subprotocol": "chat.v2", "headers": [(b"set-cookie", b"seen=1")]}
        await self.send(accept)
        if self.path == "/greet":
            await self.text(json.dumps({"pid": os.getpid(), "scope": self.facts()}))
        return await self.talk()

    def facts(self) -> dict[str, Any]:
        """What of the scope a story may want to see."""
        names = ("http_version", "scheme", "path", "subprotocols")
        return {name: self.scope[name] for name in names} | {"client": self.scope["client"][0]}

    async def talk(self) -> None:
        """Until either side closes."""
        while True:
            if self.path == "/slow":
                await asyncio.sleep(float(self.query["seconds"]))
            event = await self.receive()
            if event["type"] == "websocket.disconnect":
                heard.append([self.path, event.get("code"), event.get("reason")])
                # Where the worker is about to go, and will not be asked.
                print(f"{self.path} heard {event.get('code')}", flush=True)
                return None
            if self.path == "/bye":
                code, reason = int(self.query["code"]), self.query.get("reason", "")
                return await self.send({"type": "websocket.close", "code": code, "reason": reason})
            if self.path == "/crash":
                raise RuntimeError("the app is broken")
            if self.path == "/large":
                await self.send({"type": "websocket.send", "bytes": os.urandom(int(self.query["bytes"]))})
            elif event.get("bytes") is not None:
                await self.send({"type": "websocket.send", "bytes": event["bytes"]})
            else:
                await self.text(event["text"])

    async def text(self, text: str) -> None:
        """A text message."""
        await self.send({"type": "websocket.send", "text": text})
