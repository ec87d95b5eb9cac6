"""Start-up of the catalogue."""

from typing import Any

from django.apps import AppConfig
from django.db.backends.signals import connection_created


class CatalogueConfig(AppConfig):
    """The catalogue; it also tunes SQLite connections, since Django before 5.1 has no setting for that."""

    name = "catalogue"

    def ready(self) -> None:
        """Listen for new connections."""
        connection_created.connect(_tune_sqlite)


def _tune_sqlite(connection: Any, **_: Any) -> None:
    """Readers and the writer do not wait for each other; one fsync per checkpoint instead of each commit."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=NORMAL")
