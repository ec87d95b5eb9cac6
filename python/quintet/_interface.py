"""WSGI or ASGI: how an app wants to be called. Told by its shape; nothing is called here."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

WSGI = "wsgi"
ASGI = "asgi"
_CALL = "__call__"

_ASGI_HINT = "a worker of ASGI needs an ASGI app; leave the interface out, or say `wsgi`"
_WSGI_HINT = "a worker of WSGI needs a WSGI app; leave the interface out, or say `asgi`"


def shape(app: Callable[..., Any]) -> str | None:
    """How the callable looks: "wsgi", "asgi", "asgi2" (ASGI before 3.0: called twice), or None when one cannot tell."""
    if inspect.iscoroutinefunction(app):
        return ASGI
    if inspect.isclass(app):
        # A class is called with the scope, what it gives with receive and send.
        return "asgi2" if _is_called_as_coroutine(app) else _by_arity(app)
    if _is_called_as_coroutine(app):
        return ASGI
    return _by_arity(app)


def choose(name: str, app: Callable[..., Any], wanted: str | None) -> tuple[str, Callable[..., Any]]:
    """The interface, and the app as it is called: ASGI 2 becomes ASGI 3. Raises `TypeError` when it does not fit."""
    found = shape(app)
    if wanted is None:
        wanted = ASGI if found in (ASGI, "asgi2") else WSGI
    if wanted == ASGI and found == WSGI:
        raise MisfitError(
            f"{name} is no ASGI app: it is called with two arguments, as WSGI apps are", _ASGI_HINT
        )
    if wanted == WSGI and found in (ASGI, "asgi2"):
        raise MisfitError(f"{name} is no WSGI app: it looks like an ASGI app", _WSGI_HINT)
    if found == "asgi2":
        app = _single_callable(name, app)
    return wanted, app


def loop_name(wanted: str) -> str:
    """asyncio or uvloop: "auto" takes uvloop when it can be imported. Raises `ImportError` when it must be and cannot.

    Imports it: before a fork, so that all workers share it.
    """
    if wanted == "asyncio":
        return "asyncio"
    try:
        importlib.import_module("uvloop")
    except ImportError:
        if wanted == "uvloop":
            raise
        return "asyncio"
    return "uvloop"


class MisfitError(TypeError):
    """The interface that was asked for does not fit the app. Carries a hint."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def _single_callable(name: str, app: Callable[..., Any]) -> Callable[..., Any]:
    try:
        from asgiref.compatibility import guarantee_single_callable
    except ImportError:
        raise MisfitError(
            f"{name} is an app of ASGI 2, and asgiref is not installed",
            "install asgiref, which adapts it, or make it an app of ASGI 3: `async def app(scope, receive, send)`",
        ) from None
    return guarantee_single_callable(app)


def _is_called_as_coroutine(app: Any) -> bool:
    # Not asked of its type alone: some middleware sets it on the instance.
    return inspect.iscoroutinefunction(getattr(app, _CALL, None))


def _by_arity(app: Callable[..., Any]) -> str | None:
    """By the number of arguments that must be given: (environ, start_response), (scope), or (scope, receive, send)."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return None
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    required = sum(one.default is one.empty for one in places)
    for count, found in ((2, WSGI), (3, ASGI)):
        if required <= count <= len(places):
            return found
    return "asgi2" if required == 1 == len(places) else None
