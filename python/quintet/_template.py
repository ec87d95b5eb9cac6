"""The template: a process that has imported the app, serves nothing, and forks the workers.

No thread runs here, and none of ours is started before the fork; see docs/decisions/0008-template.md. The worker that comes out of
it is told what to do in the same words as one that was started by itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from quintet import _django
from quintet._control import Control

# A thread that only does something once at import ends by itself; it is given this long.
THREADS_END_S = 0.25

# A fork takes milliseconds. If it hangs (a handler of the app that runs at forks) the supervisor kills us after 5 s;
# should there be no supervisor any more, the kernel does.
FORK_ALARM_S = 20

TASKS = Path("/proc/self/task")
DESCRIPTORS = Path("/proc/self/fd")


def calm() -> str:
    """Lets go of what processes must not share. Why the app cannot be forked nevertheless, or nothing."""
    complaints = _django.close_connections() if _django.is_used() else []
    return "; ".join([*complaints, *_threads(), *_connections()])


def wait(control: Control) -> tuple[dict[str, Any], Control]:
    """Obeys until it is a worker: returns what that worker shall do, in the forked process or in this one."""
    while True:
        order, descriptor = control.hear()
        start = {name: value for name, value in order.items() if name != "type"}
        if order["type"] == "become":
            control.close()
            return start, Control(descriptor)
        if worker := fork(control, start["worker"], descriptor):
            return start, worker


def fork(control: Control, number: int, descriptor: int) -> Control | None:
    """Makes a worker that is the supervisor's child, by a process in between that ends at once.

    The worker's own control socket in the worker, nothing in the template.
    """
    # What is still to be written would be written twice.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    signal.alarm(FORK_ALARM_S)
    reading, writing = os.pipe()
    try:
        between = os.fork()
    except OSError as error:
        os.close(writing)
        said = str(error)
    else:
        if between == 0:
            _fork_again(writing)
            # Only the worker comes here.
            os.close(reading)
            os.close(writing)
            control.close()
            # Of its own, so that what it starts can be killed with it, and it is not killed with the template.
            os.setpgid(0, 0)
            _reseed()
            return Control(descriptor)
        os.close(writing)
        said = _read_all(reading)
        # It is gone when the app has told the kernel that it does not care for its children.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(between, 0)
    os.close(reading)
    os.close(descriptor)
    signal.alarm(0)
    if said.isdecimal():
        control.tell({"type": "forked", "worker": number, "pid": int(said)})
    else:
        control.tell(
            {"type": "fork_failed", "worker": number, "message": said or "it died between two forks"}
        )
    return None


def _fork_again(writing: int) -> None:
    """Returns in the worker only; the process in between tells what came of it and ends."""
    try:
        worker = os.fork()
    except OSError as error:
        os.write(writing, str(error).encode())
        os._exit(1)
    if worker:
        os.write(writing, str(worker).encode())
        os._exit(0)


def _read_all(reading: int) -> str:
    said = b""
    while data := os.read(reading, 1024):
        said += data
    return said.decode("utf-8", "replace")


def _reseed() -> None:
    # `random` does it by itself; OpenSSL and with it `secrets` and `ssl`, too.
    if numpy := sys.modules.get("numpy.random"):
        numpy.seed()


def _threads() -> list[str]:
    """A fork copies one thread; locks that the others held stay locked for ever."""
    until = time.monotonic() + THREADS_END_S
    while _thread_count() > 1 and time.monotonic() < until:
        time.sleep(0.01)
    if _thread_count() > 1 and threading.active_count() == 1:
        _end_threads_of_libraries()
    if _thread_count() == 1:
        return []
    names = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    # Threads that Python does not know have the name of the program unless they gave themselves one.
    others = _thread_count() - 1 - len(names)
    if others > 0:
        names.append(f"{others} of a library in C")
    return [f"starts threads when it is imported ({', '.join(names)})"]


def _thread_count() -> int:
    try:
        return len(list(TASKS.iterdir()))
    except OSError:
        # No Linux, or no /proc.
        return threading.active_count()


def _end_threads_of_libraries() -> None:
    """Numeric libraries (OpenBLAS: NumPy, SciPy) end their threads before a fork and start them again when they need them.

    So a fork shows whether it is one of these. Its child ends before it touches anything.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)


def _connections() -> list[str]:
    """Two processes that write into one stream destroy each other's words. Datagrams (syslog, statsd) may be shared."""
    found = []
    with contextlib.suppress(OSError):
        numbers = [int(entry.name) for entry in DESCRIPTORS.iterdir()]
        found = [peer for number in sorted(numbers) if number > 2 and (peer := _peer(number))]
    return [f"keeps connections that it opens when it is imported (to {', '.join(found)})"] if found else []


def _peer(number: int) -> str:
    """Whom a stream socket is connected to; nothing for all other descriptors, and for both ends of an own pair."""
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return ""
        with socket.socket(fileno=os.dup(number)) as copy:
            if copy.type != socket.SOCK_STREAM:
                return ""
            peer = copy.getpeername()
    except OSError:
        return ""
    if isinstance(peer, tuple):
        return ":".join(str(part) for part in peer[:2])
    return os.fsdecode(peer).replace("\0", "@")
