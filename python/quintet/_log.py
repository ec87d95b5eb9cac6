"""Log entries of a worker: one write each, as text or JSON, in the form the rest of the program has."""

from __future__ import annotations

import json
import os
import traceback
from datetime import datetime, timezone


def _harmless(text: str) -> str:
    """Without control characters that a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


class Log:
    """What the compiled half calls when an exchange went wrong."""

    def __init__(self, worker: int, as_json: bool) -> None:
        self.worker = worker
        self.as_json = as_json

    def exchange(
        self, message: str, request_id: str, method: str, path: str, exception: BaseException | None
    ) -> None:
        """An entry about one request, with the traceback of what its app raised."""
        level = "WARN" if exception is None else "ERROR"
        fields = {"request_id": request_id, "method": method, "path": path}
        self.write(level, message, fields, exception)

    def write(
        self,
        level: str,
        message: str,
        fields: dict[str, str],
        exception: BaseException | None = None,
        stacks: str = "",
    ) -> None:
        """One entry, in one write, so that entries of several workers do not mix."""
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        shown = "" if exception is None else "".join(traceback.format_exception(exception))
        if self.as_json:
            entry = {"timestamp": now, "level": level, "message": message, **fields, "worker": self.worker}
            entry["target"] = "quintet.worker"
            if shown:
                entry["traceback"] = shown
            if stacks:
                entry["stacks"] = stacks
            line = json.dumps(entry) + "\n"
        else:
            pairs = "".join(f" {name}={json.dumps(value)}" for name, value in fields.items())
            line = f"{now} {level:>5} {message}{pairs} worker={self.worker}\n{_harmless(shown + stacks)}"
        data = line.encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[os.write(2, data) :]
        except OSError:
            # Standard error is closed: there is no place left to say so.
            pass
