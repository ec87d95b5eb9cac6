"""uvicorn's tests run a server in the loop of the test, around an app that they look into.

Here the server is quintet, on the port that all tests get, and the app is called over the bridge. Of the parameters that choose
between uvicorn's own parsers one combination is kept: they choose nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from uvicorn.protocols.utils import ClientDisconnected

from harness import places
from harness.site import Site, free_port
from shims import bridging, serving

PORT = free_port()
_KEPT = {"ws_protocol_cls": "WebSocketsSansIOProtocol", "http_protocol_cls": "H11Protocol"}
# How long the end of a connection takes to reach its app.
_LEAVE_SECONDS_MAX = 0.5
# The least that quintet takes for the length of a message.
_MESSAGE_LEAST = 125
_current: list[tuple[dict[str, str], Site]] = []


def _settings(config: Any) -> dict[str, str]:
    """uvicorn's settings in quintet's words."""
    env = {
        "QUINTET_WORKERS_LONG_LIVED_GRACE": "0s",
        "QUINTET_WEBSOCKET_MESSAGE_MAX": str(max(config.ws_max_size, _MESSAGE_LEAST)),
        "QUINTET_WEBSOCKET_COMPRESS": str(config.ws_per_message_deflate).lower(),
    }
    if config.ws_ping_interval is not None:
        env["QUINTET_WEBSOCKET_PING_INTERVAL"] = f"{config.ws_ping_interval}s"
    if config.ws_ping_timeout is not None:
        env["QUINTET_WEBSOCKET_PING_TIMEOUT"] = f"{config.ws_ping_timeout}s"
    if config.lifespan == "on":
        env["BRIDGE_LIFESPAN"] = "1"
    if config.ssl_certfile:
        env["QUINTET_TLS_CERTIFICATE"] = str(config.ssl_certfile)
        env["QUINTET_TLS_KEY"] = str(config.ssl_keyfile or config.ssl_certfile)
    return env


class _Server:
    """What the tests may ask of the server."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def shutdown(self) -> None:
        """As an operator stops it."""
        await asyncio.to_thread(_stop)


@contextlib.asynccontextmanager
async def _run_server(config: Any, sockets: Any = None) -> AsyncIterator[_Server]:
    assert sockets is None
    async with bridging.serving(config.app, gone=ClientDisconnected) as under_way:
        env = _settings(config)
        # An app whose lifespan is looked at needs a start of its own.
        if _current and (_current[0][0] != env or config.lifespan == "on"):
            await asyncio.to_thread(_stop)
        if not _current:
            await asyncio.to_thread(_start, env)
        yield _Server(_current[0][1])
        # A site lives on for the next test, unless an app waits for its end.
        if config.lifespan == "on" or not await bridging.ended(under_way, _LEAVE_SECONDS_MAX):
            await asyncio.to_thread(_stop)


def _start(env: dict[str, str]) -> None:
    flags = ("--app", "bridge:application", "--workers", "1", "--concurrency", "16")
    binds = (f"127.0.0.1:{PORT}",)
    environment = {"BRIDGE": str(bridging.SOCKET), **env}
    site = Site(places.APPS / "bridge", flags=flags, env=environment, bind=binds)
    site.port = PORT
    site.tls = serving.unverified() if "QUINTET_TLS_CERTIFICATE" in env else None
    site.start()
    _current.append((env, site))


def _stop() -> None:
    while _current:
        _current.pop()[1].close()


def pytest_configure() -> None:
    """Before the tests import it by name."""
    import tests.utils

    tests.utils.run_server = _run_server


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One combination of uvicorn's parsers, one port."""
    sys.modules["tests.conftest"]._unused_port = lambda _kind: PORT
    dropped = []
    for item in items:
        chosen = item.callspec.params if hasattr(item, "callspec") else {}
        if any(name in chosen and not chosen[name].endswith(kept) for name, kept in _KEPT.items()):
            dropped.append(item)
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]


def pytest_sessionfinish() -> None:
    """The site ends with the run."""
    _stop()
    bridging.remove()
