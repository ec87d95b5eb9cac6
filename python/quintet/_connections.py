"""How many database connections the threads of this worker hold at the same time, where it is more than one a slot.

A slot is reckoned with one (`workers.db_connections_max`). Threads that the app starts, `sync_to_async` with
`thread_sensitive=False`, `asyncio.to_thread` and a second database on the same server come on top, and how many they will be
nobody can know: so the supervisor is told when it has happened.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any


def watch(slots: int, tell: Callable[[int], None]) -> None:
    """From now on `tell` hears each time that more connections to one server are open than ever before, and than slots."""
    from django.db.backends.signals import connection_created

    process = os.getpid()
    # The garbage collector may run a finalizer of the app while the lock is held, and that may open a connection.
    lock = threading.RLock()
    counts = False
    # A thread's connections go with it, and are out of here then.
    known: weakref.WeakSet[Any] = weakref.WeakSet()
    most = slots

    def opened(connection: Any, **_: Any) -> None:
        nonlocal most, counts
        server = _server(connection)
        # The child of a fork: no worker, and somebody else may have held the lock.
        if server is None or os.getpid() != process:
            return
        with lock:
            if counts:
                return
            counts = True
            try:
                known.add(connection)
                count = sum(one.connection is not None and _server(one) == server for one in known)
            finally:
                counts = False
            if count <= most:
                return
            most = count
        tell(count)

    # A weak reference would be gone at once.
    connection_created.connect(opened, weak=False, dispatch_uid="quintet.connections")


def _server(connection: Any) -> tuple[str, str, str] | None:
    """Who bounds the number of connections; a file has nobody."""
    if connection.vendor == "sqlite":
        return None
    settings = connection.settings_dict
    return connection.vendor, str(settings.get("HOST") or ""), str(settings.get("PORT") or "")
