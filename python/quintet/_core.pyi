"""The compiled half of the package. Private: its shape follows what `worker.py` needs."""

from asyncio import AbstractEventLoop, Future
from collections.abc import Awaitable, Callable
from os import PathLike
from typing import Any

__version__: str

class FileWrapper:
    """`wsgi.file_wrapper`: a plain file goes to the gateway as a descriptor, anything else in blocks."""

    filelike: Any
    def __new__(cls, filelike: Any, block_size: int = 8192) -> FileWrapper: ...
    def __iter__(self) -> FileWrapper: ...
    def __next__(self) -> bytes: ...
    def close(self) -> None: ...

class Worker:
    """The process as the supervisor and the gateway see it."""

    def __new__(
        cls,
        *,
        control_fd: int,
        link: str | PathLike[str],
        token: str,
        worker: int,
        generation: int,
        slots: int,
        pool: int = 0,
    ) -> Worker: ...
    @property
    def refusal(self) -> str | None: ...
    def tell(self, line: str) -> None: ...
    def slot(
        self,
        index: int,
        app: Callable[..., Any],
        report: Callable[[str, str, str, str, BaseException | None], None],
        after: Callable[[], None] | None = None,
    ) -> None: ...
    def somebody_waits(self) -> bool: ...
    @staticmethod
    def signal_is_free(number: int) -> bool: ...
    def watch_stacks(
        self, report: Callable[[str, int], None], signal: tuple[int, int] | None, log_json: bool
    ) -> None: ...
    def stop(self) -> None: ...
    def forked(self) -> list[int]: ...

class Exchange:
    """One request or WebSocket of ASGI: what its two callables do, and its end."""

    @property
    def request_id(self) -> bytes: ...
    def receive(self) -> dict[str, Any] | Future[None]: ...
    def send(self, message: dict[str, Any], /) -> Future[None] | None: ...
    def end(self, error: BaseException | None, /) -> None: ...

class Asgi:
    """The worker's streams in an event loop."""

    def __new__(
        cls,
        worker: Worker,
        event_loop: AbstractEventLoop,
        *,
        run: Callable[[dict[str, Any], Exchange], Awaitable[None]],
        report: Callable[[str, str, str, str, BaseException | None], None],
        slots: int,
        long_lived_max: int,
        message_max: int,
        state: dict[str, Any] | None = None,
    ) -> Asgi: ...
    def start(self) -> Future[None]: ...
    def woken(self) -> None: ...
