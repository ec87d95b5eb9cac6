"""Several hosts on one machine: network namespaces, each with an address of its own and a cable that can be cut.

Where nobody may make namespaces they are addresses of the loopback, and a host that is cut off is one whose processes stand still: to
the others that is the same silence.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from harness.processes import marked


class Runs(Protocol):
    """What runs on a host: all of its processes carry this mark."""

    mark: str


@dataclass
class Host:
    """One of them."""

    address: str
    # Goes before a command that is to run there.
    prefix: tuple[str, ...]
    # Its namespace and the far end of its cable; None: it has none.
    cable: tuple[str, str] | None

    def cut_off(self, runs: Runs) -> None:
        """Nothing that is sent there arrives, nor anything from there; nobody is told."""
        self._cable("down", runs, signal.SIGSTOP)

    def join(self, runs: Runs) -> None:
        """As before."""
        self._cable("up", runs, signal.SIGCONT)

    def _cable(self, state: str, runs: Runs, otherwise: signal.Signals) -> None:
        if self.cable:
            # The far end: this machine's own must not lose its way there, or it would ask its default router.
            namespace, far = self.cable
            _ip("link", "set", far, state, there=namespace)
            return
        for pid in marked(runs.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, otherwise)


def _ip(*words: str, there: str | None = None) -> None:
    command = ["ip", *(("-n", there) if there else ()), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr}")


def _host(name: str, net: str) -> Host:
    """A namespace with a cable to this one: .1 is here, .2 there."""
    near, far = f"{name}n", f"{name}f"
    _ip("netns", "add", name)
    _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
    _ip("addr", "add", f"{net}.1/30", "dev", near)
    _ip("link", "set", near, "up")
    # Whatever happens to the cable, nothing of this leaves the machine.
    _ip("route", "add", "blackhole", f"{net}.0/24", "metric", "9999")
    _ip("addr", "add", f"{net}.2/30", "dev", far, there=name)
    _ip("link", "set", far, "up", there=name)
    _ip("link", "set", "lo", "up", there=name)
    return Host(f"{net}.2", ("ip", "netns", "exec", name), (name, far))


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """So many hosts, that this one and no other reaches."""
    # Stories run side by side: names and addresses are drawn.
    names = [f"q{secrets.token_hex(4)}{number}" for number in range(count)]
    draw = secrets.randbelow(200) + 20
    nets = [f"10.{draw}.{secrets.randbelow(250) + 1}" for _ in names]
    try:
        try:
            found = [_host(name, net) for name, net in zip(names, nets, strict=True)]
        except OSError:
            found = [Host(f"127.0.{draw}.{number + 1}", (), None) for number in range(count)]
        yield found
    finally:
        for name, net in zip(names, nets, strict=True):
            # Its cable goes with it.
            with suppress(OSError):
                _ip("netns", "delete", name)
            with suppress(OSError):
                _ip("route", "delete", "blackhole", f"{net}.0/24")
