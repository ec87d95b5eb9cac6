"""Finding and importing the app, and explaining in a user's words why that failed."""

from __future__ import annotations

import difflib
import importlib
import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quintet import _django, _interface

# Frames of these folders say nothing about the app: ours, and the import system's.
_NOISE = tuple(f"{Path(file).parent}{os.sep}" for file in (__file__, importlib.__file__))

# Folders of a project that hold no settings of its own.
_NOT_THE_PROJECT = {"node_modules", "site-packages", "__pycache__"}


class AppError(Exception):
    """The app is not as it was said to be. Carries a hint; has no traceback worth showing."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def load(start: dict[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The app and what it reports (`AppReport` of the supervisor's messages)."""
    if start.get("dev"):
        from quintet import _dev

        _dev.keep_bytecode_honest()
    if start["settings"]:
        os.environ["DJANGO_SETTINGS_MODULE"] = start["settings"]
    wanted = start.get("interface")
    if start["app"]:
        name = start["app"]
        app = import_callable(name)
    else:
        wanted, name, app = _django.find_app(wanted)
    try:
        interface, app = _interface.choose(name, app, wanted)
    except _interface.MisfitError as error:
        raise AppError(str(error), error.hint) from None
    report: dict[str, Any] = {"app": name, "interface": interface, "python": platform.python_version()}
    if interface == _interface.ASGI:
        report["event_loop"] = _event_loop(start.get("event_loop") or "auto")
        # Before a fork, so that all workers share it; not for WSGI, which needs no asyncio.
        importlib.import_module("quintet._asgi")
    if _django.is_used():
        report.update(_django.facts())
        if start["debug_static"]:
            app = _django.with_static_files(app, interface)
    if start.get("dev"):
        from quintet import _dev

        app = _dev.attend(app, interface)
        report["watch"] = _dev.foreign_code(start["dir"])
    return app, report


def _event_loop(wanted: str) -> str:
    try:
        return _interface.loop_name(wanted)
    except ImportError as error:
        raise AppError(
            f"workers.event_loop is {wanted}, which cannot be imported: {error}",
            f"install it for {sys.executable}, or leave the setting out: asyncio is always there",
        ) from None


def import_callable(name: str) -> Callable[..., Any]:
    """`MODULE:CALLABLE`; the callable may be an attribute of an attribute. Without it: `application`."""
    module_name, _, path = name.partition(":")
    found: Any = importlib.import_module(module_name)
    for attribute in (path or "application").split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            names = [n for n in dir(found) if callable(getattr(found, n, None)) and not n.startswith("_")]
            raise AppError(
                f"{module_name} has no {path or 'application'!r}",
                _nearest(attribute, names) or _usual(module_name, names),
            ) from None
    if not callable(found):
        raise AppError(
            f"{name} is no WSGI or ASGI app: it is of type {type(found).__name__}, which cannot be called"
        )
    return found


def explain(
    error: BaseException, start: dict[str, Any], what: str = "the app could not be imported"
) -> dict[str, str]:
    """Message, traceback and hint for the supervisor to show."""
    if isinstance(error, AppError):
        return {"message": str(error), "traceback": "", "hint": error.hint}
    first_line = next(iter(str(error).splitlines()), "")
    return {
        "message": f"{what}: {type(error).__name__}: {first_line}",
        "traceback": clean_traceback(error),
        "hint": _hint(error, start),
    }


def clean_traceback(error: BaseException) -> str:
    """The traceback without frames of ours and of the import system; with causes."""
    shown = traceback.TracebackException.from_exception(error)
    seen: set[int] = set()
    waiting: list[traceback.TracebackException | None] = [shown]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        frames = [frame for frame in one.stack if not _is_noise(frame.filename)]
        one.stack = traceback.StackSummary.from_list(frames)
        waiting += [one.__cause__, one.__context__]
    return "".join(shown.format())


def _is_noise(filename: str) -> bool:
    return filename.startswith(("<frozen importlib", *_NOISE))


def _hint(error: BaseException, start: dict[str, Any]) -> str:
    text = str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _hint_for_missing(error.name, start)
    if type(error).__name__ == "ImproperlyConfigured":
        if "SECRET_KEY" in text:
            return (
                "the settings need a SECRET_KEY; many projects read it from the environment: is it set here?"
            )
        if "DJANGO_SETTINGS_MODULE" in text or "settings are not configured" in text:
            return _nearest_settings("") or "say which settings to use: --settings or DJANGO_SETTINGS_MODULE"
    if isinstance(error, KeyError) and len(error.args) == 1:
        return f"if this is a variable of the environment, set it where quintet runs: {error.args[0]}=…"
    if type(error).__name__ == "OperationalError":
        return "the database did not answer while the app was imported; quintet check looks closer"
    return ""


def _hint_for_missing(name: str, start: dict[str, Any]) -> str:
    wanted = [start["settings"] or os.environ.get("DJANGO_SETTINGS_MODULE") or ""]
    if name == "django":
        return (
            f"{sys.executable} has no Django; activate the project's environment before `quintet run`, "
            f"or install it: {sys.executable} -m pip install django"
        )
    if any(module == name or module.startswith(name + ".") for module in wanted if module):
        return _nearest_settings(wanted[0]) or f"there is no such module below {start['dir']}"
    app_module = (start["app"] or "").partition(":")[0]
    if app_module == name or app_module.startswith(name + "."):
        near = _nearest(app_module, _modules(start["dir"], "wsgi"))
        return near or f"the app is looked for in {start['dir']}: is this the project's directory?"
    top = name.partition(".")[0]
    return f"{sys.executable} has no module {top!r}; is this the project's environment, with everything installed?"


def _nearest_settings(wanted: str) -> str:
    names = list(_modules(Path.cwd(), "settings"))
    return _nearest(wanted, names) or (f"settings found here: {', '.join(names[:5])}" if names else "")


def _nearest(wanted: str, names: Any) -> str:
    near = difflib.get_close_matches(wanted, list(names), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else ""


def _usual(module: str, names: list[str]) -> str:
    """For a name that is like none: what an app is mostly called."""
    found = next((name for name in ("application", "app") if name in names), None)
    return (
        f"did you mean {module}:{found}?"
        if found
        else f"which name in {module} is the app? --app {module}:NAME"
    )


def _modules(directory: str | Path, word: str) -> Iterator[str]:
    """Modules up to two packages deep with this word in their path: `shop.settings`, `shop.settings.local`."""
    root = Path(directory)
    for depth in ("", "*/", "*/*/"):
        for path in sorted(root.glob(f"{depth}*.py"))[:500]:
            parts = path.relative_to(root).with_suffix("").parts
            hidden = any(part.startswith((".", "_")) or part in _NOT_THE_PROJECT for part in parts)
            if not hidden and any(word in part for part in parts[-2:]):
                yield ".".join(parts)
