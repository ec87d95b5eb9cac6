"""wsgi.input: read, readline, readlines, iteration, wherever the body comes from."""

from __future__ import annotations

import tempfile
import threading
from typing import Any

import pytest
from link import Response, Slot, Worker
from workers import Serve

# The query is an expression over the input.
EVALUATE = """
    import urllib.parse
    def app(environ, start_response):
        stream = environ["wsgi.input"]
        result = eval(urllib.parse.unquote(environ["QUERY_STRING"]), {"stream": stream, "environ": environ})
        start_response("200 OK", [])
        return [repr(result).encode()]
"""

BODY = b"one\ntwo\n\nno end"

EXPRESSIONS: dict[str, Any] = {
    "stream.read()": BODY,
    "stream.read(-1)": BODY,
    "stream.read(None)": BODY,
    "stream.read(0)": b"",
    "stream.read(3)": b"one",
    "stream.read(1000)": BODY,
    "[stream.read(5), stream.read(5), stream.read(5), stream.read(5)]": [
        b"one\nt",
        b"wo\n\nn",
        b"o end",
        b"",
    ],
    "[stream.read(), stream.read(), stream.read(1)]": [BODY, b"", b""],
    "stream.readline()": b"one\n",
    "stream.readline(2)": b"on",
    "stream.readline(0)": b"",
    "[stream.readline() for _ in range(5)]": [b"one\n", b"two\n", b"\n", b"no end", b""],
    "[stream.readline(2) for _ in range(4)]": [b"on", b"e\n", b"tw", b"o\n"],
    "stream.readlines()": [b"one\n", b"two\n", b"\n", b"no end"],
    "stream.readlines(5)": [b"one\n", b"two\n"],
    "stream.readlines(0)": [b"one\n", b"two\n", b"\n", b"no end"],
    "list(stream)": [b"one\n", b"two\n", b"\n", b"no end"],
    "[stream.read(2), stream.readline(), next(stream), stream.read()]": [
        b"on",
        b"e\n",
        b"two\n",
        b"\nno end",
    ],
    "[stream.readline(), stream.readlines(), stream.read()]": [b"one\n", [b"two\n", b"\n", b"no end"], b""],
    "iter(stream) is stream": True,
    "environ.get('CONTENT_LENGTH')": str(len(BODY)),
}


def ask(slot: Slot, how: str, expression: str, body: bytes) -> Response:
    request: dict[str, Any] = {"method": "POST", "target": f"/?{expression.replace(' ', '%20')}"}
    if how == "inline":
        slot.send(body=body, **request)
    elif how == "file":
        with tempfile.TemporaryFile() as file:
            file.write(body)
            file.flush()
            slot.send_with_file(file.fileno(), len(body), **request)
    else:
        slot.send(stream=True, stream_bytes=len(body), **request)
        for at in range(0, len(body), 4):
            slot.send_body(body[at : at + 4])
        slot.send_body(b"", end=True)
    return slot.response()


@pytest.mark.every_python
@pytest.mark.parametrize("how", ["inline", "file", "stream"])
def test_reading(serve: Serve, how: str) -> None:
    worker = serve(EVALUATE)
    for expression, expected in EXPRESSIONS.items():
        response = ask(worker.slot, how, expression, BODY)
        assert response.body.decode() == repr(expected), expression


def test_an_empty_body(serve: Serve) -> None:
    worker = serve(EVALUATE)
    expression = (
        "[stream.read(),stream.read(1),stream.readline(),stream.readline(1),stream.readlines(),list(stream)]"
    )
    assert worker.slot.get(f"/?{expression}").body == b"[b'', b'', b'', b'', [], []]"
    for how in ("inline", "file", "stream"):
        assert ask(worker.slot, how, expression, b"").body == b"[b'', b'', b'', b'', [], []]"


def test_what_was_not_read_does_not_reach_the_next_request(serve: Serve) -> None:
    worker = serve(EVALUATE)
    body = b"x" * 100_000
    for how in ("inline", "file", "stream", "inline", "stream"):
        assert ask(worker.slot, how, "stream.read(3)", body).body == b"b'xxx'"
    assert worker.slot.get("/?stream.read()").body == b"b''"


@pytest.mark.parametrize("how", ["inline", "file", "stream"])
def test_long_lines_and_large_reads(serve: Serve, how: str) -> None:
    worker = serve(EVALUATE)
    body = b"a" * 70_000 + b"\n" + b"b" * 200_000
    if how == "stream":
        body = body[69_000:72_000]
    first, _, rest = body.partition(b"\n")
    lengths = f"{[len(first) + 1, len(rest)]}".encode()
    assert ask(worker.slot, how, "[len(line) for line in stream]", body).body == lengths
    assert ask(worker.slot, how, "[len(stream.readline()), len(stream.read(10**9))]", body).body == lengths


def test_a_large_body_in_pieces_takes_no_memory(serve: Serve) -> None:
    worker = serve(
        """
        import resource
        def app(environ, start_response):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            total = 0
            while piece := environ["wsgi.input"].read(65536):
                total += len(piece)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            start_response("200 OK", [])
            return [f"{total} {grown < 4096}".encode()]
        """
    )
    size = 1 << 28
    block = b"x" * (256 * 1024)
    # The buffers that come with the first streamed body.
    ask(worker.slot, "stream", "", b"abc")

    def feed() -> None:
        for _ in range(size // len(block)):
            worker.slot.send_body(block)
        worker.slot.send_body(b"", end=True)

    worker.slot.send(method="POST", stream=True)
    feeder = threading.Thread(target=feed)
    feeder.start()
    response = worker.slot.response()
    feeder.join()
    assert response.body == f"{size} True".encode()
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        worker.slot.send_with_file(file.fileno(), size, method="POST")
        assert worker.slot.response().body == f"{size} True".encode()


def test_a_stream_is_read_while_it_arrives(serve: Serve) -> None:
    worker = serve(
        """
        def app(environ, start_response):
            assert "CONTENT_LENGTH" not in environ
            start_response("200 OK", [])
            for line in environ["wsgi.input"]:
                yield line.upper()
        """
    )
    worker.slot.send(method="POST", stream=True)
    for word in (b"one\n", b"two\n"):
        worker.slot.send_body(word)
        payload = worker.slot.frame().payload
        assert payload.endswith(word.upper())
    worker.slot.send_body(b"", end=True)
    assert worker.slot.frame().flags == 1


TRUNCATED = """
    def app(environ, start_response):
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            start_response("400 Bad Request", [])
            return [str(error).encode()]
        start_response("200 OK", [])
        return [b"complete"]
"""


@pytest.fixture
def truncated(serve: Serve) -> Worker:
    """An app that tells whether it could read all."""
    return serve(TRUNCATED)


def test_a_client_that_went_away_is_an_os_error(truncated: Worker) -> None:
    truncated.slot.send(method="POST", stream=True, stream_bytes=100)
    truncated.slot.send_body(b"some")
    truncated.slot.cancel()
    response = truncated.slot.response()
    assert (response.status, response.body) == (
        400,
        b"the client went away before its request body was complete",
    )
    assert truncated.slot.get().body == b"complete"


def test_a_body_that_was_broken_off_is_not_waited_for(serve: Serve) -> None:
    # What the gateway does when an answer begins before the end of the body.
    worker = serve(
        """
        def app(environ, start_response):
            start_response("200 OK", [])
            yield b"begun"
            for _ in range(2):
                try:
                    environ["wsgi.input"].read()
                except OSError as error:
                    yield b", " + type(error).__name__.encode()
        """
    )
    worker.slot.send(method="POST", stream=True, stream_bytes=100)
    worker.slot.send_body(b"some")
    worker.slot.break_off_body()
    response = worker.slot.response()
    assert response.body == b"begun, ConnectionResetError, ConnectionResetError"
    assert not response.aborted


def test_a_body_shorter_than_announced_is_an_os_error(truncated: Worker) -> None:
    truncated.slot.send(method="POST", stream=True, stream_bytes=100)
    truncated.slot.send_body(b"some", end=True)
    assert b"shorter than its Content-Length" in truncated.slot.response().body
    with tempfile.TemporaryFile() as file:
        file.write(b"short")
        file.flush()
        truncated.slot.send_with_file(file.fileno(), 100, method="POST")
        assert truncated.slot.response().status == 400


def test_a_descriptor_that_was_lost_is_an_os_error(truncated: Worker) -> None:
    truncated.slot.send(method="POST", file_bytes=5)
    assert truncated.slot.response().status == 400


def test_an_input_that_was_kept_is_detached(serve: Serve) -> None:
    worker = serve(
        """
        kept = []
        def app(environ, start_response):
            kept.append((environ["wsgi.input"], start_response))
            words = []
            for stream, start in kept[:-1]:
                for call in (stream.read, stream.readline, stream.readlines, lambda: start("200 OK", [])):
                    try:
                        words.append(call())
                    except (ValueError, RuntimeError) as error:
                        words.append(str(error).split(" the request")[0])
            start_response("200 OK", [])
            return [repr(words).encode()]
        """
    )
    for how in ("inline", "file", "stream"):
        ask(worker.slot, how, "", b"secret")
    words = worker.slot.get().body.decode()
    assert "secret" not in words
    assert words.count("wsgi.input was read after") == 9
    assert words.count("start_response was called after") == 3


def test_reading_from_another_thread(serve: Serve) -> None:
    worker = serve(
        """
        import threading
        def app(environ, start_response):
            found = []
            threads = [threading.Thread(target=lambda: found.append(environ["wsgi.input"].read(10))) for _ in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            start_response("200 OK", [])
            return [b",".join(sorted(found))]
        """
    )
    body = b"".join(bytes([65 + n]) * 10 for n in range(4))
    assert ask(worker.slot, "stream", "", body).body == b",".join(
        body[at : at + 10] for at in range(0, 40, 10)
    )
