"""Daphne's tests start a server process around an app of the test; here it is quintet, and the app is called over the bridge."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import daphne.testing
import hypothesis

from harness import places
from shims import bridging, serving

# The least that quintet takes for the length of a message.
_MESSAGE_LEAST = 125


def _settings(instance: Any) -> dict[str, str]:
    """Daphne's settings in quintet's words."""
    env = {}
    if instance.xff:
        env["QUINTET_PROXY_TRUSTED"] = "127.0.0.0/8"
    if instance.http_timeout:
        env["QUINTET_TIMEOUTS_APP"] = f"{instance.http_timeout}s"
    if instance.websocket_max_message_size is not None:
        env["QUINTET_WEBSOCKET_MESSAGE_MAX"] = str(max(instance.websocket_max_message_size, _MESSAGE_LEAST))
    return env


def _enter(self: Any) -> Any:
    # The instance with an app of its own for every start forgets what the last one has seen.
    if isinstance(self, daphne.testing.DaphneTestingInstance):
        daphne.testing.TestApplication.delete_setup()
        daphne.testing.TestApplication.delete_result()
    self.stack = contextlib.ExitStack()

    async def fresh(scope: Any, receive: Any, send: Any) -> None:
        # Daphne's app remembers what it has received: one for each exchange.
        app = self.get_application()
        if isinstance(app, daphne.testing.TestApplication):
            app = daphne.testing.TestApplication(lock=self.lock)
        left = False

        async def receive_once_more() -> Any:
            # Their app receives for ever; Daphne cancels it some seconds after the client has left.
            nonlocal left
            if left:
                raise asyncio.CancelledError
            message = await receive()
            left = message["type"].endswith(".disconnect")
            return message

        with contextlib.suppress(asyncio.CancelledError):
            await app(scope, receive_once_more, send)

    self.stack.enter_context(bridging.serving_in_a_thread(fresh))
    flags = ("--app", "bridge:application", "--workers", "1", "--concurrency", "16")
    env = {"BRIDGE": str(bridging.SOCKET), **_settings(self)}
    self.port = serving.site(places.APPS / "bridge", *flags, env=env).port
    return self


def _exit(self: Any, *_error: Any) -> None:
    self.stack.close()


def pytest_configure() -> None:
    """Before the tests import them by name. What fails is a known deviation, whose least example nobody needs."""
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("contract", phases=phases, database=None)
    hypothesis.settings.load_profile("contract")
    daphne.testing.BaseDaphneTestingInstance.__enter__ = _enter
    daphne.testing.DaphneTestingInstance.__enter__ = _enter
    daphne.testing.BaseDaphneTestingInstance.__exit__ = _exit


def pytest_sessionfinish() -> None:
    """The sites end with the run."""
    serving.stop_all()
    bridging.remove()
