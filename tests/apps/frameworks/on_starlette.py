"""Starlette: what most of its users use."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

done: list[str] = []


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    yield {"greeting": "made at the start"}


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(
        f"hello {request.path_params['name']}, {request.query_params.get('mood', 'fine')}"
    )


async def stream(_request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        for number in range(5):
            yield f"piece {number}\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(pieces(), media_type="text/plain")


async def events(_request: Request) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.2)

    return StreamingResponse(lines(), media_type="text/event-stream")


async def background(_request: Request) -> PlainTextResponse:
    async def later() -> None:
        await asyncio.sleep(0.2)
        done.append("later")

    return PlainTextResponse(f"{len(done)} done", background=BackgroundTask(later))


async def state(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.state.greeting)


async def file(_request: Request) -> FileResponse:
    return FileResponse(os.environ["FILE"], filename="given.bin")


async def upload(request: Request) -> JSONResponse:
    async with request.form() as form:
        return JSONResponse(
            {"name": form["file"].filename, "bytes": len(await form["file"].read()), "word": form["word"]}
        )


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(f"echo {await socket.receive_text()}")
    except WebSocketDisconnect:
        done.append("left")


async def fails(_request: Request) -> None:
    raise RuntimeError("a bug")


application = Starlette(
    routes=[
        Route("/hello/{name}", hello),
        Route("/stream", stream),
        Route("/events", events),
        Route("/background", background),
        Route("/state", state),
        Route("/file", file),
        Route("/upload", upload, methods=["POST"]),
        Route("/fails", fails),
        WebSocketRoute("/ws", echo),
    ],
    lifespan=lifespan,
)
