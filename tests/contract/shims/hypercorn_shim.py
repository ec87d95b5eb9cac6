"""Hypercorn's end-to-end tests serve an app in a loop of trio; here quintet serves it, over the bridge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import hypercorn.trio

from harness import places
from harness.site import Site
from shims import bridging


async def _serve(app: Any, config: Any, *, shutdown_trigger: Callable[[], Awaitable[None]]) -> None:
    """Does not give way before it listens: the tests go on when all tasks wait."""
    address = config.bind[0]
    flags = ("--app", "bridge:application", "--workers", "1", "--concurrency", "4")
    with bridging.serving_in_a_thread(app):
        env = {"BRIDGE": str(bridging.SOCKET)}
        site = Site(places.APPS / "bridge", flags=flags, env=env, bind=(address,))
        site.port = int(address.rpartition(":")[2])
        site.start()
        try:
            await shutdown_trigger()
        finally:
            site.close()


def pytest_configure() -> None:
    """The tests call it as an attribute of the module."""
    hypercorn.trio.serve = _serve


def pytest_sessionfinish() -> None:
    """The socket's directory."""
    bridging.remove()
