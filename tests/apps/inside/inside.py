"""Runs a test suite inside a worker: its coroutines on the worker's own loop, in the worker's own main thread.

`/run` answers with pytest's exit code; INSIDE_FILES says what is run, where pytest stands is the current directory of its tests.
Tests without a coroutine run in a thread of their own, in which pytest runs: the main thread belongs to the loop.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from typing import Any

import pytest

TEST_SECONDS_MAX = 30


class OnTheLoop:
    """A pytest plugin."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: Any) -> bool | None:
        if not inspect.iscoroutinefunction(pyfuncitem.obj):
            return None
        names = pyfuncitem._fixtureinfo.argnames
        test = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
        asyncio.run_coroutine_threadsafe(test, self._loop).result(TEST_SECONDS_MAX)
        return True


async def application(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """`/run` runs them, once."""
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    code = await _run() if scope["path"] == "/run" else "?"
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": str(code).encode()})


async def _run() -> int:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()
    root, *files = os.environ["INSIDE_FILES"].split(os.pathsep)

    def run() -> None:
        words = ["-q", "--capture=no", "-c", os.devnull, "--rootdir", root, "-p", "shims.report"]
        # Signals and standard error are the worker's.
        words += [
            word
            for name in ("asyncio", "timeout", "faulthandler", "cacheprovider")
            for word in ("-p", f"no:{name}")
        ]
        code = pytest.main([*words, *files], plugins=[OnTheLoop(loop)])
        loop.call_soon_threadsafe(done.set_result, int(code))

    threading.Thread(target=run, name="pytest").start()
    return await done
