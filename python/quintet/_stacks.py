"""What all threads of this worker do, for the log, when a request is beyond its time limit.

The compiled half asks `report` when Python can say it. While a call into C keeps the GIL it lets `faulthandler` say it, by a
signal of ours that it sends to a thread of its own; so no system call of the app is ever interrupted by it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from quintet import _core
from quintet._log import Log

if TYPE_CHECKING:
    # Large, and of no use to a WSGI worker.
    import asyncio

# A real-time signal near the end of the row: C libraries and debuggers take theirs from its two ends, programs those
# with names (SIGUSR1 …). Where there are no real-time signals (macOS), the one that a terminal's Ctrl-T sends, which is ignored otherwise.
SIGNAL: int = signal.SIGRTMAX - 2 if hasattr(signal, "SIGRTMAX") else getattr(signal, "SIGINFO", 0)

# As faulthandler's own bounds: enough for any stack but that of an endless recursion.
FRAMES_MAX = 100
THREADS_MAX = 100
TASKS_MAX = 100

_MESSAGE = "a request is beyond its time limit: the stacks of its worker's threads"
# What is below the app in every thread.
_OURS = (threading.__file__, *(str(Path(__file__).with_name(name)) for name in ("worker.py", "_asgi.py")))


# Of this process; mostly none (WSGI) or one.
_loops: list[asyncio.AbstractEventLoop] = []


def watch_loop(loop: asyncio.AbstractEventLoop) -> None:
    """The tasks of this event loop are told, too."""
    _loops.append(loop)


def install(worker: _core.Worker, log: Log) -> None:
    """Get ready to tell. Once a worker process, after the app is imported (and after the fork)."""
    worker.watch_stacks(
        lambda request_id, ident: report(log, request_id, ident), _register(), log_json=log.as_json
    )


def _register() -> tuple[int, int] | None:
    # getsignal knows what Python code has set, signal_is_free what C code has.
    if (
        not SIGNAL
        or signal.getsignal(SIGNAL) is not signal.SIG_DFL
        or not _core.Worker.signal_is_free(SIGNAL)
    ):
        return None
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("quintet-stacks")
    else:
        with tempfile.TemporaryFile() as file:
            number = os.dup(file.fileno())
    faulthandler.register(SIGNAL, file=number, all_threads=True, chain=False)
    return SIGNAL, number


def report(log: Log, request_id: str, ident: int) -> None:
    """Write the entry. `ident` is the thread that has the request, 0 when that is not known."""
    parts = [*_threads(ident), *_tasks(request_id)]
    log.write("WARN", _MESSAGE, {"request_id": request_id}, stacks="".join(parts))


def _threads(ident: int) -> Iterator[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    frames.pop(threading.get_ident(), None)
    # The one that matters first.
    for number in sorted(frames, key=lambda number: number != ident)[:THREADS_MAX]:
        mark = ", which has the request" if number == ident else ""
        yield f"thread {names.get(number, hex(number))}{mark}:\n"
        yield _stack(_walk(frames[number])) or "  waits for a request\n"


def _walk(frame: FrameType | None) -> Iterator[tuple[FrameType, int]]:
    for shown, line in traceback.walk_stack(frame):
        if not shown.f_code.co_filename.startswith(_OURS):
            yield shown, line


def _stack(frames: Iterator[tuple[FrameType, int]]) -> str:
    # From the innermost outwards, so that it is the outermost that an endless recursion loses.
    extracted = traceback.StackSummary.extract(frames, limit=FRAMES_MAX)
    extracted.reverse()
    return "".join(extracted.format())


def _tasks(request_id: str) -> Iterator[str]:
    """What the tasks of the event loop wait for."""
    if not _loops:
        return
    import asyncio

    for task in [task for loop in _loops for task in asyncio.all_tasks(loop)][:TASKS_MAX]:
        frames = list(_awaits(task.get_coro()))
        exchange = frames[0][0].f_locals.get("exchange") if frames else None
        theirs = getattr(exchange, "request_id", b"") == request_id.encode()
        yield f"task {task.get_name()}{', which has the request' if theirs else ''}:\n"
        shown = [frame for frame in frames if not frame[0].f_code.co_filename.startswith(_OURS)]
        yield _stack(reversed(shown)) or "  has no frame of the app\n"


def _awaits(coroutine: Any) -> Iterator[tuple[FrameType, int]]:
    """The frames of a coroutine that is suspended: itself, what it awaits, and so on."""
    for _ in range(FRAMES_MAX):
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is None:
            return
        yield frame, frame.f_lineno
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
