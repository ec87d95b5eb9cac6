"""A plain WSGI app without a framework: every corner of PEP 3333 that a story wants to see."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], None]]

TEXT = [("Content-Type", "text/plain; charset=utf-8")]
# What happened in this process, for stories to ask about: /events.
EVENTS: list[str] = []
LEAKED: list[bytes] = []
_lock = threading.Lock()


def note(event: str) -> None:
    """Remember an event."""
    with _lock:
        EVENTS.append(event)


def application(environ: Environ, start_response: StartResponse) -> Any:
    """The page `/name` is the function `page_name`."""
    name = environ["PATH_INFO"].strip("/").partition("/")[0].replace("-", "_") or "hello"
    page = globals().get(f"page_{name}")
    if page is None:
        start_response("404 Not Found", TEXT)
        return [b"no such page\n"]
    query = {key: values[0] for key, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
    return page(environ, start_response, query)


def answer(
    start_response: StartResponse, body: str | bytes, status: str = "200 OK", fields: Any = TEXT
) -> list[bytes]:
    """A response of one piece."""
    data = body.encode() if isinstance(body, str) else body
    start_response(status, [*fields, ("Content-Length", str(len(data)))])
    return [data]


def page_hello(_environ: Environ, start: StartResponse, _query: dict[str, str]) -> list[bytes]:
    """A greeting."""
    return answer(start, "hello")


def page_pid(_environ: Environ, start: StartResponse, _query: dict[str, str]) -> list[bytes]:
    """Which process answers."""
    return answer(start, str(os.getpid()))


def page_version(_environ: Environ, start: StartResponse, _query: dict[str, str]) -> list[bytes]:
    """Overwritten by stories that deploy a new version."""
    return answer(start, "one")


def page_environ(environ: Environ, start: StartResponse, _query: dict[str, str]) -> list[bytes]:
    """The environ; what is no string is described."""
    shown = {
        key: value if isinstance(value, str | int | bool) else repr(value) for key, value in environ.items()
    }
    return answer(start, json.dumps(shown), fields=[("Content-Type", "application/json")])


def page_echo(environ: Environ, start: StartResponse, query: dict[str, str]) -> list[bytes]:
    """The body, read in the way that `how` names."""
    stream = environ["wsgi.input"]
    how = query.get("how", "read")
    if how == "read":
        body = stream.read()
    elif how == "sized":
        body = b"".join(iter(lambda: stream.read(int(query.get("size", "7"))), b""))
    elif how == "lines":
        body = b"".join(stream)
    elif how == "readline":
        body = b"".join(iter(stream.readline, b""))
    elif how == "short_lines":
        body = b"".join(iter(lambda: stream.readline(3), b""))
    elif how == "readlines":
        body = b"".join(stream.readlines())
    elif how == "none":
        body = b""
    else:
        body = stream.read(int(how))
    return answer(start, body, fields=[("Content-Type", "application/octet-stream")])


def page_length(environ: Environ, start: StartResponse, _query: dict[str, str]) -> list[bytes]:
    """How many bytes the body has, read in pieces."""
    total = sum(len(piece) for piece in iter(lambda: environ["wsgi.input"].read(65536), b""))
    return answer(start, f"{total} of {environ.get('CONTENT_LENGTH', 'unknown')}")


def page_sleep(_environ: Environ, start: StartResponse, query: dict[str, str]) -> list[bytes]:
    """Answers after some seconds."""
    time.sleep(float(query.get("seconds", "0.5")))
    return answer(start, query.get("say", f"slept in {os.getpid()}"))


def page_hang_in_c(_environ: Environ, start: StartResponse, query: dict[str, str]) -> list[bytes]:
    """Sleeps in C and keeps the GIL, as a faulty extension does."""
    ctypes.PyDLL(None).usleep(int(float(query.get("seconds", "20")) * 1e6))
    return answer(start, "back from C")


def page_leak(_environ: Environ, start: StartResponse, query: dict[str, str]) -> list[bytes]:
    """Keeps some memory for ever."""
    LEAKED.append(b"x" * int(float(query.get("mib", "1")) * (1 << 20)))
    return answer(start, "leaked")


def page_big(_environ: Environ, start: StartResponse, query: dict[str, str]) -> Iterator[bytes]:
    """Many bytes, in pieces; notes when it is done."""
    size = int(query["size"])
    start("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))])
    return _pieces(size, "big")


def page_stream(_environ: Environ, start: StartResponse, query: dict[str, str]) -> Iterator[bytes]:
    """Numbered lines without a length, with a pause after each."""
    start("200 OK", TEXT)
    return Stream(int(query.get("lines", "5")), float(query.get("pause", "0")))


class Stream:
    """An iterable that notes its end and its close()."""

    def __init__(self, lines: int, pause: float) -> None:
        self._lines, self._pause = lines, pause

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self._lines):
            yield f"line {number}\n".encode()
            time.sleep(self._pause)
        note("stream finished")

    def close(self) -> None:
        """Called always, and once."""
        note("stream closed")


def _pieces(size: int, name: str) -> Iterator[bytes]:
    try:
        piece = b"x" * 65536
        while size > 0:
            yield piece[:size]
            size -= len(piece)
        note(f"{name} finished")
    finally:
        note(f"{name} closed")


def page_write(_environ: Environ, start: StartResponse, _query: dict[str, str]) -> list[bytes]:
    """The write() callable, then an iterable."""
    write = start("200 OK", TEXT)
    write(b"written, ")
    write(b"twice, ")
    return [b"and ", b"", b"returned"]


def page_late_error(_environ: Environ, start: StartResponse, _query: dict[str, str]) -> list[bytes]:
    """Begins well, then finds an error before a byte was sent: exc_info replaces the headers."""
    start("200 OK", [*TEXT, ("X-Mood", "good")])
    try:
        raise ValueError("no")
    except ValueError:
        start("500 Oh Dear", [*TEXT, ("X-Mood", "bad")], sys.exc_info())
    return [b"sorry"]


def page_too_late_error(_environ: Environ, start: StartResponse, _query: dict[str, str]) -> Iterator[bytes]:
    """Finds an error after bytes were sent: exc_info raises it again."""
    start("200 OK", TEXT)
    yield b"x" * 100
    try:
        raise ValueError("found too late")
    except ValueError:
        start("500 Oh Dear", TEXT, sys.exc_info())
    yield b"never"


def page_raise(_environ: Environ, _start: StartResponse, _query: dict[str, str]) -> list[bytes]:
    """Fails before start_response."""
    raise RuntimeError("plain failure")


def page_file(_environ: Environ, start: StartResponse, query: dict[str, str]) -> Any:
    """A file through wsgi.file_wrapper, perhaps not from its start."""
    file = open(query["path"], "rb")  # noqa: SIM115
    file.seek(int(query.get("from", "0")))
    start("200 OK", [("Content-Type", "application/octet-stream")])
    return _environ["wsgi.file_wrapper"](file, 8192)


def page_accel(_environ: Environ, start: StartResponse, query: dict[str, str]) -> list[bytes]:
    """Hands a file over to the server."""
    fields = [("Content-Type", "text/x-secret"), ("X-Accel-Redirect", query["to"]), ("X-App", "said so")]
    return answer(start, "not this", fields=fields)


def page_sendfile(_environ: Environ, start: StartResponse, query: dict[str, str]) -> list[bytes]:
    """Hands a file over to the server, Apache's way."""
    return answer(start, "not this", fields=[*TEXT, ("X-Sendfile", query["to"])])


def page_die(_environ: Environ, _start: StartResponse, _query: dict[str, str]) -> list[bytes]:
    """Poison: the process that runs it dies."""
    with open(os.environ["DEATHS"], "a") as file:
        file.write(f"{os.getpid()}\n")
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def page_die_midway(_environ: Environ, start: StartResponse, _query: dict[str, str]) -> Iterator[bytes]:
    """Dies after a part of the body is out."""
    start("200 OK", [*TEXT, ("Content-Length", "1000000")])
    yield b"x" * 500_000
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)


def page_short(_environ: Environ, start: StartResponse, _query: dict[str, str]) -> list[bytes]:
    """Says ten bytes, gives five."""
    start("200 OK", [*TEXT, ("Content-Length", "10")])
    return [b"12345"]


def page_status(_environ: Environ, start: StartResponse, query: dict[str, str]) -> list[bytes]:
    """Any status line."""
    start(query["line"], [])
    return [b""]


def page_fields(_environ: Environ, start: StartResponse, _query: dict[str, str]) -> list[bytes]:
    """Repeated and Latin-1 header fields."""
    return answer(
        start, "", fields=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Name", "Gr\xfcn"), *TEXT]
    )


def page_bad_fields(_environ: Environ, start: StartResponse, _query: dict[str, str]) -> list[bytes]:
    """A header field with a line break: response splitting, if it got through."""
    return answer(start, "", fields=[("X-Evil", "a\r\nSet-Cookie: stolen=1")])


def page_events(_environ: Environ, start: StartResponse, _query: dict[str, str]) -> list[bytes]:
    """What has happened in this process."""
    with _lock:
        return answer(start, json.dumps(EVENTS), fields=[("Content-Type", "application/json")])


def page_print(_environ: Environ, start: StartResponse, query: dict[str, str]) -> list[bytes]:
    """Prints, and writes to wsgi.errors."""
    print(f"printed {query['say']}", flush=True)
    _environ["wsgi.errors"].write(f"erred {query['say']}\n")
    _environ["wsgi.errors"].flush()
    return answer(start, "done")
