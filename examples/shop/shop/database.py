"""Reads DATABASE_URL: `sqlite:////abs/path`, `sqlite:///relative`, `postgres://user:password@host:port/name`.

The host of a PostgreSQL URL may be a socket directory, percent-encoded or as `?host=/run/postgresql`;
other query parameters (sslmode, connect_timeout, …) go to libpq as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import django

# A connection is kept this long between requests; it saves a handshake on almost every one.
CONNECTION_SECONDS_MAX = 60
# SQLite has one writer at a time: the others wait this long for it.
SQLITE_WAIT_SECONDS = 20


def from_url(url: str, base: Path) -> dict[str, Any]:
    """The DATABASES entry for a URL; relative SQLite paths start at `base`."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return _sqlite(base / unquote(parts.path).removeprefix("/"))
    if parts.scheme in {"postgres", "postgresql"}:
        options = dict(parse_qsl(parts.query))
        host = options.pop("host", unquote(parts.hostname or ""))
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path.removeprefix("/")),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": host,
            "PORT": str(parts.port or options.pop("port", "")),
            "OPTIONS": options,
            "CONN_MAX_AGE": CONNECTION_SECONDS_MAX,
            "CONN_HEALTH_CHECKS": True,
        }
    raise ValueError(f"DATABASE_URL begins with {parts.scheme!r}; the shop knows sqlite:// and postgres://")


def _sqlite(path: Path) -> dict[str, Any]:
    options: dict[str, Any] = {"timeout": SQLITE_WAIT_SECONDS}
    if django.VERSION >= (5, 1):
        # A transaction that reads first and writes later takes the write lock at its start: waiting for it
        # then is allowed, while upgrading a read lock fails at once when another has written.
        options["transaction_mode"] = "IMMEDIATE"
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": options,
        "CONN_MAX_AGE": CONNECTION_SECONDS_MAX,
    }
