"""`quintet check` inside the project's Python: imports the app as a worker would and looks at what Django knows.

Reads what to check from the environment (`QUINTET_CHECK`, JSON) and writes one JSON object to standard output; what the
app itself prints goes to standard error. Nothing here changes the project or its databases.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quintet import _app, _django
from quintet.worker import enter

# A database that takes longer to answer would make every visitor wait, too.
DATABASE_PATIENCE_S = 10.0

Finding = dict[str, str]


def main() -> int:
    """Checks, reports, and succeeds even when findings are bad: judging them is the command's part."""
    asked = json.loads(os.environ.pop("QUINTET_CHECK"))
    out = os.dup(1)
    os.dup2(2, 1)
    enter(asked["dir"])
    try:
        _, report = _app.load({**asked, "debug_static": False})
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


def finding(level: str, about: str, text: str, hint: str = "") -> Finding:
    """One line of the command's answer; level is ok, warn or fail."""
    return {"level": level, "about": about, "text": text, "hint": hint}


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


def database_findings(asked: dict[str, Any]) -> Iterator[Finding]:
    """Reachable, migrated, and enough connections."""
    from django.db import connections

    for alias in connections:
        reached = within(DATABASE_PATIENCE_S, lambda alias=alias: one_database(alias, asked))
        if reached is None:
            yield finding(
                "fail",
                "database",
                f"{alias}: no answer within {DATABASE_PATIENCE_S:.0f} s",
                "is the host right, and does a firewall let us through?",
            )
        else:
            yield from reached


def within(seconds: float, work: Callable[[], list[Finding]]) -> list[Finding] | None:
    """What `work` returns, or None when it takes too long; it then goes on in a thread that nobody waits for."""
    results: list[list[Finding]] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else None


def one_database(alias: str, asked: dict[str, Any]) -> list[Finding]:
    """In a thread of its own, so with a connection of its own."""
    from django.db import connections

    connection = connections[alias]
    name = f"{alias} ({connection.vendor} {connection.settings_dict.get('NAME') or ''})".replace(" )", ")")
    if connection.vendor == "sqlite" and not sqlite_exists(connection):
        return [
            finding("fail", "database", f"{name}: the file does not exist", "run `python manage.py migrate`")
        ]
    start = time.perf_counter()
    try:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        took = (time.perf_counter() - start) * 1000
        findings = [finding("ok", "database", f"{name} answers in {took:.0f} ms")]
        findings += unapplied(alias, connection)
        findings += remarks(name, connection, asked["workers"] * asked["threads"])
    except Exception as error:  # noqa: BLE001 - drivers have their own kinds
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        return [
            finding(
                "fail", "database", f"{name}: {first_line}", "is it running, and are name and password right?"
            )
        ]
    finally:
        connection.close()
    return findings


def sqlite_exists(connection: Any) -> bool:
    """Connecting would make an empty file."""
    name = str(connection.settings_dict["NAME"])
    return name.startswith("file:") or name == ":memory:" or Path(name).exists()


def unapplied(alias: str, connection: Any) -> Iterator[Finding]:
    """Migrations that the database has not seen."""
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        names = ", ".join(f"{migration.app_label}.{migration.name}" for migration, _ in plan[:3])
        more = f" and {len(plan) - 3} more" if len(plan) > 3 else ""
        text = f"{alias}: {len(plan)} migrations are not applied: {names}{more}"
        yield finding("warn", "database", text, "run `python manage.py migrate`")


def remarks(name: str, connection: Any, slots: int) -> Iterator[Finding]:
    """What will hurt with many requests at once."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite" and slots > 1:
            cursor.execute("PRAGMA journal_mode")
            if str(cursor.fetchone()[0]).lower() != "wal":
                text = f"{name}: {slots} requests may write at once; SQLite lets one, and readers wait for it"
                yield finding(
                    "warn", "database", text, "PRAGMA journal_mode=WAL once lets readers go on meanwhile"
                )
        if connection.vendor == "postgresql":
            cursor.execute("SHOW max_connections")
            allowed = int(cursor.fetchone()[0])
            if slots > allowed - 3:  # PostgreSQL keeps three for superusers.
                text = f"{name}: {slots} threads may need a connection each, the server allows {allowed}"
                yield finding("fail", "database", text, "fewer workers.count or workers.threads, or a pooler")
            elif connection.settings_dict.get("CONN_MAX_AGE") == 0:
                text = f"{name}: CONN_MAX_AGE is 0: every request opens a new connection, which takes milliseconds"
                yield finding("warn", "database", text, "CONN_MAX_AGE = 600 keeps one for each thread")


if __name__ == "__main__":
    sys.exit(main())
