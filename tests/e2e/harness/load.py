"""Many clients at once, for as long as a story takes; every answer is counted, nothing is retried."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from types import TracebackType

from harness.site import Site

# A loop that nobody ends must end.
SECONDS_MAX = 60
ANSWER_SECONDS_MAX = 30


class Load:
    """Keep-alive clients that GET paths in turn while the `with` block runs."""

    def __init__(self, site: Site, *paths: str, clients: int = 8, pause: float = 0.0) -> None:
        self._site = site
        self._paths = paths
        self._pause = pause
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(clients)]
        self.statuses: Counter[int] = Counter()
        self.bodies: Counter[bytes] = Counter()
        self.failures: list[str] = []
        self.refused = 0
        self.slowest = 0.0

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(ANSWER_SECONDS_MAX + 5)
            assert not thread.is_alive(), "a request was never answered"

    @property
    def count(self) -> int:
        """Answers so far."""
        return self.statuses.total()

    def wait_for(self, more: int, seconds: float = 30) -> None:
        """Wait for so many further answers."""
        goal = self.count + more
        deadline = time.monotonic() + seconds
        while self.count < goal:
            assert time.monotonic() < deadline, (
                f"{self.count} of {goal} answers in {seconds} s; {self.failures[:3]}"
            )
            time.sleep(0.01)

    def _run(self, number: int) -> None:
        connection = None
        stop_at = time.monotonic() + SECONDS_MAX
        turn = number
        while not self._over.is_set() and time.monotonic() < stop_at:
            path = self._paths[turn % len(self._paths)]
            turn += 1
            started = time.monotonic()
            try:
                connection = connection or self._connect()
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read()
            except ConnectionRefusedError as error:
                connection = None
                with self._lock:
                    self.refused += 1
                    self.failures.append(f"{path}: {error!r}")
                continue
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                connection = None
                with self._lock:
                    self.failures.append(f"{path}: {error!r}")
                continue
            if response.will_close:
                connection.close()
                connection = None
            with self._lock:
                self.statuses[response.status] += 1
                if len(body) < 200:
                    self.bodies[body] += 1
                self.slowest = max(self.slowest, time.monotonic() - started)
            if self._pause:
                time.sleep(self._pause)
        if connection:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self._site.tls:
            return http.client.HTTPSConnection(
                "127.0.0.1", self._site.port, timeout=ANSWER_SECONDS_MAX, context=self._site.tls
            )
        return http.client.HTTPConnection("127.0.0.1", self._site.port, timeout=ANSWER_SECONDS_MAX)
