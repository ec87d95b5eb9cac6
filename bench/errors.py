"""What stops a run. A message, what was seen, and what helps."""

from __future__ import annotations


class BenchError(Exception):
    """Stops the run with exit code 1."""

    def __init__(self, message: str, detail: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message, self.detail, self.hint = message, detail, hint

    def __str__(self) -> str:
        lines = [f"error: {self.message}"]
        if self.detail:
            lines.append(f"detail: {self.detail}")
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)
