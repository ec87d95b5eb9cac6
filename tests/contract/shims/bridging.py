"""The test's end of tests/apps/bridge: the app of a foreign suite, called in its own process by quintet's worker."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pickle
import shutil
import tempfile
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

# Unix sockets have about 100 bytes of path.
DIRECTORY = Path(tempfile.mkdtemp(prefix="bridge-"))
SOCKET = DIRECTORY / "app"
# How long an app may take to notice that its client has gone.
END_SECONDS_MAX = 0.5


class _Channel:
    """`receive` and `send` of one exchange."""

    def __init__(self, writer: asyncio.StreamWriter, gone: Callable[[str], Exception]) -> None:
        self._writer = writer
        self._gone = gone
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def receive(self) -> dict[str, Any]:
        return await self._ask("receive", None)

    async def send(self, message: dict[str, Any]) -> None:
        await self._ask("send", message)

    async def _ask(self, kind: str, payload: Any) -> Any:
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self.write(kind, number, payload)
        try:
            return await self._waiting[number]
        except asyncio.CancelledError:
            self.write("cancel", number, None)
            raise
        finally:
            del self._waiting[number]

    def write(self, kind: str, number: int, payload: Any) -> None:
        data = pickle.dumps((kind, number, payload))
        self._writer.write(len(data).to_bytes(4, "big") + data)

    async def replies(self, reader: asyncio.StreamReader) -> None:
        """Until the worker hangs up."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, number, payload = await _frame(reader)
                future = self._waiting.get(number)
                if future is None or future.done():
                    continue
                if kind == "result":
                    future.set_result(payload)
                else:
                    which, text = payload
                    future.set_exception(self._gone(text) if which == "os" else RuntimeError(text))


async def _frame(reader: asyncio.StreamReader) -> Any:
    length = int.from_bytes(await reader.readexactly(4), "big")
    return pickle.loads(await reader.readexactly(length))


@contextlib.asynccontextmanager
async def serving(app: Any, gone: Callable[[str], Exception] = OSError) -> AsyncIterator[set[Any]]:
    """Exchanges call `app` in the running loop; gives those under way.

    `gone` makes the exception of a send to a client that has left.
    """
    under_way: set[asyncio.Task[Any] | None] = set()

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        under_way.add(task)
        try:
            await one(reader, writer)
        finally:
            under_way.discard(task)

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, _, scope = await _frame(reader)
        channel = _Channel(writer, gone)
        call = asyncio.ensure_future(_call(app, scope, channel))
        replies = asyncio.ensure_future(channel.replies(reader))
        try:
            await asyncio.wait({call, replies}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # A worker that hangs up has cancelled the exchange.
            call.cancel()
            replies.cancel()
            await asyncio.gather(call, replies, return_exceptions=True)
            writer.close()

    SOCKET.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(exchange, SOCKET)
    try:
        yield under_way
    finally:
        server.close()
        await ended(under_way, END_SECONDS_MAX)
        left = list(under_way)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        SOCKET.unlink(missing_ok=True)


async def ended(under_way: set[Any], seconds: float) -> bool:
    """Waits for the exchanges: the tests look at what the apps have seen."""
    deadline = asyncio.get_running_loop().time() + seconds
    while under_way and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.005)
    return not under_way


async def _call(app: Any, scope: dict[str, Any], channel: _Channel) -> None:
    try:
        await app(scope, channel.receive, channel.send)
    except Exception:  # noqa: BLE001 - whatever it is, the worker raises it again
        channel.write("raised", 0, traceback.format_exc())
    else:
        channel.write("returned", 0, None)


@contextlib.contextmanager
def serving_in_a_thread(app: Any) -> Iterator[None]:
    """The same for suites without a loop of asyncio."""
    loop = asyncio.new_event_loop()
    ready, over = threading.Event(), asyncio.Event()

    async def run() -> None:
        async with serving(app):
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()


def remove() -> None:
    """At the end of the run."""
    shutil.rmtree(DIRECTORY, ignore_errors=True)
