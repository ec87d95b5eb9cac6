"""Litestar: the same, in its words."""

# No postponed annotations: Litestar reads them.
import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from litestar import Litestar, MediaType, WebSocket, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import State, UploadFile
from litestar.enums import RequestEncodingType
from litestar.exceptions import WebSocketDisconnect
from litestar.params import Body
from litestar.response import File, Response, ServerSentEvent, Stream

done: list[str] = []


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    app.state.greeting = "made at the start"
    yield


@get("/hello/{name:str}", media_type=MediaType.TEXT)
async def hello(name: str, mood: str = "fine") -> str:
    return f"hello {name}, {mood}"


@get("/stream")
async def stream() -> Stream:
    async def pieces() -> AsyncIterator[str]:
        for number in range(5):
            yield f"piece {number}\n"
            await asyncio.sleep(0.01)

    return Stream(pieces(), media_type=MediaType.TEXT)


@get("/events")
async def events() -> ServerSentEvent:
    async def numbers() -> AsyncIterator[str]:
        for number in range(3):
            yield str(number)
            await asyncio.sleep(0.2)

    return ServerSentEvent(numbers())


@get("/background", media_type=MediaType.TEXT)
async def background() -> Response[str]:
    async def later() -> None:
        await asyncio.sleep(0.2)
        done.append("later")

    return Response(f"{len(done)} done", background=BackgroundTask(later))


@get("/state", media_type=MediaType.TEXT)
async def state(state: State) -> str:
    return state.greeting


@get("/file")
async def file() -> File:
    return File(os.environ["FILE"], filename="given.bin")


@post("/upload", status_code=200)
async def upload(
    data: Annotated[dict[str, Any], Body(media_type=RequestEncodingType.MULTI_PART)],
) -> dict[str, Any]:
    given: UploadFile = data["file"]
    return {"name": given.filename, "bytes": len(await given.read()), "word": data["word"]}


@get("/fails")
async def fails() -> None:
    raise RuntimeError("a bug")


@websocket("/ws")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(f"echo {await socket.receive_text()}")
    except WebSocketDisconnect:
        done.append("left")


application = Litestar(
    [hello, stream, events, background, state, file, upload, fails, echo], lifespan=[lifespan]
)
