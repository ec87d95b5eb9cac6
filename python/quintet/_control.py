"""The supervisor's socket, as long as no thread may watch it: while the app is imported, and in a template.

Later the compiled half takes it over and gives it a thread of its own (`quintet._core.Worker`).
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
from typing import Any

# BSD's sysexits: a configuration error, an internal error.
EXIT_CONFIG = 78
EXIT_SOFTWARE = 70

# What a process ends with that has lost its supervisor; as in the compiled half.
EXIT_ORPHANED = 70

# An order is a few hundred bytes; what is longer than this is none.
LINE_BYTES_MAX = 64 * 1024


class Control:
    """A conversation in lines of JSON. Orders may bring a descriptor each."""

    def __init__(self, number: int) -> None:
        self._socket = socket.socket(fileno=number)
        self._socket.set_inheritable(False)
        self._read = b""
        self._descriptors: list[int] = []

    def leave_with_supervisor(self) -> None:
        """From now on the end of the supervisor is the end of this process, also when it hangs in C.

        The kernel sends SIGIO when something happens on the socket, and nothing but its end can: nobody speaks to a process
        that has not said that it is ready. What SIGIO does by default is to end the process.
        """
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(self._socket, fcntl.F_SETOWN, os.getpid())
        self._set_flags(fcntl.fcntl(self._socket, fcntl.F_GETFL) | os.O_ASYNC)
        # It may have happened before.
        ended = select.poll()
        ended.register(self._socket, select.POLLIN)
        if ended.poll(0):
            os._exit(EXIT_ORPHANED)

    def expect_words(self) -> None:
        """From now on the supervisor may speak."""
        self._set_flags(fcntl.fcntl(self._socket, fcntl.F_GETFL) & ~os.O_ASYNC)

    def tell(self, message: dict[str, Any]) -> None:
        """One line to the supervisor, who may answer from now on."""
        self.expect_words()
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            os._exit(EXIT_ORPHANED)

    def hear(self) -> tuple[dict[str, Any], int]:
        """The next order and its descriptor. Without a supervisor this process ends."""
        while b"\n" not in self._read:
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    self._socket, LINE_BYTES_MAX, 1, getattr(socket, "MSG_CMSG_CLOEXEC", 0)
                )
            except OSError:
                data, descriptors = b"", []
            self._descriptors += descriptors
            self._read += data
            if not data or len(self._read) > LINE_BYTES_MAX:
                os._exit(0 if not data else EXIT_ORPHANED)
        line, _, self._read = self._read.partition(b"\n")
        if not self._descriptors:
            # The kernel had none left to give us (EMFILE). Such a template is of no use; the supervisor starts another.
            os._exit(EXIT_ORPHANED)
        return json.loads(line), self._descriptors.pop(0)

    def release(self) -> int:
        """Its number, for somebody else to own and to listen to."""
        self.expect_words()
        return self._socket.detach()

    def close(self) -> None:
        """Lets it go: it belongs to another process now."""
        self._socket.close()

    def _set_flags(self, flags: int) -> None:
        fcntl.fcntl(self._socket, fcntl.F_SETFL, flags)
