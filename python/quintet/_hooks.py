"""`@postfork`: what an app wants to be done in each worker before it serves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Hook = TypeVar("Hook", bound=Callable[[], Any])

_hooks: list[Callable[[], Any]] = []
_has_run = False


def postfork(hook: Hook) -> Hook:
    """Has `hook` called in each worker, once, before the first request; in the order of registration.

    For what processes must not share: a connection opened when the app is imported, a thread, a generator of random numbers.
    Workers are forked from a process that has imported the app (`workers.preload`), so what is made at import is made once;
    what is made in a hook is made in every worker. Hooks run in workers that import the app by themselves, too, and
    nowhere else: not under `manage.py`, not in tests.

        from quintet import postfork

        @postfork
        def connect() -> None:
            global events
            events = EventStream(settings.EVENTS_URL)

    An exception means that the worker cannot serve: it is shown with its traceback, as that of a failed import is.
    """
    if not callable(hook) or inspect.iscoroutinefunction(hook):
        raise TypeError(f"a postfork hook is a plain function without arguments, not {hook!r}")
    _hooks.append(hook)
    if _has_run:
        # A module that is imported late, by a view: this process is a worker already.
        hook()
    return hook


def run() -> None:
    """In the worker, before it serves."""
    global _has_run
    _has_run = True
    # A hook may import a module that has hooks: those run when they are registered.
    for hook in tuple(_hooks):
        hook()
