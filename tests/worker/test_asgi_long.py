"""The long link of an ASGI worker: event streams that leave their slots, and WebSockets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from link import (
    CREDIT_TO_GATEWAY,
    MESSAGE_TO_GATEWAY,
    RESPONSE_BODY,
    RESPONSE_HEAD,
    WINDOW_BYTES,
    LongStream,
    Response,
    Worker,
    encode_request,
)
from workers import Serve, eventually

EVENTS = """
    import asyncio, pathlib
    def note(what): print(what, file=open("noted", "a"), flush=True)
    async def app(scope, receive, send):
        path = scope["path"]
        if path == "/plain":
            await send({"type": "http.response.start", "status": 200})
            return await send({"type": "http.response.body", "body": b"plain"})
        headers = [(b"content-type", b"Text/Event-Stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if path == "/large":
            await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})
            note("large sent")
            return await send({"type": "http.response.body", "body": b"end"})
        if path == "/fails": raise ValueError("in the middle")
        if path == "/waits":
            await receive()
            note((await receive())["type"])
            return
        try:
            for number in range(10 if path == "/ten" else 100000):
                await send({"type": "http.response.body", "body": f"data: {number}\\n\\n".encode(), "more_body": True})
                await asyncio.sleep(0.002)
        except OSError as error:
            note(type(error).__name__)
            raise
        await send({"type": "http.response.body"})
"""


def noted(directory: Path) -> str:
    path = directory / "noted"
    return path.read_text() if path.exists() else ""


def detached(worker: Worker, target: str, **request: Any) -> tuple[Response, LongStream]:
    """An event stream that has left its slot: its head, and the rest of it."""
    response = worker.slot.get(target, **request)
    assert response.detached is not None
    assert response.detached >= 1 << 15
    return response, LongStream(worker.link, response.detached)


@pytest.mark.every_python
def test_an_event_stream_leaves_its_slot(serve_asgi: Serve) -> None:
    worker = serve_asgi(EVENTS)
    response, stream = detached(worker, "/ten")
    assert (response.status, response.body) == (200, b"")
    assert response.header("content-type") == "Text/Event-Stream; charset=utf-8"
    # The slot is free while the stream goes on.
    assert worker.slot.get("/plain").body == b"plain"
    whole = stream.response(response)
    assert whole.body == b"".join(b"data: %d\n\n" % number for number in range(10))
    assert not whole.aborted
    # Numbers are given in turn.
    again, stream = detached(worker, "/ten")
    assert again.detached == (response.detached or 0) + 1
    assert stream.response(again).body == whole.body
    assert worker.stderr() == ""


def test_event_streams_stay_where_they_are_when_the_link_is_full(serve_asgi: Serve) -> None:
    worker = serve_asgi(EVENTS, concurrency=2, long_lived_max=1)
    # The gateway refuses the second; there is room for what it has not heard of yet, one for each slot.
    stream = [detached(worker, "/waits")[1] for _ in range(1 + 2)][-1]
    response = worker.slots[1].get("/ten")
    assert (response.detached, response.body.count(b"data: ")) == (None, 10)
    stream.cancel()
    assert stream.next(RESPONSE_BODY).flags
    _, stream = detached(worker, "/waits")
    # Neither does one whose request is still being sent.
    worker.slots[1].send(target="/ten", method="POST", stream=True)
    response = worker.slots[1].response()
    assert response.detached is None
    worker.slots[1].send_body(b"", end=True)


@pytest.mark.every_python
def test_an_event_stream_waits_for_its_reader(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(EVENTS)
    response, stream = detached(worker, "/large")
    got = 0
    while got < WINDOW_BYTES:
        frame = stream.next(RESPONSE_BODY)
        assert 0 < len(frame.payload) <= 64 << 10
        got += len(frame.payload)
    assert got == WINDOW_BYTES
    # It has no more credit; others do.
    head, other = detached(worker, "/ten")
    assert other.response(head).body.count(b"data: ") == 10
    assert noted(tmp_path) == ""
    stream.credit(10)
    assert len(stream.next(RESPONSE_BODY).payload) == 10
    stream.credit(2_000_000)
    whole = stream.response(response)
    assert len(whole.body) == 1_000_000 - got - 10 + 3
    assert whole.body.endswith(b"end")


@pytest.mark.parametrize("path", ["/endless", "/waits", "/large"])
def test_a_client_of_an_event_stream_goes_away(serve_asgi: Serve, tmp_path: Path, path: str) -> None:
    worker = serve_asgi(EVENTS)
    _, stream = detached(worker, path)
    time.sleep(0.02)
    stream.cancel()
    while not (frame := stream.frame()).flags:
        assert frame.kind == RESPONSE_BODY
    assert frame.flags == 2
    wanted = {"/endless": "ConnectionResetError\n", "/waits": "http.disconnect\n", "/large": "large sent\n"}
    eventually(lambda: noted(tmp_path) == wanted[path])
    # What crosses the end is ignored.
    stream.credit(5)
    stream.cancel()
    assert worker.slot.get("/plain").body == b"plain"
    assert worker.stderr() == ""


def test_an_event_stream_that_fails_is_cut_off(serve_asgi: Serve) -> None:
    worker = serve_asgi(EVENTS)
    response, stream = detached(worker, "/fails")
    assert stream.response(response).aborted
    assert worker.stderr().count("ValueError: in the middle") == 1


CHAT = """
    import asyncio, pathlib
    def note(what): print(what, file=open("noted", "a"), flush=True)
    async def app(scope, receive, send):
        path = scope["path"]
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200})
            return await send({"type": "http.response.body", "body": b"plain"})
        assert scope["type"] == "websocket"
        assert (await receive()) == {"type": "websocket.connect"}
        if path == "/refuse": return await send({"type": "websocket.close"})
        if path == "/deny":
            await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"because")]})
            await send({"type": "websocket.http.response.body", "body": b"not ", "more_body": True})
            await send({"type": "websocket.http.response.body", "body": b"you"})
            note((await receive())["type"])
            return
        if path == "/raise": raise ValueError("before")
        if path == "/nothing": return
        if path == "/wrong":
            return await send({"type": "websocket.send", "text": "early"})
        accept = {"type": "websocket.accept", "headers": [(b"x-own", b"1")]}
        if scope["subprotocols"]: accept["subprotocol"] = scope["subprotocols"][-1]
        await send(accept)
        if path == "/scope":
            return await send({"type": "websocket.send", "text": repr({k: v for k, v in scope.items() if k != "state"})})
        if path == "/raise-open": raise ValueError("after")
        if path == "/return": return
        if path == "/close":
            await send({"type": "websocket.close", "code": 4000, "reason": "x" * 200})
            note(str(await receive()))
            return await send({"type": "websocket.send", "text": "late"})
        if path == "/large":
            await send({"type": "websocket.send", "bytes": bytes(1_000_000)})
            note("large sent")
        if path == "/sends":
            try:
                while True:
                    await send({"type": "websocket.send", "text": "tick"})
                    await asyncio.sleep(0.005)
            except OSError as error:
                note(type(error).__name__)
                raise
        if path == "/deaf":
            while not pathlib.Path("go").exists(): await asyncio.sleep(0.005)
        if path == "/both":
            async def tick(name):
                for number in range(50): await send({"type": "websocket.send", "bytes": name * 100_000})
            return await asyncio.gather(tick(b"a"), tick(b"b"))
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                note(f"{message['code']} {message['reason']!r}")
                if path == "/after": await send({"type": "websocket.send", "text": "dropped"})
                return
            assert set(message) in ({"type", "text"}, {"type", "bytes"})
            await send({**message, "type": "websocket.send"})
"""


def accepted(worker: Worker, target: str = "/", **request: Any) -> LongStream:
    """A WebSocket that the app has accepted."""
    stream = worker.link.websocket(target, **request)
    head = stream.head()
    assert (head.status, head.header("x-own")) == (101, "1")
    return stream


@pytest.mark.every_python
def test_messages_both_ways(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(CHAT)
    stream = accepted(worker)
    for message in ["hello", "", b"", b"\x00\xff", "é\N{SNOWMAN}", "x" * 200_000, bytes(300_000)]:
        stream.credit(WINDOW_BYTES)
        stream.send_message(message)
        assert stream.message() == message
    stream.close(4001, "adi\u00f3s")
    assert stream.closed()[0] == 1000
    assert noted(tmp_path) == "4001 'adi\u00f3s'\n"
    assert worker.stderr() == ""


def test_the_scope_of_a_websocket(serve_asgi: Serve) -> None:
    worker = serve_asgi(CHAT)
    headers = [("host", "h"), ("sec-websocket-protocol", "chat.v1, chat.v2"), ("sec-websocket-protocol", "x")]
    stream = worker.link.websocket("/scope?q=1", headers=headers, scheme="https", tls=(0x304, 0x1301))
    head = stream.head()
    assert head.headers == [("x-own", "1"), ("sec-websocket-protocol", "x")]
    scope = eval(stream.message())
    assert (scope["type"], scope["scheme"], scope["subprotocols"]) == (
        "websocket",
        "wss",
        ["chat.v1", "chat.v2", "x"],
    )
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/scope", b"/scope", b"q=1")
    assert "method" not in scope
    assert set(scope["extensions"]) == {"websocket.http.response", "tls"}
    assert stream.closed() == (1000, "")


def test_subprotocols_reach_the_app_whatever_else_clients_send(serve_asgi: Serve) -> None:
    worker = serve_asgi(CHAT)
    # More names than a worker remembers.
    for number in range(10):
        worker.slot.exchange(target="/", headers=[(f"x-{number}-{more}", "") for more in range(30)])
    stream = worker.link.websocket("/", headers=[("sec-websocket-protocol", "chat")])
    assert ("sec-websocket-protocol", "chat") in stream.head().headers
    stream.close()
    assert stream.closed() == (1000, "")


def test_handshakes_that_are_refused(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(CHAT)
    assert worker.link.websocket("/refuse").closed() == (1000, "")
    response = worker.link.websocket("/deny").response()
    assert (response.status, response.header("x-why"), response.body) == (401, "because", b"not you")
    eventually(lambda: noted(tmp_path) == "websocket.disconnect\n")
    assert worker.stderr() == ""
    response = worker.link.websocket("/raise", request_id="the-id").response()
    assert (response.status, b"the-id" in response.body) == (500, True)
    assert worker.stderr().count("ValueError: before") == 1
    assert worker.link.websocket("/nothing").response().status == 500
    assert "ASGI callable returned without sending handshake." in worker.stderr()
    assert worker.link.websocket("/wrong").response().status == 500
    assert (
        "Expected ASGI message 'websocket.accept', 'websocket.close', or 'websocket.http.response.start' "
        "but got 'websocket.send'."
    ) in worker.stderr()


def test_how_the_app_ends_it(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(CHAT)
    assert accepted(worker, "/return").closed() == (1000, "")
    assert worker.stderr() == ""
    assert accepted(worker, "/raise-open").closed() == (1011, "")
    assert worker.stderr().count("ValueError: after") == 1
    assert accepted(worker, "/close").closed() == (4000, "x" * 123)
    eventually(lambda: "after sending 'websocket.close'" in worker.stderr())
    assert noted(tmp_path).startswith("{'type': 'websocket.disconnect', 'code': 4000")


@pytest.mark.parametrize("how", ["cancel", "close", "no code"])
def test_how_the_client_ends_it(serve_asgi: Serve, tmp_path: Path, how: str) -> None:
    worker = serve_asgi(CHAT)
    for path in ["/", "/after"]:
        stream = accepted(worker, path)
        stream.send_message("last words")
        if how == "cancel":
            stream.cancel()
        else:
            stream.close(*((3000, "bye") if how == "close" else (1005, "")))
        frame = stream.frame()
        if frame.kind == MESSAGE_TO_GATEWAY:
            frame = stream.frame()
        assert frame.flags == 1
    wanted = {"cancel": "1006 ''\n", "close": "3000 'bye'\n", "no code": "1005 ''\n"}[how]
    assert noted(tmp_path) == wanted * 2
    assert worker.stderr() == ""


def test_who_only_sends_learns_that_nobody_listens(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(CHAT)
    stream = accepted(worker, "/sends")
    assert stream.message() == "tick"
    stream.cancel()
    eventually(lambda: noted(tmp_path) == "ConnectionResetError\n")
    assert worker.stderr() == ""


def test_a_message_waits_for_credit(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(CHAT)
    stream = accepted(worker, "/large")
    got = 0
    while got < WINDOW_BYTES:
        got += len(stream.next(MESSAGE_TO_GATEWAY).payload)
    assert got == WINDOW_BYTES
    other = accepted(worker)
    other.send_message("meanwhile")
    assert other.message() == "meanwhile"
    assert noted(tmp_path) == ""
    stream.credit(1_000_000)
    assert len(stream.message()) == 1_000_001 - got - 1
    eventually(lambda: noted(tmp_path) == "large sent\n")


def test_a_deaf_app_stops_its_client_only(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(CHAT)
    stream = accepted(worker, "/deaf")
    for _ in range(3):
        stream.send_message("x" * (64 * 1024 - 1))
    other = accepted(worker)
    other.send_message("fine")
    assert other.message() == "fine"
    assert not worker.link.waiting.get(stream.number)
    (tmp_path / "go").touch()
    credited = stream.credited()
    assert credited == 64 * 1024
    for _ in range(3):
        assert len(stream.message()) == 64 * 1024 - 1


def test_messages_that_are_too_long(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(CHAT, message_max=100_000)
    stream = accepted(worker)
    stream.send_message("x" * 100_000)
    assert stream.message() == "x" * 100_000
    for message in ["x" * 100_001, bytes(500_000)]:
        stream = accepted(worker)
        stream.send_message(message)
        frame = stream.frame()
        while frame.kind == CREDIT_TO_GATEWAY:
            frame = stream.frame()
        assert int.from_bytes(frame.payload[:2], "little") == 1009
    eventually(lambda: noted(tmp_path).count("1009 'the message is too long'") == 2)
    assert worker.stderr() == ""


def test_two_tasks_may_send(serve_asgi: Serve) -> None:
    worker = serve_asgi(CHAT)
    stream = accepted(worker, "/both")
    stream.credit(20_000_000)
    messages = [stream.message() for _ in range(100)]
    assert sorted(messages) == [b"a" * 100_000] * 50 + [b"b" * 100_000] * 50
    assert stream.closed() == (1000, "")


def test_many_at_a_time(serve_asgi: Serve) -> None:
    worker = serve_asgi(CHAT, long_lived_max=500)
    streams = [accepted(worker) for _ in range(300)]
    for stream in streams:
        stream.send_message(f"{stream.number}")
    assert worker.slot.get("/").body == b"plain"
    for stream in reversed(streams):
        assert stream.message() == f"{stream.number}"
    for stream in streams:
        stream.close()
    for stream in streams:
        assert stream.closed() == (1000, "")


@pytest.mark.every_python
def test_a_retired_worker_stays_until_its_streams_are_over(serve_asgi: Serve) -> None:
    worker = serve_asgi(CHAT)
    stream = accepted(worker)
    worker.slot.retire()
    worker.link.retire()
    assert worker.slot.is_closed()
    stream.send_message("still here")
    assert stream.message() == "still here"
    stream.close(1012)
    assert stream.closed() == (1000, "")
    assert worker.link.is_closed()
    assert worker.wait() == 0
    assert worker.stderr() == ""


@pytest.mark.every_python
def test_a_worker_that_stops_closes_its_websockets(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(CHAT)
    open_one = accepted(worker)
    connecting = worker.link.websocket("/deaf")
    connecting.head()
    (tmp_path / "go").touch()
    worker.tell({"type": "exit"})
    assert open_one.closed() == (1012, "")
    assert connecting.closed() == (1012, "")
    assert worker.link.is_closed()
    assert worker.wait() == 0
    assert noted(tmp_path) == "1012 ''\n1012 ''\n"
    assert worker.stderr() == ""


def test_a_worker_that_stops_ends_its_event_streams(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(EVENTS, concurrency=2, long_lived_max=1)
    streams = [detached(worker, "/endless") for _ in range(1 + 2)]
    # The link is full.
    worker.slots[1].send(target="/endless")
    assert worker.slots[1].frame().kind == RESPONSE_HEAD
    worker.tell({"type": "exit"})
    for response, stream in streams:
        assert stream.response(response).aborted
    frame = worker.slots[1].frame()
    while not frame.flags:
        frame = worker.slots[1].frame()
    assert worker.wait() == 0
    assert noted(tmp_path) == "ConnectionResetError\n" * 4
    assert worker.stderr() == ""


def test_a_gateway_that_dies_takes_its_websockets_along(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(CHAT)
    accepted(worker)
    for slot in [*worker.slots, worker.link]:
        slot.close()
    worker.slots = []
    worker.meet()
    eventually(lambda: noted(tmp_path) == "1006 ''\n")
    stream = accepted(worker)
    stream.send_message("again")
    assert stream.message() == "again"
    assert worker.stderr() == ""


@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param((8, b"\x09what"), id="type of a message"),
        pytest.param((8, b""), id="message without a type"),
        pytest.param((8, b"\x01\xff"), id="text"),
        pytest.param((7, b"\x01"), id="credit"),
        pytest.param((9, b"\x01"), id="close"),
        pytest.param((1, b"abc"), id="request"),
        pytest.param((2, b"abc"), id="piece of a request body"),
        pytest.param((RESPONSE_HEAD, b""), id="direction"),
    ],
)
def test_nonsense_costs_the_link(serve_asgi: Serve, nonsense: tuple[int, bytes]) -> None:
    worker = serve_asgi(CHAT)
    stream = accepted(worker)
    stream.send_frame(nonsense[0], nonsense[1], 1)
    assert worker.link.is_closed()
    worker.link.close()
    link = worker.gateway.accept().welcome()
    assert link.hello["channel"] == "long"
    assert worker.slot.get("/").body == b"plain"
    worker.long = None
    link.close()


def test_only_handshakes_begin_on_the_link(serve_asgi: Serve) -> None:
    worker = serve_asgi(CHAT)
    worker.link.stream.sendall(encode_request(number=1))
    assert worker.link.is_closed()
    assert worker.slot.get("/").body == b"plain"
