"""What a site writes to standard error, and what of it nobody expected."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from typing import IO

# A line of ours begins with a time and a level, one of Python's logging in the shop with a level.
_OURS = re.compile(r"^\d{4}-\d\d-\d\dT\S+\s+(TRACE|DEBUG|INFO|WARN|ERROR)\b")
_PYTHON = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]+: ")
_ALARMING = re.compile(
    r"^\S+\s+(WARN|ERROR)\b|^(WARNING|ERROR|CRITICAL) [\w.]+: |^error: |^warning: |panicked at|^Traceback "
    r"|^Exception ignored|ResourceWarning|garbage collected without being closed"
)


class Log:
    """Collects lines as they come."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._lines: list[str] = []
        self._allowed: list[re.Pattern[str]] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            with self._changed:
                self._lines.append(line.decode(errors="replace").rstrip("\n"))
                self._changed.notify_all()
        stream.close()

    def __str__(self) -> str:
        with self._changed:
            return "\n".join(self._lines)

    def __contains__(self, text: str) -> bool:
        return text in str(self)

    def count(self, pattern: str) -> int:
        """How often a pattern occurs."""
        return len(re.findall(pattern, str(self), re.MULTILINE))

    def wait_for(self, pattern: str, seconds: float = 15) -> re.Match[str]:
        """Wait until the pattern occurs."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                if found := re.search(pattern, "\n".join(self._lines), re.MULTILINE):
                    return found
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(
                        f"{pattern!r} was not logged within {seconds} s:\n" + "\n".join(self._lines)
                    )
                self._changed.wait(left)

    def allow(self, pattern: str) -> None:
        """This may be logged as a warning or an error: the story is about it."""
        self._allowed.append(re.compile(pattern, re.DOTALL))

    def finish(self, seconds: float = 5) -> None:
        """The writers are gone: read what is left."""
        self._reader.join(seconds)

    def incidents(self) -> Iterator[str]:
        """Warnings, errors and tracebacks that were not allowed, each with the lines that belong to it."""
        incident: list[str] = []
        with self._changed:
            lines = [*self._lines, None]
        for line in lines:
            if (
                line is None
                or _OURS.match(line)
                or _PYTHON.match(line)
                or (not incident and _ALARMING.search(line))
            ):
                text = "\n".join(incident)
                if incident and not any(pattern.search(text) for pattern in self._allowed):
                    yield text
                incident = [line] if line is not None and _ALARMING.search(line) else []
            elif incident:
                incident.append(line)
