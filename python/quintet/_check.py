"""`quintet check` inside the project's Python: imports the app as a worker would and looks at what Django knows.

Reads what to check from the environment (`QUINTET_CHECK`, JSON) and writes one JSON object to standard output; what the
app itself prints goes to standard error. Nothing here changes the project or its databases.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quintet import _app, _django
from quintet._check_database import Finding, database_findings, finding
from quintet.worker import enter


def main() -> int:
    """Checks, reports, and succeeds even when findings are bad: judging them is the command's part."""
    asked = json.loads(os.environ.pop("QUINTET_CHECK"))
    out = os.dup(1)
    os.dup2(2, 1)
    enter(asked["dir"])
    try:
        _, report = _app.load({**asked, "debug_static": False})
        asked["connections"] = asked["connections"][report["interface"]]
    except BaseException as error:  # noqa: BLE001 - SystemExit at import is a failed import, too
        answer: dict[str, Any] = {"failure": _app.explain(error, asked), "findings": []}
    else:
        findings = list(django_findings(asked)) if _django.is_used() else []
        answer = {"app": report, "findings": findings}
    with os.fdopen(out, "w") as stream:
        json.dump(answer, stream)
    sys.stderr.flush()
    # Threads of the app, or of a database that never answered, must not keep the process.
    os._exit(0)


def django_findings(asked: dict[str, Any]) -> Iterator[Finding]:
    """Every check, each on its own: one that breaks says so and does not hide the others."""
    for check in (settings_findings, static_findings, cache_findings, database_findings):
        try:
            yield from check(asked)
        except Exception as error:  # noqa: BLE001 - said, and the next one checked
            about = check.__name__.removesuffix("_findings")
            yield finding("warn", about, f"could not be checked: {type(error).__name__}: {error}")


def settings_findings(asked: dict[str, Any]) -> Iterator[Finding]:
    """What is dangerous in public, or answers every visitor with an error."""
    from django.conf import settings

    if settings.DEBUG:
        yield finding(
            "warn",
            "settings",
            "DEBUG is on: errors show visitors your code and settings",
            "turn it off in public",
        )
    elif not settings.ALLOWED_HOSTS:
        yield finding(
            "fail",
            "settings",
            "ALLOWED_HOSTS is empty: without DEBUG every request is answered 400",
            "list the site's host names",
        )
    elif "*" in settings.ALLOWED_HOSTS:
        yield finding(
            "warn",
            "settings",
            "ALLOWED_HOSTS allows every host: links in mails can be forged",
            "list the site's own",
        )
    else:
        yield finding("ok", "settings", f"DEBUG is off, hosts are {', '.join(settings.ALLOWED_HOSTS)}")
    key = str(settings.SECRET_KEY)
    # The limits of Django's own check security.W009.
    if not settings.DEBUG and (key.startswith("django-insecure-") or len(key) < 50 or len(set(key)) < 5):
        yield finding(
            "warn",
            "settings",
            "SECRET_KEY is short or was made by startproject: sessions can be forged by who knows it",
            "make one: python -c 'from django.core.management.utils import get_random_secret_key as k; print(k())'",
        )


def static_findings(asked: dict[str, Any]) -> Iterator[Finding]:
    """Would the site have its styles?"""
    from django.apps import apps
    from django.conf import settings

    if not apps.is_installed("django.contrib.staticfiles"):
        return
    root = settings.STATIC_ROOT
    if settings.DEBUG:
        yield finding("ok", "static", "with DEBUG, files are found without collectstatic")
    elif not root:
        yield finding(
            "fail",
            "static",
            "STATIC_ROOT is not set: without DEBUG no static file is served",
            "set it, and run `python manage.py collectstatic`",
        )
    elif not Path(root).is_dir() or not any(Path(root).iterdir()):
        yield finding(
            "fail",
            "static",
            f"STATIC_ROOT is empty: {root}",
            "run `python manage.py collectstatic --noinput`",
        )
    else:
        hashed = _django._gives_hashed_names()
        names = "names have a content hash, browsers keep them" if hashed else "names have no content hash"
        yield finding("ok", "static", f"{root}; {names}")


def cache_findings(asked: dict[str, Any]) -> Iterator[Finding]:
    """A cache in each process is no shared cache."""
    from django.conf import settings

    local = [name for name, at in settings.CACHES.items() if "locmem" in str(at.get("BACKEND", ""))]
    if not local or asked["workers"] < 2:
        return
    if settings.SESSION_ENGINE.endswith("sessions.backends.cache") and settings.SESSION_CACHE_ALIAS in local:
        yield finding(
            "fail",
            "cache",
            "sessions are kept in a cache that each worker has for itself: logins are lost at random",
            "use SESSION_ENGINE = 'django.contrib.sessions.backends.db', or a shared cache",
        )


if __name__ == "__main__":
    sys.exit(main())
