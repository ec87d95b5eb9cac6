"""`quintet dev`: what one request did in the database, and templates as they are now.

Each response carries a field that the gateway takes out again and shows in its log: how many queries, how long, and how
often the most frequent one was made.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextvars import ContextVar
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from quintet import _django, _interface

# As in `ctl-admin/src/words.rs`.
FIELD = "x-quintet-queries"

# Of statements that differ in the length of a list only, the beginning says enough.
_SHAPE_CHARACTERS = 300


class Queries:
    """What a request has asked of its databases."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.shapes: Counter[str] = Counter()

    def add(self, sql: object, seconds: float) -> None:
        """One more."""
        self.count += 1
        self.seconds += seconds
        self.shapes[str(sql)[:_SHAPE_CHARACTERS]] += 1

    def field(self) -> str:
        """The value of the field: `COUNT;MICROSECONDS;REPEATED`."""
        repeated = max(self.shapes.values(), default=0)
        return f"{self.count};{round(self.seconds * 1e6)};{repeated}"


# Of this thread or task. Django runs sync code of an ASGI request in threads that inherit the context.
_current: ContextVar[Queries | None] = ContextVar("quintet_queries", default=None)


# How long a file must have been as it is before its compiled form is kept; its time is known there in whole seconds.
_SETTLED_SECONDS = 2


def keep_bytecode_honest() -> None:
    """Compiled files are not written for sources that were saved just now.

    Python takes them for valid by the source's length and its time in seconds. Two saves within a second that change a digit
    would be one to it, and the old code would be imported again.
    """
    write = SourceFileLoader.set_data

    def set_data(self: SourceFileLoader, path: str, data: Any, **options: Any) -> None:
        try:
            settled = time.time() - Path(self.path).stat().st_mtime >= _SETTLED_SECONDS
        except OSError:
            return
        if settled:
            write(self, path, data, **options)

    SourceFileLoader.set_data = set_data  # type: ignore[method-assign]


def attend(app: Callable[..., Any], interface: str) -> Callable[..., Any]:
    """The app, with its queries told and its templates fresh."""
    if not _django.is_used():
        return app
    _count_queries()
    fresh = _template_reset()
    return _asgi(app, fresh) if interface == _interface.ASGI else _wsgi(app, fresh)


def _wsgi(app: Callable[..., Any], fresh: Callable[[], None]) -> Callable[..., Any]:
    def attended(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        fresh()
        queries = Queries()
        _current.set(queries)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, (FIELD, queries.field())], exc_info)

        return app(environ, start)

    return attended


def _asgi(app: Callable[..., Awaitable[None]], fresh: Callable[[], None]) -> Callable[..., Awaitable[None]]:
    async def attended(
        scope: MutableMapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        fresh()
        queries = Queries()
        _current.set(queries)

        async def tell(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                field = (FIELD.encode(), queries.field().encode())
                message = {**message, "headers": [*message.get("headers", ()), field]}
            await send(message)

        await app(scope, receive, tell)

    return attended


def _count_queries() -> None:
    """Every connection to a database counts for the request that uses it."""
    from django.db import connections
    from django.db.backends.signals import connection_created

    def timed(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        queries = _current.get()
        if queries is None:
            return execute(sql, params, many, context)
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            queries.add(sql, time.perf_counter() - began)

    def created(connection: Any, **_: Any) -> None:
        if timed not in connection.execute_wrappers:
            connection.execute_wrappers.append(timed)

    # A weak reference would be gone at once.
    connection_created.connect(created, weak=False, dispatch_uid="quintet.dev")
    # What the import has opened already.
    for connection in connections.all(initialized_only=True):
        created(connection)


def _template_reset() -> Callable[[], None]:
    """Templates are read anew for each request, as they were with DEBUG before Django 4.1.

    Its own server resets the cached loaders when a file changes; who else runs the app has to do it.
    """
    from django.template import autoreload

    def reset() -> None:
        # What is wrong with the templates' settings is told by who renders one.
        with contextlib.suppress(Exception):
            autoreload.reset_loaders()

    return reset


def foreign_code(project: str) -> list[str]:
    """Directories of imported code that is neither the project's nor installed: worth watching, too."""
    home = Path(project).resolve()
    installed = {Path(path).resolve() for path in (sys.prefix, sys.base_prefix, Path(__file__).parent)}
    found: set[Path] = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        # Of a package: a module alone may lie in somebody's home.
        if not hasattr(module, "__path__") or not isinstance(file, str):
            continue
        if "site-packages" in file or "dist-packages" in file:
            continue
        directory = Path(file).resolve().parent
        known = directory.is_relative_to(home) or any(directory.is_relative_to(at) for at in installed)
        if not known and directory.is_absolute():
            found.add(directory)
    # Those inside of others are watched with them.
    return sorted(
        str(at) for at in found if not any(at != other and at.is_relative_to(other) for other in found)
    )
