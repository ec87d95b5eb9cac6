"""The part of `quintet check` that asks the project's databases. Changes nothing in them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# A database that takes longer to answer would make every visitor wait, too.
DATABASE_PATIENCE_S = 10.0

Finding = dict[str, str]


def finding(level: str, about: str, text: str, hint: str = "") -> Finding:
    """One line of the command's answer; level is ok, warn or fail."""
    return {"level": level, "about": about, "text": text, "hint": hint}


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
        findings += remarks(name, connection, asked["connections"])
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
                text = f"{name}: {slots} requests at a time may need a connection each, the server allows {allowed}"
                hint = (
                    "lower workers.db_connections_max, workers.count, workers.threads (WSGI) or "
                    "workers.concurrency (ASGI), or use a pooler"
                )
                yield finding("fail", "database", text, hint)
            elif connection.settings_dict.get("CONN_MAX_AGE") == 0:
                text = f"{name}: CONN_MAX_AGE is 0: every request opens a new connection, which takes milliseconds"
                yield finding("warn", "database", text, "CONN_MAX_AGE = 600 keeps one for each thread")
