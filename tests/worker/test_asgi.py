"""ASGI over slots: the scope, bodies both ways, and what an app may send."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from link import SHOWN, Response, Worker, pem
from workers import Serve, eventually

SCOPE = """
    import json
    async def app(scope, receive, send):
        assert scope["type"] == "http", scope
        shown = {key: value for key, value in scope.items() if key != "state"}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": repr(shown).encode()})
"""

# Answers with what its path names: bodies as they come, with more of them, and so on.
BODIES = """
    import asyncio, pathlib
    async def read(receive):
        pieces = []
        while True:
            message = await receive()
            assert message["type"] == "http.request", message
            pieces.append(message["body"])
            if not message["more_body"]: return pieces
    async def app(scope, receive, send):
        path = scope["path"]
        if path == "/slow":
            # The gateway must be kept waiting meanwhile.
            while not pathlib.Path("go").exists(): await asyncio.sleep(0.005)
        pieces = [] if path == "/unread" else await read(receive)
        sizes = ",".join(str(len(piece)) for piece in pieces)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-sizes", sizes.encode())]})
        if path == "/pieces":
            for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body"})
        else:
            await send({"type": "http.response.body", "body": b"".join(pieces)})
"""


def scope_of(worker: Worker, **request: Any) -> dict[str, Any]:
    response = worker.slot.exchange(**request)
    assert response.status == 200, worker.stderr()
    return eval(response.body)


@pytest.mark.every_python
def test_the_scope(serve_asgi: Serve) -> None:
    worker = serve_asgi(SCOPE)
    scope = scope_of(
        worker,
        target="/caf%C3%A9/a%2Fb%ff?x=%20&y",
        method="PUT",
        headers=[("host", "h"), ("x-a", "1"), ("x-a", "2")],
    )
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "http",
        "path": "/café/a/b\N{REPLACEMENT CHARACTER}",
        "raw_path": b"/caf%C3%A9/a%2Fb%ff",
        "query_string": b"x=%20&y",
        "root_path": "",
        "headers": [(b"host", b"h"), (b"x-a", b"1"), (b"x-a", b"2"), (b"x-request-id", b"req-1")],
        "client": ("192.0.2.7", 50123),
        "server": ("192.0.2.80", 8000),
        "extensions": {
            "http.response.pathsend": {},
            "http.response.zerocopysend": {},
            "http.response.early_hint": {},
        },
    }


def test_scopes_of_other_clients(serve_asgi: Serve) -> None:
    worker = serve_asgi(SCOPE)
    scope = scope_of(worker, scheme="https", version=20, tls=(0x304, 0x1301), mount="/shop", target="/shop/x")
    assert (scope["scheme"], scope["http_version"]) == ("https", "2")
    assert (scope["root_path"], scope["path"]) == ("/shop", "/shop/x")
    assert scope["extensions"]["http.response.trailers"] == {}
    assert scope["extensions"]["tls"] == {
        "server_cert": None,
        "client_cert_chain": [],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": 0x304,
        "cipher_suite": 0x1301,
    }
    scope = scope_of(worker, scheme="https", tls=(0x304, 0x1301), client=SHOWN)
    assert scope["extensions"]["tls"]["client_cert_name"] == "CN=anna"
    assert scope["extensions"]["tls"]["client_cert_chain"] == [pem("own"), pem("over it")]
    assert scope["extensions"]["tls"]["client_cert_error"] is None
    scope = scope_of(worker, scheme="https", tls=(0x304, 0x1301), client=())
    assert scope["extensions"]["tls"]["client_cert_chain"] == []
    scope = scope_of(worker, version=10, remote=("", 0), mount="/shop", target="/shopping", headers=[])
    assert (scope["http_version"], scope["client"], scope["root_path"]) == ("1.0", None, "")
    assert "http.response.early_hint" not in scope["extensions"]
    for value, wanted in [("trailers", True), ("gzip, Trailers;q=1", True), ("gzip", False)]:
        scope = scope_of(worker, headers=[("te", value)])
        assert ("http.response.trailers" in scope["extensions"]) == wanted


def test_the_server_is_where_the_connection_came_in(serve_asgi: Serve) -> None:
    worker = serve_asgi(SCOPE)
    # Each twice: what was there before is remembered.
    for local in [("192.0.2.80", 8000), ("::1", 443), ("/run/shop.sock", None), None, ("::1", 8443)]:
        for _ in range(2):
            scope = scope_of(worker, local=local, server=("shop.example", 80))
            assert scope["server"] == local


def test_headers_that_no_app_sees(serve_asgi: Serve) -> None:
    worker = serve_asgi(SCOPE)
    sent = ["proxy", "x_real_ip", "transfer-encoding", "x-real-ip", "x-odd-one"]
    scope = scope_of(worker, request_id="theirs", headers=[(name, "1") for name in sent])
    assert [name for name, _ in scope["headers"]] == [b"x-real-ip", b"x-odd-one", b"x-request-id"]
    # More names than are remembered.
    for number in range(300):
        scope = scope_of(worker, headers=[(f"x-{number}", "1"), ("y" * 100, "2"), ("z_" * 50, "3")])
        assert scope["headers"][:2] == [(f"x-{number}".encode(), b"1"), (b"y" * 100, b"2")]


def test_bodies_in_the_frame_and_none(serve_asgi: Serve) -> None:
    worker = serve_asgi(BODIES)
    for body, sizes in [(None, "0"), (b"", "0"), (b"abc", "3")]:
        response = worker.slot.exchange(method="POST", body=body)
        assert (response.body, response.header("x-sizes"), response.frames) == (body or b"", sizes, 1)


@pytest.mark.every_python
def test_a_body_in_a_file_comes_in_pieces(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(BODIES)
    data = os.urandom(200_000)
    (tmp_path / "body").write_bytes(data)
    for _ in range(2):
        file = os.open(tmp_path / "body", os.O_RDONLY)
        worker.slot.send_with_file(file, len(data), method="POST", target="/pieces")
        os.close(file)
        response = worker.slot.response()
        assert response.body == data
        assert response.header("x-sizes") == "65536,65536,65536,3392"


def test_a_file_that_was_lost_on_the_way_is_an_error(serve_asgi: Serve) -> None:
    worker = serve_asgi(BODIES)
    assert worker.slot.exchange(method="POST", file_bytes=10).status == 500
    assert "OSError" in worker.stderr()


def test_a_streamed_body(serve_asgi: Serve) -> None:
    worker = serve_asgi(BODIES)
    for _ in range(2):
        worker.slot.send(method="POST", stream=True, target="/pieces")
        worker.slot.send_body(b"one")
        worker.slot.send_body(b"")
        worker.slot.send_body(b"two")
        worker.slot.send_body(b"", end=True)
        assert worker.slot.response().body == b"onetwo"
    worker.slot.send(method="POST", stream=True)
    worker.slot.send_body(b"", end=True)
    assert worker.slot.response().header("x-sizes") == "0"


@pytest.mark.every_python
def test_a_streamed_body_waits_for_its_app(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(BODIES)
    piece = os.urandom(256 * 1024)
    worker.slot.send(method="POST", stream=True, target="/slow")
    worker.slot.stream.settimeout(0.3)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 64:
            worker.slot.send_body(piece)
            sent += 1
    # The socket's buffers, and what the worker may hold.
    assert sent < 8
    worker.slot.stream.settimeout(10)
    (tmp_path / "go").touch()
    worker.slot.close()


def test_a_body_that_nobody_reads_is_dropped(serve_asgi: Serve) -> None:
    worker = serve_asgi(BODIES)
    for _ in range(3):
        worker.slot.send(method="POST", stream=True, target="/unread")
        assert worker.slot.response().body == b""
        for _ in range(4):
            worker.slot.send_body(os.urandom(200_000))
        worker.slot.send_body(b"", end=True)
    assert worker.slot.exchange(body=b"next").body == b"next"


def test_a_body_that_is_broken_off_is_no_end_of_the_answer(serve_asgi: Serve) -> None:
    # The gateway does so, too, when the app answers before it has read all of it.
    worker = serve_asgi(
        """
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 413})
            await send({"type": "http.response.body", "body": b"first,", "more_body": True})
            while True:
                message = await receive()
                await send({"type": "http.response.body", "body": message["type"].encode() + b",", "more_body": True})
                if message["type"] == "http.disconnect": break
                assert message["more_body"]
            await send({"type": "http.response.body", "body": b"last"})
        """
    )
    for _ in range(2):
        worker.slot.send(method="POST", stream=True)
        assert worker.slot.frame().payload.endswith(b"first,")
        worker.slot.send_body(b"some")
        worker.slot.break_off_body()
        response = worker.slot.response(Response(413, b"", []))
        assert (response.body, response.aborted) == (b"http.request,http.disconnect,last", False)
    assert worker.stderr() == ""


def test_a_large_answer_waits_for_its_reader(serve_asgi: Serve) -> None:
    worker = serve_asgi(
        """
        import pathlib
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            if scope["path"] == "/one":
                await send({"type": "http.response.body", "body": bytes(10_000_000)})
                return
            for number in range(100):
                await send({"type": "http.response.body", "body": bytes([number]) * 100_000, "more_body": True})
                pathlib.Path("sent").write_text(str(number))
            await send({"type": "http.response.body", "body": b"end"})
        """
    )
    assert len(worker.slot.get("/one").body) == 10_000_000
    worker.slot.send(target="/many")
    directory = worker.log.parent
    eventually((directory / "sent").exists)
    counts = set()
    for _ in range(5):
        time.sleep(0.05)
        counts.add((directory / "sent").read_text())
    assert int(max(counts, key=len)) < 20
    response = worker.slot.response()
    assert response.body == b"".join(bytes([number]) * 100_000 for number in range(100)) + b"end"
    assert worker.slot.get("/one").status == 200


SAYS = """
    import json
    async def app(scope, receive, send):
        path = scope["path"][1:]
        for message in eval(scope["query_string"].replace(b"%20", b" ")):
            try:
                await send(message)
            except Exception as error:
                if path == "raise": raise
                shown = f"{type(error).__name__}: {error}".encode()
                print(shown.decode(), file=open("error", "w"))
                await send({"type": "http.response.start", "status": 418})
                await send({"type": "http.response.body", "body": shown})
                return
"""
START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b"x"}


def say(worker: Worker, *messages: object, path: str = "/", **request: Any) -> Any:
    query = repr(list(messages)).replace(" ", "%20")
    return worker.slot.exchange(target=f"{path}?{query}", **request)


WRONG = {
    "no start": (
        [BODY],
        "RuntimeError: Expected ASGI message 'http.response.start', but got 'http.response.body'.",
    ),
    "no dict": ([3], "TypeError: an ASGI message must be a dict, not int"),
    "no type": ([{}], "TypeError: an ASGI message must have a 'type'"),
    "odd type": ([{"type": 3}], "TypeError: the type of an ASGI message must be a str, not int"),
    "no status": (
        [{"type": "http.response.start"}],
        "RuntimeError: 'http.response.start' must have a 'status'",
    ),
    "odd status": (
        [{**START, "status": "200"}],
        "TypeError: 'status' of an ASGI message must be an int in range, not str",
    ),
    "informational": ([{**START, "status": 100}], "RuntimeError: the status 100 is none an app can give"),
    "header name": ([{**START, "headers": [(b"a b", b"")]}], "RuntimeError: Invalid HTTP header name."),
    "header value": (
        [{**START, "headers": [(b"a", b"x\r\ny: z")]}],
        "RuntimeError: Invalid HTTP header value.",
    ),
    "header str": (
        [{**START, "headers": [("a", "b")]}],
        "TypeError: a header must be a pair of two bytes, not of str",
    ),
    "header triple": ([{**START, "headers": [(b"a", b"b", b"c")]}], "TypeError: a header must be a pair"),
    "length": ([{**START, "headers": [(b"content-length", b"x")]}], "is no Content-Length"),
    "two lengths": ([{**START, "headers": [(b"content-length", b"1")] * 2}], "or a second one"),
}


@pytest.mark.parametrize("name", WRONG)
def test_messages_that_are_wrong(serve_asgi: Serve, name: str) -> None:
    messages, wanted = WRONG[name]
    response = say(serve_asgi(SAYS), *messages)
    assert (response.status, response.frames) == (418, 1)
    assert wanted in response.body.decode()


def test_messages_out_of_order(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(SAYS)

    def raises(*messages: object, **request: Any) -> tuple[Any, str]:
        before = len(worker.stderr())
        response = say(worker, *messages, path="/raise", **request)
        eventually(lambda: "Error" in worker.stderr()[before:])
        return response, worker.stderr()[before:]

    response, log = raises(START, START)
    assert response.status == 500
    assert "Expected ASGI message 'http.response.body', but got 'http.response.start'." in log
    response, log = raises(START, BODY, BODY)
    assert (response.status, response.body, response.aborted) == (200, b"x", False)
    assert "Unexpected ASGI message 'http.response.body' sent, after response already completed." in log
    length = {**START, "headers": [(b"content-length", b"3")]}
    response, log = raises(length, {**BODY, "body": b"four"})
    assert (response.status, "Response content longer than Content-Length" in log) == (500, True)
    response, log = raises(length, {**BODY, "more_body": True}, BODY)
    assert (response.body, response.aborted) == (b"x", True)
    assert "Response content shorter than Content-Length" in log
    response, log = raises(START, {**BODY, "body": "text"})
    assert (response.status, "'body' of an ASGI message must be bytes, not str" in log) == (500, True)


def test_forms_of_headers_and_bodies(serve_asgi: Serve) -> None:
    worker = serve_asgi(SAYS)
    headers = [
        [b"X-List", b"1"],
        (b"Connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
    ]
    response = say(worker, {**START, "headers": headers}, {**BODY, "body": bytearray(b"array")})
    assert response.headers == [("X-List", "1"), ("set-cookie", "a"), ("set-cookie", "b")]
    assert response.body == b"array"
    response = say(worker, {**START, "headers": ()}, {"type": "http.response.body"})
    assert (response.status, response.body, response.frames) == (200, b"", 1)


@pytest.mark.every_python
def test_head_and_statuses_without_content(serve_asgi: Serve) -> None:
    worker = serve_asgi(SAYS)
    response = say(worker, START, {**BODY, "body": b"four"}, method="HEAD")
    assert (response.body, response.header("content-length"), response.frames) == (b"", "4", 1)
    response = say(
        worker, {**START, "headers": [(b"content-length", b"9")]}, {**BODY, "body": b"four"}, method="HEAD"
    )
    assert (response.body, response.header("content-length")) == (b"", "9")
    response = say(worker, {**START, "status": 204}, BODY)
    assert (response.status, response.body, response.headers) == (204, b"", [])
    response = say(
        worker,
        {**START, "status": 304, "headers": [(b"content-length", b"9")]},
        {"type": "http.response.body"},
    )
    assert (response.status, response.body, response.header("content-length")) == (304, b"", "9")


def test_a_head_waits_for_its_body(serve_asgi: Serve) -> None:
    worker = serve_asgi(
        """
        import asyncio
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            await asyncio.sleep(0.02)
            raise ValueError("too late?")
        """
    )
    response = worker.slot.get()
    assert response.status == 500
    assert b"req-1" in response.body


@pytest.mark.every_python
def test_files_go_as_descriptors(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(
        """
        import os
        async def app(scope, receive, send):
            path = os.path.abspath("data")
            headers = [(b"content-length", b"26")] if scope["path"] == "/length" else []
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if scope["path"] == "/relative":
                return await send({"type": "http.response.pathsend", "path": "data"})
            if scope["path"] == "/missing":
                return await send({"type": "http.response.pathsend", "path": "/no/such/file"})
            if scope["path"] == "/directory":
                return await send({"type": "http.response.pathsend", "path": os.getcwd()})
            if scope["path"] == "/range":
                with open(path, "rb") as file:
                    copy = {"type": "http.response.zerocopysend", "file": file}
                    await send({**copy, "offset": 2, "count": 3, "more_body": True})
                    await send({"type": "http.response.body", "body": b"-", "more_body": True})
                    file.seek(10)
                    await send({**copy, "file": file.fileno(), "count": 2, "more_body": True})
                    await send({**copy, "count": 2, "more_body": True})
                    await send({**copy, "offset": 24, "count": 99})
                return
            if scope["path"] == "/closed":
                return await send({"type": "http.response.zerocopysend", "file": 999})
            await send({"type": "http.response.pathsend", "path": path})
        """
    )
    (tmp_path / "data").write_bytes(bytes(range(97, 123)))
    response = worker.slot.get("/whole")
    assert (response.body, response.files[0].read(), response.header("content-length")) == (
        b"",
        bytes(range(97, 123)),
        "26",
    )
    response = worker.slot.get("/length")
    assert (response.header("content-length"), len(response.files[0].read())) == ("26", 26)
    response = worker.slot.exchange(target="/whole", method="HEAD")
    assert (response.files, response.frames) == ([], 1)
    response = worker.slot.get("/range")
    assert [file.read() for file in response.files] == [b"cde", b"kl", b"mn", b"yz"]
    assert response.body == b"-"
    for path in ["/relative", "/missing", "/directory", "/closed"]:
        assert worker.slot.get(path).status == 500
    assert worker.slot.get("/whole").files[0].length == 26


def test_early_hints_and_trailers(serve_asgi: Serve) -> None:
    worker = serve_asgi(
        """
        async def app(scope, receive, send):
            await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>"]})
            await send({"type": "http.response.early_hint", "links": []})
            await send({"type": "http.response.start", "status": 200, "trailers": True})
            await send({"type": "http.response.body", "body": b"sum"})
            await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": True})
            if scope["path"] == "/short": return
            await send({"type": "http.response.trailers", "headers": [(b"x-more", b"2")]})
        """
    )
    for _ in range(2):
        response = worker.slot.get(version=20)
        assert response.hints == [[("link", "</a.css>; rel=preload"), ("link", "</b.js>")]]
        assert (response.body, response.trailers) == (b"sum", [("x-sum", "1"), ("x-more", "2")])
    assert worker.slot.get("/short").aborted
    assert "ASGI callable returned without completing response." in worker.stderr()


def test_trailers_that_do_not_fit(serve_asgi: Serve) -> None:
    worker = serve_asgi(
        """
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "trailers": scope["path"] == "/much"})
            await send({"type": "http.response.body", "body": b"sum"})
            if scope["path"] != "/much": return
            more = {"type": "http.response.trailers", "headers": [(b"x-much", b"x" * 100_000)], "more_trailers": True}
            for _ in range(20): await send(more)
        """
    )
    for _ in range(2):
        response = worker.slot.get("/much")
        assert (response.body, response.aborted, response.trailers) == (b"sum", True, None)
        assert worker.slot.get("/").body == b"sum"
    assert worker.stderr().count("RuntimeError: the trailers are longer than 256 KiB") == 2


def test_awaitables_are_coroutines(serve_asgi: Serve) -> None:
    worker = serve_asgi(
        """
        import asyncio, collections.abc, gc, inspect
        async def app(scope, receive, send):
            waiting = receive()
            assert asyncio.iscoroutine(waiting) and isinstance(waiting, collections.abc.Awaitable)
            message = await asyncio.create_task(waiting)
            assert message == {"type": "http.request", "body": b"", "more_body": False}, message
            try:
                await waiting
            except RuntimeError as error:
                assert str(error) == "cannot reuse already awaited coroutine"
            # Nothing comes: a wait for it can end in any of these ways.
            try:
                await asyncio.wait_for(receive(), 0.01)
            except asyncio.TimeoutError: pass
            task = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            task.cancel()
            try: await task
            except asyncio.CancelledError: pass
            unused = send({"type": "nonsense"})
            unused.close()
            assert inspect.iscoroutinefunction(receive) and inspect.iscoroutinefunction(send)
            # A heartbeat: waits that were given up do not pile up.
            def futures():
                return sum(isinstance(one, asyncio.Future) for one in gc.get_objects())
            before = futures()
            for _ in range(100):
                task = asyncio.ensure_future(receive())
                await asyncio.sleep(0)
                task.cancel()
                try: await task
                except asyncio.CancelledError: pass
            del task
            gc.collect()
            assert futures() < before + 20, (before, futures())
            tasks = [asyncio.ensure_future(receive()) for _ in range(3)]
            await asyncio.sleep(0)
            await send({"type": "http.response.start", "status": 200})
            await asyncio.wait_for(send({"type": "http.response.body", "body": b"fine"}), 1)
            for task in tasks:
                assert (await task) == {"type": "http.disconnect"}
            assert (await receive()) == {"type": "http.disconnect"}
            print("all fine", file=open("fine", "w"))
        """
    )
    assert worker.slot.get().body == b"fine", worker.stderr()
    eventually((worker.log.parent / "fine").exists)


def test_exchanges_have_contexts_of_their_own(serve_asgi: Serve) -> None:
    worker = serve_asgi(
        """
        import asyncio, contextvars
        seen = contextvars.ContextVar("seen", default="nothing")
        async def app(scope, receive, send):
            before = seen.get()
            seen.set(scope["path"])
            while (await receive())["more_body"]: pass
            await send({"type": "http.response.start", "status": 200})
            if scope["path"] == "/large":
                await send({"type": "http.response.body", "body": bytes(2_000_000), "more_body": True})
            await send({"type": "http.response.body", "body": before.encode()})
        """
    )
    for path in ["/a", "/large", "/b"]:
        assert worker.slot.get(path).body.endswith(b"nothing")
    # Reading is resumed by the app, and the request behind is found there.
    worker.slot.send(method="POST", stream=True, target="/c")
    for _ in range(3):
        worker.slot.send_body(bytes(200_000))
    worker.slot.send_body(b"", end=True)
    worker.slot.send(target="/d")
    assert worker.slot.response().body == b"nothing"
    assert worker.slot.response().body == b"nothing"
