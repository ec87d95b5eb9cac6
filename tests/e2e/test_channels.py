"""Django Channels, unmodified."""

from __future__ import annotations

import json
import socket
from contextlib import AbstractContextManager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from harness.site import Site, Start


@pytest.fixture
def site(start: Start) -> Site:
    """The project of tests/apps/chat: one worker, since its groups are in memory."""
    return start("chat")


def enter(site: Site, path: str, **options: Any) -> AbstractContextManager[ClientConnection]:
    """A visitor with a WebSocket."""
    plain = socket.create_connection(("127.0.0.1", site.port), 5)
    return connect(f"ws://localhost:{site.port}{path}", sock=plain, proxy=None, **options)


def hears(client: ClientConnection) -> tuple[str, Any]:
    """Who said what."""
    message = json.loads(client.recv(timeout=10))
    return message["by"], message["what"]


@pytest.mark.short
def test_a_room_with_named_visitors(site: Site) -> None:
    with site.client() as browser:
        assert browser.get("/name/django").text == "hello django"
        cookie = f"sessionid={browser.cookies['sessionid']}"
    origin = f"http://localhost:{site.port}"
    with enter(site, "/room/jazz", origin=origin, additional_headers={"Cookie": cookie}) as django:
        with (
            enter(site, "/room/jazz", origin=origin) as other,
            enter(site, "/room/silent", origin=origin) as silent,
        ):
            django.send(json.dumps("nuages"))
            assert hears(django) == hears(other) == ("django", "nuages")
            other.send(json.dumps({"long": "x" * 100_000}))
            assert hears(django) == hears(other) == ("nobody", {"long": "x" * 100_000})
            other.close(4321)
            assert hears(django) == ("nobody", "left with 4321")
            silent.send(json.dumps("anybody?"))
            assert hears(silent) == ("nobody", "anybody?")
        django.send(json.dumps("leave"))
        with pytest.raises(ConnectionClosed) as closed:
            django.recv(timeout=10)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "good bye")


def test_a_consumer_without_async(site: Site) -> None:
    with enter(site, "/echo", origin="http://localhost") as client:
        for message in ("text", b"\x00\xff", "x" * 200_000):
            client.send(message)
            assert client.recv(timeout=10) == message


def test_a_foreign_origin_is_denied(site: Site) -> None:
    with pytest.raises(InvalidStatus) as denied, enter(site, "/echo", origin="http://elsewhere.example"):
        pass
    assert denied.value.response.status_code == 403
