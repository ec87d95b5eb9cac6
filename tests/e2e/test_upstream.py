"""Upstreams: requests that other servers answer, through real processes on both sides."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from harness import places
from harness.data import Certificate
from harness.h2_socket import H2Socket
from harness.load import Load
from harness.site import Site, Start

TEXT = 1
MIB = 1 << 20
# Nothing that a server of a story says takes longer.
SECONDS_MAX = 15


def front(start: Start, directory: Path, servers: list[str], more: str = "", **options: Any) -> Site:
    """A site whose /api/ is on these servers, with and without buffering; the rest is the plain app's."""
    shutil.copy(places.APPS / "plain" / "plain.py", directory / "plain.py")
    (directory / "quintet.toml").write_text(
        f"""
[[upstream]]
name = "api"
servers = {json.dumps(servers)}
{more}

[[upstream]]
name = "streamed"
servers = {json.dumps(servers)}
buffer = false
{more}

[[route]]
path = "/api/*"
strip_prefix = "/api"
upstream = "api"
response_headers = ["X-Route: api"]

[[route]]
path = "/streamed/*"
strip_prefix = "/streamed"
upstream = "streamed"
body_max = "64MiB"
"""
    )
    return start(directory, flags=("--app", "plain:application", *options.pop("flags", ())), **options)


def address(site: Site) -> str:
    """As it is written in `servers`."""
    return f"127.0.0.1:{site.port}"


@pytest.fixture
def back(plain: Start) -> Site:
    """The plain app on another server, which believes what the front says of its clients."""
    return plain(env={"QUINTET_PROXY_TRUSTED": "127.0.0.1"})


@pytest.fixture
def site(start: Start, back: Site, tmp_path: Path) -> Site:
    """In front of it."""
    return front(start, tmp_path, [address(back)])


@contextmanager
def scripted(answer: bytes, *, hold: float = 0.0) -> Iterator[tuple[str, list[bytes]]]:
    """A server that hears one head and says this, for each connection; its address, and what it heard."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(SECONDS_MAX)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(SECONDS_MAX)
                request = b""
                while b"\r\n\r\n" not in request and (piece := connection.recv(65536)):
                    request += piece
                heard.append(request)
                connection.sendall(answer)
                time.sleep(hold)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", heard
    finally:
        # A thread that waits in accept() is not woken by close().
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(SECONDS_MAX)


@pytest.mark.short
def test_requests_go_there_and_back(site: Site, back: Site) -> None:
    assert site.get("/hello").text == "hello", "what no route takes stays here"
    pid = int(site.get("/api/pid").text)
    assert pid in back.workers()
    assert pid not in site.workers()
    lies = {
        "Host": "shop.test",
        "X-Forwarded-For": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
        "X-Real-IP": "6.6.6.6",
    }
    seen = site.get("/api/environ?a=b%20c", headers=lies)
    assert seen.headers["x-route"] == "api"
    assert seen.headers["x-request-id"]
    environ = seen.json()
    assert environ["PATH_INFO"] == "/environ"
    assert environ["QUERY_STRING"] == "a=b%20c"
    assert environ["HTTP_HOST"] == "shop.test"
    assert environ["REMOTE_ADDR"] == environ["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
    assert environ["HTTP_FORWARDED"] == 'for=127.0.0.1;proto=http;host="shop.test"'
    assert "HTTP_X_REAL_IP" not in environ
    assert environ["HTTP_X_REQUEST_ID"] == seen.headers["x-request-id"]
    for line in ("204 No Content", "304 Not Modified", "404 Not Found", "503 Gone for Lunch"):
        answer = site.get("/api/status", params={"line": line})
        assert f"{answer.status_code} {answer.reason_phrase}" == line
    assert site.fetch("HEAD", "/api/hello").headers["content-length"] == "5"
    metrics = site.metrics()
    assert metrics['quintet_upstream_requests_total{upstream="api"}'] == 7
    assert metrics['quintet_upstream_failures_total{upstream="api"}'] == 0
    assert metrics['quintet_upstream_connections_total{upstream="api"}'] <= 2, "connections are kept"


@pytest.mark.parametrize("way", ["api", "streamed"])
def test_bodies_of_any_size_both_ways(site: Site, way: str) -> None:
    for size in (0, 1, 70_000, 8 * MIB):
        body = os.urandom(size)
        digest = hashlib.sha256(body).digest()
        assert hashlib.sha256(site.post(f"/{way}/echo", content=body).content).digest() == digest, size
        pieces = (body[at : at + 100_000] for at in range(0, size, 100_000))
        chunked = site.post(f"/{way}/echo", content=pieces)
        assert hashlib.sha256(chunked.content).digest() == digest, f"{size} in chunks"


def test_bodies_are_bounded(start: Start, back: Site, tmp_path: Path) -> None:
    site = front(start, tmp_path, [address(back)], env={"QUINTET_LIMITS_BODY_MAX": "1MiB"})
    body = bytes(2 * MIB)
    assert site.post("/api/length", content=body).status_code == 413
    longer = site.post("/streamed/length", content=body).text
    assert longer == f"{2 * MIB} of {2 * MIB}", "the route allows more"


def test_an_answercomes_as_it_is_made(site: Site) -> None:
    for way in ("api", "streamed"):
        with site.client() as client, client.stream("GET", f"/{way}/stream?lines=3&pause=0.5") as answer:
            times = [time.monotonic() for _ in answer.iter_raw()]
        assert len(times) >= 3
        assert times[-1] - times[0] > 0.8, times


def test_what_could_be_read_in_two_ways_goes_no_further(start: Start, tmp_path: Path) -> None:
    lie = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with scripted(lie) as (place, heard):
        site = front(start, tmp_path, [place])
        site.allow_log("both Content-Length and Transfer-Encoding are there")
        answer = site.get("/api/page", headers={"Accept": "text/html"})
        assert answer.status_code == 502
        assert "did not answer" in answer.text
        assert len(heard) == 1, "it is not asked again"
        both = b"POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        with site.raw() as raw:
            assert raw.request(both.decode()).answer().status == 400
        assert len(heard) == 1


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_tls_in_either_protocol(
    start: Start, plain: Start, tmp_path: Path, certificate: Certificate, protocol: str
) -> None:
    back = plain(flags=certificate.flags, tls=certificate.trust)
    more = f'protocol = "{protocol}"\ntls_ca = "{certificate.ca}"'
    site = front(start, tmp_path, [f"https://localhost:{back.port}"], more)
    environ = site.get("/api/environ").json()
    assert environ["SERVER_PROTOCOL"] == {"h2": "HTTP/2.0", "http/1.1": "HTTP/1.1"}[protocol]
    body = os.urandom(3 * MIB)
    for way in ("api", "streamed"):
        assert site.post(f"/{way}/echo", content=body).content == body
        pieces = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
        assert site.post(f"/{way}/echo", content=pieces).content == body
        assert site.get(f"/{way}/stream?lines=3").text == "line 0\nline 1\nline 2\n"
        assert len(site.get(f"/{way}/big?size=5000000").content) == 5_000_000
    assert site.fetch("HEAD", "/api/hello").headers["content-length"] == "5"
    back.stop()
    site.allow_log("could not connect|closed the connection without an answer")
    assert site.get("/api/hello").status_code == 502


def test_a_server_that_is_not_believed(
    start: Start, plain: Start, tmp_path: Path, certificate: Certificate
) -> None:
    back = plain(flags=certificate.flags, tls=certificate.trust)
    site = front(start, tmp_path, [f"https://localhost:{back.port}"])
    site.allow_log("could not connect: invalid peer certificate")
    back.allow_log("handshake")
    assert site.get("/api/hello").status_code == 502


def test_a_server_that_is_silent_is_given_up(start: Start, tmp_path: Path) -> None:
    with scripted(b"", hold=1.5) as (place, _heard):
        site = front(start, tmp_path, [place], more='response_timeout = "500ms"')
        site.allow_log("the server did not answer within `response_timeout`")
        assert site.get("/api/").status_code == 504


def test_a_server_that_is_away(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        place = f"127.0.0.1:{nobody.getsockname()[1]}"
    site = front(start, tmp_path, [place])
    site.allow_log("could not connect")
    answer = site.post("/api/", content=b"body")
    assert answer.status_code == 502
    assert site.get("/hello").text == "hello"


def test_one_of_two_is_restarted_under_load(start: Start, plain: Start, tmp_path: Path) -> None:
    backs = [plain(workers=2), plain(workers=2)]
    site = front(start, tmp_path, [address(back) for back in backs])
    # Requests that found it going were answered by the other.
    site.allow_log("trying another server")
    site.allow_log("has failed too often and rests")
    with Load(site, "/api/hello", "/api/pid", clients=6) as load:
        load.wait_for(200)
        backs[0].stop()
        load.wait_for(200)
        backs[0].start()
        load.wait_for(200)
    assert load.failures == []
    assert set(load.statuses) == {200}


@pytest.fixture
def socket_site(start: Start, tmp_path: Path) -> Site:
    """In front of the app of tests/apps/sockets."""
    back = start("sockets", flags=("--app", "sockets:application"))
    return front(start, tmp_path, [address(back)])


def test_websockets_go_through(socket_site: Site) -> None:
    url = f"ws://127.0.0.1:{socket_site.port}/api"
    with connect(f"{url}/echo", proxy=None, compression="deflate") as client:
        assert client.response.headers["x-route"] == "api"
        for message in ("hello", "", b"\x00\xff", "x" * 70_000, os.urandom(300_000)):
            client.send(message)
            assert client.recv(timeout=SECONDS_MAX) == message
    with connect(f"{url}/chat", proxy=None, subprotocols=["chat.v1", "chat.v2"]) as client:
        assert client.subprotocol == "chat.v2"
        assert client.response.headers["set-cookie"] == "seen=1"
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{url}/denied/with-words", proxy=None)
    assert refused.value.response.status_code == 401
    assert refused.value.response.body == b"who are you?"


def test_a_websocket_ends_with_its_server(start: Start, tmp_path: Path) -> None:
    back = start("sockets", flags=("--app", "sockets:application"))
    site = front(start, tmp_path, [address(back)])
    with connect(f"ws://127.0.0.1:{site.port}/api/echo", proxy=None) as client:
        client.send("hello")
        assert client.recv(timeout=SECONDS_MAX) == "hello"
        stopping = threading.Thread(target=back.stop)
        stopping.start()
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=40)
        stopping.join(40)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001, "the server says so itself"


def test_a_websocket_over_http2(start: Start, tmp_path: Path, certificate: Certificate) -> None:
    back = start("sockets", flags=("--app", "sockets:application"))
    site = front(start, tmp_path, [address(back)], flags=certificate.flags, tls=certificate.trust)
    with H2Socket(site, "/api/echo") as client:
        assert client.headers[":status"] == "200"
        client.send(TEXT, b"hello")
        assert client.receive() == (TEXT, b"hello")
