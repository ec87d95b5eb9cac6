"""What a Django project says of itself. Imports Django only where it is there and used."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def is_used() -> bool:
    """Has the app configured Django?"""
    conf = sys.modules.get("django.conf")
    return conf is not None and conf.settings.configured


def find_app(interface: str | None) -> tuple[str, str, Callable[..., Any]]:
    """The app that ASGI_APPLICATION or WSGI_APPLICATION names, or Django's own: its interface, its name, itself.

    Nobody sets ASGI_APPLICATION (Django does not know it) who does not want ASGI: Channels and Daphne do.
    """
    from django.conf import settings

    if interface is None:
        interface = "asgi" if getattr(settings, "ASGI_APPLICATION", None) else "wsgi"
    name = getattr(settings, f"{interface.upper()}_APPLICATION", None)
    if name is not None:
        module, _, attribute = name.rpartition(".")
        return interface, f"{module}:{attribute}", getattr(import_module(module), attribute)
    factory = f"get_{interface}_application"
    module = f"django.core.{interface}"
    return interface, f"{module}:{factory}", getattr(import_module(module), factory)()


def facts() -> dict[str, Any]:
    """The part of `AppReport` that Django knows. Imports the URLconf: a broken one must be known now."""
    import django
    from django.apps import apps
    from django.conf import settings
    from django.urls import get_resolver

    if not apps.ready:
        django.setup()
    if getattr(settings, "ROOT_URLCONF", None):
        _ = get_resolver().url_patterns
    report: dict[str, Any] = {"django": django.get_version(), "debug": bool(settings.DEBUG)}
    report["session_cookie"] = str(settings.SESSION_COOKIE_NAME)
    staticfiles = apps.is_installed("django.contrib.staticfiles")
    if settings.STATIC_URL and (staticfiles or settings.STATIC_ROOT):
        report["static_url"] = str(settings.STATIC_URL)
        report["static_root"] = _path(settings.STATIC_ROOT)
        report["static_hashed"] = staticfiles and _gives_hashed_names()
        if settings.DEBUG and staticfiles:
            report["static_finders"] = _finder_directories()
    # An unset MEDIA_URL reads as the script prefix, "/".
    if settings.MEDIA_ROOT and settings.MEDIA_URL not in ("", "/"):
        report["media_url"] = str(settings.MEDIA_URL)
        report["media_root"] = _path(settings.MEDIA_ROOT)
        report["media_in_urlconf"] = bool(settings.DEBUG) and _serves_media(report["media_url"])
    return report


def close_connections() -> list[str]:
    """Closes what the import has opened, before workers are forked; says what could not be closed.

    Each worker opens its own when it needs it.
    """
    from django.core.cache import caches
    from django.db import connections

    complaints = []
    for connection in connections.all(initialized_only=True):
        try:
            connection.close()
            # Django 5.1: a pool of psycopg's, with threads of its own.
            if connection.alias in getattr(connection, "_connection_pools", {}):
                connection.close_pool()
        except Exception as error:  # noqa: BLE001
            complaints.append(
                f"has opened the database {connection.alias!r} at import and cannot close it ({error})"
            )
    for cache in caches.all(initialized_only=True):
        # What a cache keeps open all the same is looked for among the descriptors.
        with contextlib.suppress(Exception):
            cache.close()
            # Django's own backend for Redis closes nothing.
            for pool in getattr(getattr(cache, "_cache", None), "_pools", {}).values():
                pool.disconnect()
    return complaints


def with_static_files(app: Callable[..., Any], interface: str) -> Callable[..., Any]:
    """As runserver does: with DEBUG, files are found without collectstatic."""
    from django.apps import apps
    from django.conf import settings

    if not (settings.DEBUG and apps.is_installed("django.contrib.staticfiles")):
        return app
    from django.contrib.staticfiles import handlers

    return handlers.ASGIStaticFilesHandler(app) if interface == "asgi" else handlers.StaticFilesHandler(app)


def log_unheard_exceptions(log: Callable[[str, str, str, str, BaseException | None], None]) -> None:
    """Has the exceptions of views logged, where the project's own logging writes them nowhere.

    Django turns them into a 500 itself, and with DEBUG off its default logging only mails ADMINS.
    """
    from django.conf import settings
    from django.core.signals import got_request_exception

    # Propagated exceptions reach the worker, which logs them.
    if settings.DEBUG_PROPAGATE_EXCEPTIONS or _is_heard("django.request"):
        return

    def tell(request: Any = None, **_: Any) -> None:
        meta = getattr(request, "META", {})
        words = [str(meta.get(name, "")) for name in ("HTTP_X_REQUEST_ID", "REQUEST_METHOD", "PATH_INFO")]
        log("the app raised an exception", words[0], words[1], words[2], sys.exc_info()[1])

    got_request_exception.connect(tell, weak=False, dispatch_uid="quintet")


def _is_heard(name: str) -> bool:
    """Does a handler take this logger's errors, mail aside?"""
    from django.utils.log import AdminEmailHandler

    found = False
    logger: logging.Logger | None = logging.getLogger(name)
    if logger.disabled:
        # Seldom wanted: a LOGGING without `disable_existing_loggers: False` does it to Django's loggers.
        return False
    if not logger.isEnabledFor(logging.ERROR):
        # A level above ERROR is wanted: the project is obeyed.
        return True
    record = logging.LogRecord(name, logging.ERROR, "", 0, "", (), None)
    while logger is not None:
        for handler in logger.handlers:
            found = True
            if isinstance(handler, AdminEmailHandler) or handler.level > logging.ERROR:
                continue
            try:
                taken = handler.filter(record)
            except Exception:  # noqa: BLE001
                # A filter of the project that wants a real record: the handler is there to be used.
                taken = True
            if taken:
                return True
        logger = logger.parent if logger.propagate else None
    # With no handler at all Python writes to standard error.
    return not found


def _path(value: Any) -> str | None:
    # Not resolved: the name the project gave may be a link that is moved at the next deployment.
    return os.path.abspath(os.fspath(value)) if value else None  # noqa: PTH100


def _gives_hashed_names() -> bool:
    """ManifestStaticFilesStorage and what derives from it, WhiteNoise's compressed one too."""
    from django.contrib.staticfiles.storage import HashedFilesMixin, staticfiles_storage

    try:
        return isinstance(staticfiles_storage, HashedFilesMixin)
    except Exception:  # noqa: BLE001
        # A storage that cannot be made (a cloud without credentials): the app fails where it uses it, not here.
        return False


def _finder_directories() -> list[tuple[str, str]]:
    """Directories in the finders' order.

    Ends at the first finder that does not just look into directories: what comes behind it is Django's to find, or the
    order would change.
    """
    from django.contrib.staticfiles.finders import AppDirectoriesFinder, FileSystemFinder, get_finders

    found: list[tuple[str, str]] = []
    for finder in get_finders():
        if type(finder) is FileSystemFinder:
            found += [(prefix, str(_path(root))) for prefix, root in finder.locations]
        elif type(finder) is AppDirectoriesFinder:
            found += [("", str(_path(s.location))) for s in finder.storages.values()]
        else:
            break
    return found


def _serves_media(media_url: str) -> bool:
    """Does the URLconf hand MEDIA_URL to `django.views.static.serve`, from MEDIA_ROOT?"""
    from django.conf import settings
    from django.urls import Resolver404, resolve
    from django.views.static import serve

    if not media_url.startswith("/"):
        return False
    try:
        match = resolve(media_url.rstrip("/") + "/x")
    except Resolver404:
        return False
    return match.func is serve and _path(match.kwargs.get("document_root")) == _path(settings.MEDIA_ROOT)
