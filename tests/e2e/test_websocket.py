"""WebSockets from a client through the gateway to an ASGI app and back."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import ClientConnection, connect

from harness.data import Certificate
from harness.h2_socket import H2Socket
from harness.processes import wait_until
from harness.site import Site, Start

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MIB = 1 << 20


@pytest.fixture
def sockets(start: Start) -> Start:
    """`sockets(workers=2)`: the app of tests/apps/sockets."""

    def starter(**options: Any) -> Site:
        flags = tuple(options.pop("flags", ()))
        return start("sockets", flags=("--app", "sockets:application", *flags), **options)

    return starter


@pytest.fixture
def site(sockets: Start) -> Site:
    """One worker, the defaults."""
    return sockets()


def open_socket(site: Site, path: str, **options: Any) -> AbstractContextManager[ClientConnection]:
    """A client whose WebSocket is open, to be used as a context manager."""
    scheme = "wss" if site.tls else "ws"
    plain = socket.create_connection(("127.0.0.1", site.port), 5)
    return connect(f"{scheme}://localhost:{site.port}{path}", sock=plain, ssl=site.tls, proxy=None, **options)


def end_of(client: ClientConnection) -> tuple[int, str]:
    """The code and reason that the server closes with."""
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=20)
    received = closed.value.rcvd
    return (received.code, received.reason) if received else (1006, "")


def heard(site: Site, count: int = 1) -> list[list[Any]]:
    """What the apps of WebSockets were told at their end, when so many have been."""
    wait_until(lambda: len(site.get("/heard").json()) >= count, 10, f"{count} apps have heard")
    return site.get("/heard").json()


class TestMessages:
    """Both ways, of every kind."""

    @pytest.mark.short
    def test_text_and_binary_come_back(self, site: Site) -> None:
        with open_socket(site, "/echo") as client:
            for message in (
                "",
                "hello",
                "adiós \N{GRINNING FACE}",
                b"",
                b"\x00\xff",
                "x" * 300,
                os.urandom(70_000),
            ):
                client.send(message)
                assert client.recv(timeout=10) == message
        assert heard(site) == [["/echo", 1000, ""]]

    def test_fragments_become_one_message(self, site: Site) -> None:
        with open_socket(site, "/echo") as client:
            client.send(["one ", "two ", "", "three"])
            assert client.recv(timeout=10) == "one two three"
            client.send(iter([b"\x00", b"\xff" * 1000]))
            assert client.recv(timeout=10) == b"\x00" + b"\xff" * 1000

    @pytest.mark.parametrize("window", [None, 9, 12])
    def test_compression_is_agreed_and_used(self, site: Site, window: int | None) -> None:
        offer = ClientPerMessageDeflateFactory(server_max_window_bits=window)
        with open_socket(site, "/echo", compression=None, extensions=[offer]) as client:
            answer = client.response.headers["Sec-WebSocket-Extensions"]
            assert answer.startswith(
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            )
            assert (f"server_max_window_bits={window}" in answer) == bool(window)
            for message in (
                "x" * 100_000,
                json.dumps(list(range(5000))),
                os.urandom(20_000).hex() * 3,
                "small",
            ):
                client.send(message)
                assert client.recv(timeout=10) == message

    def test_compression_can_be_turned_off(self, sockets: Start) -> None:
        site = sockets(env={"QUINTET_WEBSOCKET_COMPRESS": "false"})
        with open_socket(site, "/echo") as client:
            assert "Sec-WebSocket-Extensions" not in client.response.headers
            client.send("x" * 1000)
            assert client.recv(timeout=10) == "x" * 1000

    def test_large_messages_and_a_client_that_is_slow_to_read_them(self, site: Site) -> None:
        with open_socket(site, f"/large?bytes={8 * MIB}", compression=None, max_size=None) as client:
            for _ in range(3):
                client.send("more")
            time.sleep(0.5)
            assert [len(client.recv(timeout=20)) for _ in range(3)] == [8 * MIB] * 3

    def test_a_message_beyond_the_limit_is_1009(self, sockets: Start) -> None:
        site = sockets(env={"QUINTET_WEBSOCKET_MESSAGE_MAX": "10KiB"})
        for compression in (None, "deflate"):
            with open_socket(site, "/echo", compression=compression) as client:
                client.send(b"x" * 10_240)
                assert client.recv(timeout=10) == b"x" * 10_240
                client.send(b"x" * 10_241)
                assert end_of(client) == (1009, "the message is too large")
        assert [end[1] for end in heard(site, 2)] == [1009, 1009]

    def test_a_slow_app_holds_its_client_up_and_nothing_grows(self, sockets: Start) -> None:
        site = sockets(env={"QUINTET_WEBSOCKET_PING_INTERVAL": "1s", "QUINTET_WEBSOCKET_PING_TIMEOUT": "1s"})
        message = os.urandom(500_000)
        with open_socket(site, "/slow?seconds=0.3", compression=None, max_queue=None) as client:
            started = time.monotonic()
            for _ in range(30):
                client.send(message)
            assert time.monotonic() - started > 3, "the client was not held up"
            assert all(client.recv(timeout=20) == message for _ in range(30))

    def test_many_at_once(self, site: Site) -> None:
        with ExitStack() as stack:
            clients = [stack.enter_context(open_socket(site, "/echo")) for _ in range(100)]
            for round_ in range(3):
                for number, client in enumerate(clients):
                    client.send(f"{number}/{round_}")
                assert [client.recv(timeout=10) for client in clients] == [
                    f"{n}/{round_}" for n in range(100)
                ]
            # Requests are served beside them: they hold no slot.
            assert site.get("/pid").json() == site.workers()[0]
        assert len(heard(site, 100)) == 100


class TestHandshake:
    """What is agreed, and what is refused."""

    @pytest.mark.short
    def test_the_scope_and_the_subprotocol(self, site: Site) -> None:
        with open_socket(site, "/greet?x=1", subprotocols=["a", "b"]) as client:
            assert client.subprotocol is None
            scope = json.loads(client.recv(timeout=10))["scope"]
            assert scope == {
                "http_version": "1.1",
                "scheme": "ws",
                "path": "/greet",
                "subprotocols": ["a", "b"],
                "client": "127.0.0.1",
            }
        with open_socket(site, "/chat", subprotocols=["chat.v1", "chat.v2"]) as client:
            assert client.subprotocol == "chat.v2"
            assert client.response.headers["Set-Cookie"] == "seen=1"

    def test_a_subprotocol_that_was_not_offered_is_left_out(self, site: Site) -> None:
        site.allow_log("chose a subprotocol that the client did not offer")
        with open_socket(site, "/chat", subprotocols=["chat.v1"]) as client:
            assert client.subprotocol is None
            client.send("still")
            assert client.recv(timeout=10) == "still"

    def test_denials(self, site: Site) -> None:
        with pytest.raises(InvalidStatus) as denied, open_socket(site, "/denied"):
            pass
        assert denied.value.response.status_code == 403
        with pytest.raises(InvalidStatus) as denied, open_socket(site, "/denied/with-words"):
            pass
        response = denied.value.response
        assert (response.status_code, response.headers["X-Why"]) == (401, "none")
        assert response.body == b"who are you?"

    def test_more_than_the_worker_may_hold_are_told_to_come_later(self, sockets: Start) -> None:
        site = sockets(env={"QUINTET_WORKERS_LONG_LIVED_MAX": "2"})
        with open_socket(site, "/echo") as first, open_socket(site, "/echo"):
            with pytest.raises(InvalidStatus) as refused, open_socket(site, "/echo"):
                pass
            assert refused.value.response.status_code == 503
            assert "Retry-After" in refused.value.response.headers
            first.close()
            heard(site)
            with open_socket(site, "/echo") as third:
                third.send("room again")
                assert third.recv(timeout=10) == "room again"

    def test_a_wsgi_app_sees_a_request(self, plain: Start) -> None:
        with pytest.raises(InvalidStatus) as denied, open_socket(plain(), "/hello"):
            pass
        assert (denied.value.response.status_code, denied.value.response.body) == (200, b"hello")


class TestClosing:
    """Either side, in order or not."""

    @pytest.mark.parametrize(
        ("code", "reason"), [(1000, ""), (1000, "bye"), (1001, ""), (3000, "ñ"), (4999, "x" * 123)]
    )
    def test_the_client_closes(self, site: Site, code: int, reason: str) -> None:
        with open_socket(site, "/echo") as client:
            client.close(code, reason)
            assert client.close_code == code
        assert heard(site) == [["/echo", code, reason]]

    @pytest.mark.parametrize(("code", "reason"), [(1000, ""), (4001, "enough"), (1013, "later")])
    def test_the_app_closes(self, site: Site, code: int, reason: str) -> None:
        with open_socket(site, f"/bye?code={code}&reason={reason}") as client:
            client.send("x")
            assert end_of(client) == (code, reason)

    def test_an_app_that_fails_is_1011(self, site: Site) -> None:
        site.allow_log("the app is broken")
        with open_socket(site, "/crash") as client:
            client.send("x")
            assert end_of(client)[0] == 1011

    def test_a_client_that_vanishes_is_1006(self, site: Site) -> None:
        with open_socket(site, "/echo") as client:
            client.send("x")
            assert client.recv(timeout=10) == "x"
            client.socket.shutdown(socket.SHUT_RDWR)
        assert [end[:2] for end in heard(site)] == [["/echo", 1006]]

    def test_a_client_that_breaks_the_rules_is_told(self, site: Site) -> None:
        with site.raw() as raw:
            raw.send(
                "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            head = raw.socket.recv(4096)
            assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
            raw.socket.sendall(b"\x81\x05hello")
            assert raw.socket.recv(4096)[2:4] == (1002).to_bytes(2, "big")
        assert [end[:2] for end in heard(site)] == [["/echo", 1002]]


class TestPings:
    """Who is silent is asked; who does not answer is gone."""

    def test_a_client_that_answers_stays(self, sockets: Start) -> None:
        site = sockets(
            env={"QUINTET_WEBSOCKET_PING_INTERVAL": "200ms", "QUINTET_WEBSOCKET_PING_TIMEOUT": "500ms"}
        )
        with open_socket(site, "/echo", ping_interval=None) as client:
            time.sleep(2)
            client.send("still here")
            assert client.recv(timeout=10) == "still here"
            # And ours are answered.
            assert client.ping(b"are you?").wait(5)

    def test_a_client_that_does_not_answer_is_given_up(self, sockets: Start) -> None:
        site = sockets(
            env={"QUINTET_WEBSOCKET_PING_INTERVAL": "200ms", "QUINTET_WEBSOCKET_PING_TIMEOUT": "500ms"}
        )
        with site.raw() as raw:
            raw.send(
                "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            received = raw.socket.recv(4096)
            while more := raw.socket.recv(4096):
                received += more
        assert received.endswith(b"\x89\x00\x88\x19\x03\xf3a ping was not answered")
        assert [end[:2] for end in heard(site)] == [["/echo", 1006]]


class TestHttp2:
    """In a stream of HTTP/2 over TLS (RFC 8441)."""

    @pytest.fixture
    def site(self, sockets: Start, certificate: Certificate) -> Site:
        return sockets(flags=certificate.flags, tls=certificate.trust)

    @pytest.mark.short
    def test_a_conversation(self, site: Site) -> None:
        with H2Socket(site, "/greet", ("sec-websocket-protocol", "a, b")) as client:
            assert client.headers[":status"] == "200"
            scope = json.loads(client.receive()[1])["scope"]
            assert (scope["http_version"], scope["scheme"]) == ("2", "wss")
            assert scope["subprotocols"] == ["a", "b"]
            client.send(TEXT, b"hello")
            assert client.receive() == (TEXT, b"hello")
            client.send(PING, b"are you?")
            assert client.receive() == (PONG, b"are you?")
            client.send(BINARY, b"\xfe" * 10_000)
            assert client.receive() == (BINARY, b"\xfe" * 10_000)
            client.send(CLOSE, b"\x0f\xa0bye")
            assert client.receive() == (CLOSE, b"\x0f\xa0")
            client.wait_end()
        assert heard(site) == [["/greet", 4000, "bye"]]

    def test_large_messages_and_denials(self, site: Site) -> None:
        with H2Socket(site, f"/large?bytes={2 * MIB}") as client:
            client.send(TEXT, b"x")
            opcode, payload = client.receive()
            assert (opcode, len(payload)) == (BINARY, 2 * MIB)
        with H2Socket(site, "/denied/with-words") as client:
            assert (client.headers[":status"], client.headers["x-why"]) == ("401", "none")
        # The first client went without a word.
        assert [end[:2] for end in heard(site)] == [["/large", 1006]]

    def test_over_tls_without_http2(self, site: Site) -> None:
        site.tls.set_alpn_protocols(["http/1.1"])
        with open_socket(site, "/greet") as client:
            assert json.loads(client.recv(timeout=10))["scope"]["scheme"] == "wss"


class TestLife:
    """Workers die, code is reloaded, the instance stops."""

    def test_a_worker_that_dies_is_1011_and_the_next_connection_finds_another(self, sockets: Start) -> None:
        site = sockets(workers=2)
        site.allow_log("worker")
        with ExitStack() as stack:
            clients = [stack.enter_context(open_socket(site, "/greet")) for _ in range(4)]
            pids = [json.loads(client.recv(timeout=10))["pid"] for client in clients]
            assert len(set(pids)) == 2, "they are spread over the workers"
            site.kill_worker(pids[0])
            for client, pid in zip(clients, pids, strict=True):
                if pid == pids[0]:
                    assert end_of(client) == (1011, "the app went away")
                else:
                    client.send("alive")
                    assert client.recv(timeout=10) == "alive"
        with open_socket(site, "/echo") as client:
            client.send("again")
            assert client.recv(timeout=10) == "again"

    def test_a_worker_that_dies_before_it_accepts_is_a_502(self, site: Site) -> None:
        site.allow_log("worker")
        with pytest.raises(InvalidStatus) as refused, open_socket(site, "/killed-before-accept"):
            pass
        assert refused.value.response.status_code == 502
        with open_socket(site, "/echo") as client:
            client.send("again")
            assert client.recv(timeout=10) == "again"

    def test_a_reload_gives_a_grace_and_then_says_1012(self, sockets: Start) -> None:
        site = sockets(env={"QUINTET_WORKERS_LONG_LIVED_GRACE": "2s"})
        with open_socket(site, "/greet") as client:
            old = json.loads(client.recv(timeout=10))["pid"]
            done = site.reload()
            assert done.returncode == 0, done.stdout + done.stderr
            reloaded = time.monotonic()
            client.send("still the old one")
            assert client.recv(timeout=10) == "still the old one"
            with open_socket(site, "/greet") as new:
                assert json.loads(new.recv(timeout=10))["pid"] != old
                assert end_of(client)[0] == 1012
                assert 0.5 < time.monotonic() - reloaded < 10
                new.send("stays")
                assert new.recv(timeout=10) == "stays"
        site.log.wait_for("/greet heard 1012")
        wait_until(lambda: old not in site.workers() and len(site.workers()) == 1, 15, "the old worker goes")

    def test_a_second_reload_while_the_first_ones_grace_runs(self, sockets: Start) -> None:
        site = sockets(env={"QUINTET_WORKERS_LONG_LIVED_GRACE": "4s"})
        with open_socket(site, "/greet") as first:
            first.recv(timeout=10)
            assert site.reload().returncode == 0
            with open_socket(site, "/greet") as second:
                second.recv(timeout=10)
                done = site.reload()
                assert done.returncode == 0, done.stdout + done.stderr
                with open_socket(site, "/greet") as third:
                    newest = json.loads(third.recv(timeout=10))["pid"]
                    assert end_of(first)[0] == 1012
                    assert end_of(second)[0] == 1012
                    third.send("stays")
                    assert third.recv(timeout=10) == "stays"
        wait_until(lambda: site.workers() == [newest], 20, "only the newest worker is left")

    def test_a_stop_says_1001_after_the_grace(self, sockets: Start) -> None:
        site = sockets(env={"QUINTET_WORKERS_LONG_LIVED_GRACE": "1s"})
        with open_socket(site, "/echo") as client, open_socket(site, "/echo") as silent:
            started = time.monotonic()
            site.terminate(signal.SIGTERM)
            time.sleep(0.3)
            client.send("still here")
            assert client.recv(timeout=10) == "still here"
            assert end_of(client)[0] == 1001
            assert end_of(silent)[0] == 1001
            assert 0.8 < time.monotonic() - started < 8
            site.log.wait_for("(?s)/echo heard 1001.*/echo heard 1001")
        assert site.wait_exit() == 0

    def test_a_gateway_that_dies_is_an_end_for_both_sides(self, site: Site) -> None:
        site.allow_log("gateway")
        with open_socket(site, "/echo") as client:
            client.send("x")
            assert client.recv(timeout=10) == "x"
            site.kill_gateway()
            assert end_of(client)[0] == 1006
        assert [end[:2] for end in heard(site)] == [["/echo", 1006]]

    def test_conversations_go_on_while_others_come_and_go(self, sockets: Start) -> None:
        site = sockets(workers=2)
        failures: list[str] = []
        stop = threading.Event()

        def talk() -> None:
            number = 0
            while not stop.is_set():
                with open_socket(site, "/echo") as client:
                    for _ in range(20):
                        number += 1
                        client.send(str(number) * 50)
                        if client.recv(timeout=10) != str(number) * 50:
                            failures.append(f"{number} did not come back")

        threads = [threading.Thread(target=talk) for _ in range(4)]
        for thread in threads:
            thread.start()
        with open_socket(site, "/echo") as client:
            for number in range(50):
                client.send(f"long {number}")
                assert client.recv(timeout=10) == f"long {number}"
                time.sleep(0.04)
        stop.set()
        for thread in threads:
            thread.join(20)
        assert failures == []
