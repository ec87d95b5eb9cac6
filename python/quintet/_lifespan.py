"""The lifespan protocol of ASGI: an app is told when its worker begins and ends.

As with uvicorn's "auto": an app that raises on the lifespan scope does not take part, and that is fine. One that raises when
it has been told to start most likely did want to: that is reported. One that exits then does not want to be served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

# How long an app may take for its end: what it holds is let go with the process anyway.
SHUTDOWN_S = 10.0


class LifespanError(Exception):
    """The app has said that it cannot start."""


class Lifespan:
    """One worker's."""

    def __init__(self, app: Callable[..., Any], report: Callable[[str, str, BaseException], None]) -> None:
        """`report` hears what the app raises where nobody waits for its lifespan: a level, what that means, and the exception."""
        self._app = app
        self._report = report
        self._to_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[str | None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._told = False
        self._begun = False
        self._ends = False
        self._error: BaseException | None = None
        self.state: dict[str, Any] = {}

    @property
    def takes_part(self) -> bool:
        """The app has completed its startup."""
        return self._begun

    async def startup(self) -> None:
        """Returns when the app has started; raises `LifespanError` when it says that it cannot."""
        loop = asyncio.get_running_loop()
        self._answers = {"startup": loop.create_future(), "shutdown": loop.create_future()}
        self._task = loop.create_task(self._run())
        await self._to_app.put({"type": "lifespan.startup"})
        await asyncio.wait([self._task, self._answers["startup"]], return_when=asyncio.FIRST_COMPLETED)
        answer = self._answers["startup"]
        if answer.done():
            failure = answer.result()
            if failure is not None:
                raise LifespanError(failure)
            self._begun = True
        elif isinstance(self._error, SystemExit):
            raise LifespanError(f"SystemExit: {self._error}")

    async def shutdown(self) -> str | None:
        """Returns what went wrong, if anything did."""
        if not self._begun or self._task is None:
            return None
        if self._task.done():
            # It has ended before its time, and has been reported: there is nobody to tell.
            return None
        self._ends = True
        await self._to_app.put({"type": "lifespan.shutdown"})
        answer = self._answers["shutdown"]
        done, _ = await asyncio.wait(
            [self._task, answer], timeout=SHUTDOWN_S, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            return f"it took longer than {SHUTDOWN_S:.0f} s"
        if answer.done():
            return answer.result()
        return f"{type(self._error).__name__}: {self._error}" if self._error else None

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as error:  # noqa: BLE001 (before its startup it means: no lifespan)
            self._error = error
            answer = self._answers["startup"]
            if answer.done():
                if answer.result() is None and not self._ends:
                    what = "the app's lifespan ended with an exception while the app serves"
                    self._report("ERROR", what, error)
            elif self._told and not isinstance(error, SystemExit):
                what = "the app's lifespan startup raised an exception: it is served without a lifespan"
                self._report("WARN", what, error)

    async def _receive(self) -> dict[str, str]:
        message = await self._to_app.get()
        self._told = True
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        phase, _, outcome = str(message["type"]).removeprefix("lifespan.").partition(".")
        answer = self._answers.get(phase)
        if outcome not in ("complete", "failed") or answer is None or answer.done():
            raise RuntimeError(f"Unexpected ASGI message {message['type']!r} in the lifespan of the app.")
        answer.set_result(None if outcome == "complete" else str(message.get("message") or "no reason given"))
