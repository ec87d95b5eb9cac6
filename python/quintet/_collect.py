"""`workers.gc = "between"`: the garbage collector runs when a response has been sent, not in the middle of a request.

Python counts new containers and collects when there are more than a threshold, wherever the app happens to be. Here the
threshold is so high that only a request which makes a great many of them gets there; after each exchange the count is
looked at, and what Python would have collected is collected then, if nobody waits for this worker at that moment.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

# Times Python's own threshold. Inside a request: a bound on the garbage of a view that makes millions of objects, some ten
# MiB. Between requests: collected although somebody waits, since under full load somebody always does.
INSIDE = 100
URGENT = 8

# The oldest generation is collected as rarely as Python would, and not more often than this.
FULL_EVERY_SECONDS = 5.0


class Between:
    """Called after each exchange."""

    def __init__(self, somebody_waits: Callable[[], bool]) -> None:
        self._somebody_waits = somebody_waits
        young, middle, old = gc.get_threshold()
        # 0 means that the app has switched collection off, or a generation of it: so it stays.
        self._due = young if gc.isenabled() else 0
        self._middle, self._old = middle, old
        self._last_full = time.monotonic()
        if self._due:
            gc.set_threshold(young * INSIDE, middle, old)

    def __call__(self) -> None:
        """Collect, if it is due and nobody minds."""
        young, middle, old = gc.get_count()
        if not self._due or young <= self._due:
            return
        if young <= self._due * URGENT and self._somebody_waits():
            return
        generation = 0
        if middle >= self._middle > 0:
            generation = 1
            now = time.monotonic()
            if old >= self._old > 0 and now - self._last_full >= FULL_EVERY_SECONDS:
                generation = 2
                self._last_full = now
        gc.collect(generation)
