"""FastAPI: the same, in its words; `hello` is a function that blocks, for which FastAPI has threads."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import BackgroundTasks, FastAPI, Form, Request, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse

done: list[str] = []


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    yield {"greeting": "made at the start"}


application = FastAPI(lifespan=lifespan)


@application.get("/hello/{name}", response_class=PlainTextResponse)
def hello(name: str, mood: str = "fine") -> str:
    time.sleep(0.01)
    return f"hello {name}, {mood}"


@application.get("/stream")
async def stream() -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        for number in range(5):
            yield f"piece {number}\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(pieces(), media_type="text/plain")


@application.get("/events")
async def events() -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.2)

    return StreamingResponse(lines(), media_type="text/event-stream")


@application.get("/background", response_class=PlainTextResponse)
async def background(tasks: BackgroundTasks) -> str:
    async def later() -> None:
        await asyncio.sleep(0.2)
        done.append("later")

    tasks.add_task(later)
    return f"{len(done)} done"


@application.get("/state", response_class=PlainTextResponse)
async def state(request: Request) -> str:
    return request.state.greeting


@application.get("/file")
async def file() -> FileResponse:
    return FileResponse(os.environ["FILE"], filename="given.bin")


@application.post("/upload")
async def upload(file: UploadFile, word: Annotated[str, Form()]) -> dict[str, Any]:
    return {"name": file.filename, "bytes": len(await file.read()), "word": word}


@application.get("/fails")
async def fails() -> None:
    raise RuntimeError("a bug")


@application.websocket("/ws")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(f"echo {await socket.receive_text()}")
    except WebSocketDisconnect:
        done.append("left")
