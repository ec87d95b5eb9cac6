"""A worker that serves ASGI: one event loop, in the main thread. What happens for each request is in the compiled half."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from quintet import _collect, _core, _stacks
from quintet._control import EXIT_CONFIG, EXIT_SOFTWARE
from quintet._lifespan import Lifespan, LifespanError
from quintet._log import Log

# How long tasks that the app has left behind may take to end when they are cancelled.
CLEANUP_S = 5.0


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """A loop of that name."""
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def serve(
    worker: _core.Worker,
    app: Callable[..., Any],
    report: dict[str, Any],
    log: Log,
    start: dict[str, Any],
    slots: int,
) -> int:
    """The life of the worker from the app's lifespan startup to its shutdown; the result is the exit status."""
    loop = new_loop(report["event_loop"])
    asyncio.set_event_loop(loop)
    _stacks.watch_loop(loop)
    # Threads of `sync_to_async(…, thread_sensitive=False)` and `asyncio.to_thread`: as many as requests can need.
    loop.set_default_executor(ThreadPoolExecutor(slots, thread_name_prefix="quintet-sync"))
    try:
        return loop.run_until_complete(_life(worker, app, report, log, start, slots))
    finally:
        _clean_up(loop)


async def _life(
    worker: _core.Worker,
    app: Callable[..., Any],
    report: dict[str, Any],
    log: Log,
    start: dict[str, Any],
    slots: int,
) -> int:
    lifespan = Lifespan(app, lambda level, what, error: log.write(level, what, {}, error))
    try:
        await lifespan.startup()
    except LifespanError as error:
        message = f"the app's lifespan startup failed: {next(iter(str(error).splitlines()), '')}"
        # Starlette gives the whole traceback as the reason.
        failure = {"message": message, "traceback": str(error) if "\n" in str(error) else "", "hint": ""}
        worker.tell(json.dumps({"type": "failed", **failure}))
        return EXIT_CONFIG
    server = _core.Asgi(
        worker,
        asyncio.get_running_loop(),
        run=_runner(app, _between(worker, start)),
        report=log.exchange,
        slots=slots,
        long_lived_max=start.get("long_lived_max", 1),
        message_max=start.get("message_max") or 1024 * 1024,
        state=lifespan.state if lifespan.takes_part else None,
    )
    worker.tell(json.dumps({"type": "ready", "app": report}))
    await server.start()
    complaint = await lifespan.shutdown()
    if complaint is not None:
        log.write("WARN", "the app's lifespan shutdown failed", {"detail": complaint})
    if worker.refusal is not None:
        log.write("ERROR", "the gateway refused this worker", {"detail": worker.refusal})
        return EXIT_SOFTWARE
    return 0


def _between(worker: _core.Worker, start: dict[str, Any]) -> Callable[[], Any] | None:
    """For `workers.gc = "between"`: asks for a look at the garbage when the tasks that are ready now have had their turn."""
    if not start.get("gc_between"):
        return None
    collect = _collect.Between(worker.somebody_waits)
    soon = asyncio.get_running_loop().call_soon
    return lambda: soon(collect)


def _runner(
    app: Callable[..., Any], after: Callable[[], Any] | None
) -> Callable[[dict[str, Any], _core.Exchange], Awaitable[None]]:
    async def run(scope: dict[str, Any], exchange: _core.Exchange) -> None:
        # True coroutine functions: some apps and libraries look. They end without a turn of the loop when they can.
        async def receive() -> dict[str, Any]:
            while True:
                message = exchange.receive()
                if type(message) is dict:
                    return message
                await message  # type: ignore[misc]  # a future

        async def send(message: dict[str, Any]) -> None:
            waiting = exchange.send(message)
            if waiting is not None:
                await waiting

        try:
            await app(scope, receive, send)
        except BaseException as error:  # noqa: BLE001 (whatever it is: it ends this exchange only)
            # Our own frame says nothing about the app.
            traceback = error.__traceback__
            exchange.end(error.with_traceback(traceback and traceback.tb_next))
        else:
            exchange.end(None)
        if after is not None:
            after()

    return run


def _clean_up(loop: asyncio.AbstractEventLoop) -> None:
    """Ends what the app has left behind, as `asyncio.run` does, but not for ever."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    with contextlib.suppress(Exception):
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=CLEANUP_S))
        loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), CLEANUP_S))
    asyncio.set_event_loop(None)
    loop.close()
