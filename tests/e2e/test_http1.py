"""HTTP/1.1 by hand: what must be understood, and what must be refused because two readers would differ on it."""

from __future__ import annotations

import json

import pytest

from harness.raw import Closed
from harness.site import Site, Start

pytestmark = pytest.mark.any_python


@pytest.fixture
def site(plain: Start) -> Site:
    return plain(workers=1)


class TestUnderstood:
    """The standard's ways."""

    def test_pipelined_requests_are_answered_in_order(self, site: Site) -> None:
        with site.raw() as client:
            client.send(
                "GET /sleep?seconds=0.2&say=first HTTP/1.1\r\nHost: a\r\n\r\n"
                "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nsecond"
                "GET /sleep?seconds=0&say=third HTTP/1.1\r\nHost: a\r\n\r\n"
            )
            assert [client.answer().text for _ in range(3)] == ["first", "second", "third"]

    def test_keep_alive_and_close(self, site: Site) -> None:
        with site.raw() as client:
            assert client.request("GET /hello").answer().text == "hello"
            answer = client.request("GET /hello", "Connection: close").answer()
            assert answer.get("connection").lower() == "close"
            assert client.is_closed()

    def test_http_1_0_closes_unless_it_asks_to_stay(self, site: Site) -> None:
        with site.raw() as client:
            answer = client.send("GET /stream HTTP/1.0\r\n\r\n").answer()
            assert answer.get("transfer-encoding") is None
            assert answer.body.endswith(b"line 4\n")
        with site.raw() as client:
            client.send("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert client.answer().get("connection").lower() == "keep-alive"
            assert client.send("GET /hello HTTP/1.0\r\n\r\n").answer().text == "hello"
            assert client.is_closed()

    def test_chunked_request_with_extensions_and_trailers(self, site: Site) -> None:
        with site.raw() as client:
            client.request("POST /echo", "Transfer-Encoding: chunked", "Trailer: X-Sum")
            client.send("5;name=value\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-Sum: 11\r\n\r\n")
            assert client.answer().text == "hello world"
            assert client.request("GET /hello").answer().text == "hello"

    def test_chunked_response(self, site: Site) -> None:
        with site.raw() as client:
            answer = client.request("GET /stream?lines=3").answer()
            assert answer.get("transfer-encoding") == "chunked"
            assert answer.text == "line 0\nline 1\nline 2\n"

    def test_streamed_lines_arrive_one_by_one(self, site: Site) -> None:
        with site.raw() as client:
            client.request("GET /stream?lines=3&pause=0.4")
            client.head()
            assert client.exactly(int(client.line(), 16)) == b"line 0\n"
            assert client.line() == b""
            assert client.is_silent(0.1)

    def test_expect_100_continue(self, site: Site) -> None:
        with site.raw() as client:
            client.request("POST /echo", "Content-Length: 4", "Expect: 100-continue")
            assert client.answer().status == 100
            assert client.send(b"body").answer().text == "body"

    def test_head_has_no_body(self, site: Site) -> None:
        with site.raw() as client:
            assert client.request("HEAD /hello").answer(head_only=True).get("content-length") == "5"
            assert client.request("GET /hello").answer().text == "hello"

    def test_204_and_304_have_no_body(self, site: Site) -> None:
        with site.raw() as client:
            for line in ("204%20No%20Content", "304%20Not%20Modified"):
                answer = client.request(f"GET /status?line={line}").answer()
                assert answer.get("transfer-encoding") is None
            assert client.request("GET /hello").answer().text == "hello"

    def test_absolute_form_names_the_host(self, site: Site) -> None:
        with site.raw() as client:
            client.request("GET http://shop.example/environ?x=1", host="other.example")
            environ = json.loads(client.answer().text)
            assert environ["HTTP_HOST"] == "shop.example"
            assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/environ", "x=1")

    def test_a_path_is_decoded_once(self, site: Site) -> None:
        with site.raw() as client:
            environ = json.loads(client.request("GET /environ/caf%C3%A9/a%252Fb").answer().text)
            # PEP 3333: bytes as Latin-1 characters.
            assert environ["PATH_INFO"].encode("latin-1").decode() == "/environ/café/a%2Fb"

    def test_repeated_fields_are_joined_and_names_with_underscores_dropped(self, site: Site) -> None:
        with site.raw() as client:
            client.request(
                "GET /environ", "X-Tag: a", "X-Tag: b", "X_Tag: forged", "Cookie: a=1", "Cookie: b=2"
            )
            environ = json.loads(client.answer().text)
            assert environ["HTTP_X_TAG"] in {"a, b", "a,b"}
            assert environ["HTTP_COOKIE"] == "a=1; b=2"


GET = "GET /hello HTTP/1.1\r\nHost: a\r\n"
POST = "POST /echo HTTP/1.1\r\nHost: a\r\n"
REFUSED = {
    "length and chunked": POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a list of lengths": POST + "Content-Length: 5, 6\r\n\r\nhello",
    "a negative length": POST + "Content-Length: -1\r\n\r\n",
    "a length with a sign": POST + "Content-Length: +5\r\n\r\nhello",
    "a hexadecimal length": POST + "Content-Length: 0x5\r\n\r\nhello",
    "a length beyond all numbers": POST + f"Content-Length: {'9' * 30}\r\n\r\n",
    "a coding besides chunked": POST + "Transfer-Encoding: gzip\r\n\r\n",
    "chunked twice": POST + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": POST + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked in disguise": POST + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": "POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + "Content-Length : 5\r\n\r\nhello",
    "folded lines": GET + "X-Long: one\r\n two\r\n\r\n",
    "a bare line feed": "GET /hello HTTP/1.1\nHost: a\n\n",
    "a bare carriage return": GET + "X-A: b\rX-C: d\r\n\r\n",
    "NUL in a value": GET + "X-A: a\0b\r\n\r\n",
    "no name": GET + ": value\r\n\r\n",
    "a name with a space": GET + "X A: b\r\n\r\n",
    "no colon": GET + "nonsense\r\n\r\n",
    "no host": "GET /hello HTTP/1.1\r\n\r\n",
    "two hosts": GET + "Host: b\r\n\r\n",
    "a host with a path": "GET /hello HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a space in the target": "GET /hel lo HTTP/1.1\r\nHost: a\r\n\r\n",
    "a control character in the target": "GET /hel\x01lo HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target without a slash": "GET hello HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment": "GET /hello#there HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces in the line": "GET  /hello HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method that is no token": "G@T /hello HTTP/1.1\r\nHost: a\r\n\r\n",
    "a version in small letters": "GET /hello http/1.1\r\nHost: a\r\n\r\n",
    "a chunk size with a sign": POST + "Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with 0x": POST + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk size beyond all numbers": POST + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "a chunk that is longer than it says": POST + "Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
    "a chunk that ends with a bare line feed": POST
    + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
}
MARKER = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("request_text", REFUSED.values(), ids=[name.replace(" ", "-") for name in REFUSED])
def test_what_is_ambiguous_is_refused_and_the_connection_closed(site: Site, request_text: str) -> None:
    with site.raw() as client:
        client.send(request_text + MARKER)
        answer = client.answer()
        assert answer.status in {400, 501, 505}, answer
        # What follows is not read as a request.
        try:
            following = client.answer()
            pytest.fail(f"a second answer: {following}")
        except Closed:
            pass


def test_versions_that_do_not_exist(site: Site) -> None:
    for version in ("HTTP/2.0", "HTTP/1.2", "HTTP/9.9"):
        with site.raw() as client:
            answer = client.send(f"GET /hello {version}\r\nHost: a\r\n\r\n").answer()
            # RFC 9110, 2.5: a higher minor version is spoken to as the one we know.
            assert answer.status == (200 if version == "HTTP/1.2" else 505)


def test_upgrade_is_ignored(site: Site) -> None:
    # A WSGI app knows no WebSockets: it sees a GET (RFC 9110, 7.8).
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    for fields in (["Upgrade: h2c"], ["Upgrade: websocket", "Sec-WebSocket-Version: 13", key]):
        with site.raw() as client:
            client.request("GET /hello", "Connection: Upgrade", *fields)
            assert client.answer().text == "hello"
            assert client.request("GET /hello").answer().text == "hello"


def test_connect_and_trace_reach_no_app_by_accident(site: Site) -> None:
    with site.raw() as client:
        answer = client.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n").answer()
        assert 400 <= answer.status < 600


def test_an_empty_line_before_a_request_is_forgiven(site: Site) -> None:
    # RFC 9112, 2.2
    with site.raw() as client:
        assert client.send("\r\n" + GET + "\r\n").answer().text == "hello"


def test_garbage_and_tls_on_a_plain_port_are_refused(site: Site) -> None:
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"\0" * 100,
        b"hello?\r\n\r\n",
    ):
        with site.raw() as client:
            client.send(garbage)
            try:
                assert client.answer().status == 400
            except Closed:
                pass
            assert client.is_closed()
    assert site.get("/hello").text == "hello"
