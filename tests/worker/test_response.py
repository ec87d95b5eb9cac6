"""What an app returns: start_response, iterables, lengths, files, write()."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from link import END, RESPONSE_BODY, RESPONSE_HEAD, ClosedError
from workers import Serve, eventually


@pytest.mark.every_python
def test_a_list_of_one_is_one_frame_with_a_length(serve: Serve) -> None:
    worker = serve(
        """
        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"hello"]
        """
    )
    for _ in range(3):
        response = worker.slot.get("/")
        assert (response.status, response.reason, response.body, response.frames) == (200, b"OK", b"hello", 1)
        assert response.headers == [("Content-Type", "text/plain"), ("Content-Length", "5")]
    worker.slot.retire()
    assert worker.wait() == 0
    assert worker.stderr() == ""


# What the app returns, the body, the length that must be said, the frames it may take.
BODIES = {
    "tuple": ("(b'a',)", b"a", "1", 1),
    "list of several": ("[b'a', b'', b'bc']", b"abc", "3", 1),
    "empty list": ("[]", b"", "0", 1),
    "list of empty": ("[b'']", b"", "0", 1),
    "generator": ("(x for x in [b'a', b'b'])", b"ab", None, 3),
    "generator of empties first": ("(x for x in [b'', b'', b'a'])", b"a", None, 2),
    "empty generator": ("(x for x in [])", b"", "0", 1),
    "iterator of a list": ("iter([b'abc'])", b"abc", "3", 1),
    "map": ("map(bytes, [b'a'])", b"a", None, 2),
    "bytes subclass": ("[type('B', (bytes,), {})(b'a')]", b"a", "1", 1),
    "large piece": ("[b'x' * 1_000_000]", b"x" * 1_000_000, "1000000", 4),
    "many pieces": ("[b'x' * 1000] * 1000", b"x" * 1_000_000, "1000000", 17),
    "small and large": ("[b'a', b'x' * 200_000, b'b']", b"a" + b"x" * 200_000 + b"b", "200002", 3),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(serve: Serve, name: str) -> None:
    source, body, length, frames = BODIES[name]
    worker = serve(
        f"""
        def app(environ, start_response):
            start_response("200 OK", [])
            return {source}
        """
    )
    for _ in range(2):
        response = worker.slot.get()
        assert response.body == body
        assert response.header("content-length") == length
        assert response.frames <= frames
        assert all(len(piece) <= 256 * 1024 for piece in response.pieces)
        assert not response.aborted
    head = worker.slot.exchange(method="HEAD")
    assert (head.body, head.aborted) == (b"", False)
    # RFC 9110, 8.6: not a length that a GET would not have.
    assert head.header("content-length") in ({length, None} if body else {None})
    assert worker.stderr() == ""


def test_each_piece_of_a_stream_is_sent_before_the_next_is_made(serve: Serve, tmp_path: Path) -> None:
    worker = serve(
        """
        import os, time
        def app(environ, start_response):
            start_response("200 OK", [])
            def pieces():
                for n in range(3):
                    yield b"%d" % n
                    while not os.path.exists(f"go-{n}"):
                        time.sleep(0.001)
            return pieces()
        """
    )
    worker.slot.send()
    assert worker.slot.frame().kind == RESPONSE_HEAD
    for number in range(3):
        (tmp_path / f"go-{number}").touch()
        frame = worker.slot.frame()
        assert frame.kind == RESPONSE_BODY
        assert frame.payload == (b"%d" % (number + 1) if number < 2 else b"")
    assert frame.flags == END


def test_code_behind_the_last_yield_runs(serve: Serve, tmp_path: Path) -> None:
    worker = serve(
        """
        import pathlib
        def app(environ, start_response):
            length = environ["QUERY_STRING"]
            start_response("200 OK", [("Content-Length", length)] if length else [])
            yield b"abc"
            pathlib.Path("ran" + length).touch()
        """
    )
    assert worker.slot.get("/?3").frames == 1
    assert worker.slot.get("/?").body == b"abc"
    assert (tmp_path / "ran3").exists()
    assert (tmp_path / "ran").exists()


def test_start_response_inside_the_generator(serve: Serve) -> None:
    worker = serve(
        """
        def app(environ, start_response):
            start_response("201 Created", [("X-Own", "1")])
            yield b"abc"
        """
    )
    response = worker.slot.get()
    assert (response.status, response.body, response.header("x-own")) == (201, b"abc", "1")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_statuses_without_content(serve: Serve, status: str) -> None:
    worker = serve(
        f"""
        def app(environ, start_response):
            start_response("{status}", [])
            return [b"not to be sent"]
        """
    )
    response = worker.slot.get()
    assert (response.body, response.headers, response.frames) == (b"", [], 1)


def test_head_of_an_endless_stream_ends(serve: Serve, tmp_path: Path) -> None:
    worker = serve(
        """
        import pathlib
        def app(environ, start_response):
            start_response("200 OK", [])
            try:
                while True:
                    yield b"x"
            finally:
                pathlib.Path("closed").touch()
        """
    )
    assert worker.slot.exchange(method="HEAD").frames == 1
    assert worker.slot.exchange(method="HEAD").body == b""
    assert (tmp_path / "closed").exists()


def test_a_length_is_kept_to(serve: Serve) -> None:
    worker = serve(
        """
        def app(environ, start_response):
            length, kind = environ["QUERY_STRING"].split(",")
            start_response("200 OK", [("content-length", length)])
            return {"list": [b"abc", b"de"], "generator": iter([b"abc", b"de"]), "map": map(bytes, [b"abc", b"de"])}[kind]
        """
    )
    for kind in ("list", "generator", "map"):
        whole = worker.slot.get(f"/?5,{kind}")
        assert (whole.body, whole.aborted) == (b"abcde", False)
        long = worker.slot.get(f"/?3,{kind}")
        assert (long.body, long.aborted) == (b"abc", False)
        short = worker.slot.get(f"/?6,{kind}")
        assert (short.body, short.aborted) == (b"abcde", True)
    worker.slot.retire()
    worker.wait()
    assert worker.stderr().count("fewer bytes than its Content-Length") == 3


@pytest.mark.every_python
def test_write(serve: Serve) -> None:
    worker = serve(
        """
        def app(environ, start_response):
            write = start_response("200 OK", [])
            write(b"")
            assert write(b"one,") is None
            write(b"two,")
            return [b"three"]
        """
    )
    for _ in range(2):
        response = worker.slot.get()
        assert response.body == b"one,two,three"
        assert response.header("content-length") is None
    assert worker.slot.exchange(method="HEAD").body == b""


def test_write_counts_against_the_length(serve: Serve) -> None:
    worker = serve(
        """
        def app(environ, start_response):
            write = start_response("200 OK", [("Content-Length", "3")])
            write(b"abc")
            try:
                write(b"d")
            except ValueError as error:
                environ["wsgi.errors"].write(str(error))
            return []
        """
    )
    response = worker.slot.get()
    assert (response.body, response.aborted) == (b"abc", False)
    worker.slot.retire()
    worker.wait()
    assert "more bytes than the Content-Length" in worker.stderr()


def test_exc_info_replaces_a_head_that_was_not_sent(serve: Serve) -> None:
    worker = serve(
        """
        import sys
        def app(environ, start_response):
            start_response("200 OK", [("X-Own", "old"), ("Content-Length", "1000")])
            try:
                raise KeyError("lost")
            except KeyError:
                start_response("500 Oops", [("X-Own", "new")], sys.exc_info())
            return [b"sorry"]
        """
    )
    response = worker.slot.get()
    assert (response.status, response.reason, response.body) == (500, b"Oops", b"sorry")
    assert response.headers == [("X-Own", "new"), ("Content-Length", "5")]
    assert worker.stderr() == ""


def test_exc_info_after_the_head_was_sent_is_raised_again(serve: Serve) -> None:
    worker = serve(
        """
        import sys
        def app(environ, start_response):
            start_response("200 OK", [])
            yield b"some"
            try:
                raise KeyError("lost")
            except KeyError:
                start_response("500 Oops", [], sys.exc_info())
            yield b"never"
        """
    )
    response = worker.slot.get()
    assert (response.status, response.body, response.aborted) == (200, b"some", True)
    worker.slot.retire()
    worker.wait()
    assert "KeyError: 'lost'" in worker.stderr()
    assert worker.stderr().count("Traceback") == 1


# What an app does wrong, and a word of the error it gets.
WRONGS = {
    "start_response('200 OK', []); start_response('200 OK', [])": "second time without exc_info",
    "pass": "without calling start_response",
    "start_response(b'200 OK', [])": "must be a str",
    "start_response('OK', [])": "three digits",
    "start_response('200OK', [])": "no space",
    "start_response('100 Continue', [])": "final ones begin at 200",
    "start_response('200 O\\nK', [])": "control characters",
    "start_response('200 \\u20ac', [])": "latin-1",
    "start_response('200 OK', {'a': 'b'}.keys())": "tuple of two str",
    "start_response('200 OK', None)": "must be a list",
    "start_response('200 OK', [('a', 'b', 'c')])": "tuple of two str",
    "start_response('200 OK', [['a', 'b']])": "tuple of two str",
    "start_response('200 OK', [('a', b'b')])": "tuple of two str",
    "start_response('200 OK', [('a', None)])": "tuple of two str",
    "start_response('200 OK', [('a b', 'c')])": "no name for a header",
    "start_response('200 OK', [('', 'c')])": "no name for a header",
    "start_response('200 OK', [('a', 'b\\r\\nset-cookie: c')])": "control characters",
    "start_response('200 OK', [('a', 'b\\x00')])": "control characters",
    "start_response('200 OK', [('a', '\\u20ac')])": "latin-1",
    "start_response('200 OK', [('Content-Length', '-1')])": "no Content-Length",
    "start_response('200 OK', [('Content-Length', '1'), ('content-length', '1')])": "a second one",
    "start_response('200 OK', [('a', 'x' * 300_000)])": "more headers than fit",
    "start_response()": "missing",
    "start_response('200 OK', [])('text')": "must give bytes",
}


def test_headers_of_the_connection_are_dropped(serve: Serve) -> None:
    worker = serve(
        """
        def app(environ, start_response):
            dropped = [("Connection", "close"), ("TRANSFER-ENCODING", "chunked"), ("keep-alive", "5"), ("Upgrade", "x")]
            start_response("200 OK", [("Content-Type", "text/event-stream"), *dropped])
            return [b"data: 1\\n\\n"]
        """
    )
    response = worker.slot.get()
    assert (response.status, response.body) == (200, b"data: 1\n\n"), worker.stderr()
    assert {name.lower() for name, _ in response.headers} == {"content-type", "content-length"}


def test_wrong_calls(serve: Serve) -> None:
    worker = serve(
        f"""
        WRONGS = {list(WRONGS)!r}
        def app(environ, start_response):
            exec(WRONGS[int(environ["QUERY_STRING"])])
            return [b"no error"]
        """
    )
    for number, (source, word) in enumerate(WRONGS.items()):
        response = worker.slot.get(f"/?{number}")
        assert response.status == 500, source
        logged = worker.stderr().split("the app raised an exception")[-1]
        assert word in logged, source
    assert worker.stderr().count("ERROR the app raised an exception") == len(WRONGS)


@pytest.mark.parametrize(
    ("returned", "word"),
    [
        ("['text']", "not str; encode text first"),
        ("b'abc'", "not int"),
        ("[bytearray(b'a')]", "not bytearray"),
        ("None", "not iterable"),
        ("[b'a', 'b']", "not str"),
    ],
)
def test_wrong_bodies(serve: Serve, returned: str, word: str) -> None:
    worker = serve(
        f"""
        def app(environ, start_response):
            start_response("200 OK", [])
            return {returned}
        """
    )
    assert worker.slot.get().status == 500
    worker.slot.retire()
    worker.wait()
    assert word in worker.stderr()


@pytest.mark.every_python
def test_header_values_keep_their_letters(serve: Serve) -> None:
    worker = serve(
        """
        def app(environ, start_response):
            headers = [("X-\\u0041bc", "\\xe4\\tb "), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
            start_response("299", tuple(headers))
            return []
        """
    )
    response = worker.slot.get()
    assert (response.status, response.reason) == (299, b"")
    expected = [("X-Abc", "\xe4\tb "), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Content-Length", "0")]
    assert response.headers == expected


FILES = """
    import gzip, io, os, tempfile
    class Counting(io.BytesIO):
        closed_files = 0
        def close(self):
            Counting.closed_files += 1
            super().close()
    class Decrypting:
        def __init__(self, file): self.file = file
        def fileno(self): return self.file.fileno()
        def tell(self): return self.file.tell()
        def read(self, *size): return self.file.read(*size).upper()
        def close(self): self.file.close()
    class Proxy:
        # As django.core.files.base.File does it.
        read = property(lambda self: self.file.read)
        def __init__(self, file): self.file = file
        def close(self): self.file.close()
    def pipe():
        read, write = os.pipe()
        os.write(write, b"through a pipe")
        os.close(write)
        return open(read, "rb")
    def sought():
        file = open("data", "rb")
        file.read(10)
        return file
    KINDS = {
        "plain": lambda: open("data", "rb"), "raw": lambda: open("data", "rb", buffering=0),
        "sought": sought, "proxy": lambda: Proxy(open("data", "rb")), "memory": lambda: Counting(b"m" * 600_000),
        "gzip": lambda: gzip.open("data.gz"), "decrypting": lambda: Decrypting(open("data", "rb")), "pipe": pipe,
        "empty": lambda: open("empty", "rb"),
    }
    def app(environ, start_response):
        kind, _, length = environ["QUERY_STRING"].partition(",")
        start_response("200 OK", [("Content-Length", length)] if length else [])
        file = KINDS[kind]()
        environ["wsgi.file_wrapper"](file)
        wrapper = environ["wsgi.file_wrapper"](file, 4096)
        return wrapper if environ["PATH_INFO"] == "/" else (x for x in wrapper)
"""


@pytest.mark.every_python
def test_files(serve: Serve, tmp_path: Path) -> None:
    import gzip

    data = bytes(range(256)) * 1000
    (tmp_path / "data").write_bytes(data)
    (tmp_path / "empty").touch()
    (tmp_path / "data.gz").write_bytes(gzip.compress(data))
    worker = serve(FILES)
    for kind, offset in (("plain", 0), ("raw", 0), ("sought", 10), ("proxy", 0)):
        response = worker.slot.get(f"/?{kind}")
        assert (response.pieces, response.aborted) == ([], False), kind
        (file,) = response.files
        assert (file.offset, file.length) == (offset, len(data) - offset)
        assert response.header("content-length") == str(len(data) - offset)
        assert file.read() == data[offset:]
        # Behind a middleware that wraps the iterator it is a body like any other.
        assert worker.slot.get(f"/wrapped?{kind}").body == data[offset:]
        head = worker.slot.exchange(method="HEAD", target=f"/?{kind}")
        assert (head.files, head.body) == ([], b"")
        assert head.header("content-length") == str(len(data) - offset)
    for kind, body in (
        ("memory", b"m" * 600_000),
        ("gzip", data),
        ("decrypting", data.upper()),
        ("pipe", b"through a pipe"),
        ("empty", b""),
    ):
        response = worker.slot.get(f"/?{kind}")
        assert (response.files, response.body) == ([], body), kind
    part = worker.slot.get("/?plain,100")
    assert (part.files[0].read(), part.aborted) == (data[:100], False)
    too_short = worker.slot.get("/?plain,999999")
    assert (too_short.files[0].read(), too_short.aborted) == (data, True)


def test_files_are_closed_and_not_leaked(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 1000)
    worker = serve(FILES)
    fds = Path(f"/proc/{worker.process.pid}/fd")
    if not fds.exists():
        pytest.skip("no /proc here")
    before = len(list(fds.iterdir()))
    for _ in range(20):
        worker.slot.get("/?plain").files[0].read()
        worker.slot.get("/?proxy,5").files[0].read()
    # The last close() comes after the last frame.
    eventually(lambda: len(list(fds.iterdir())) <= before)


def test_the_client_goes_away(serve: Serve, tmp_path: Path) -> None:
    worker = serve(
        """
        import pathlib
        def app(environ, start_response):
            start_response("200 OK", [])
            try:
                while True:
                    yield b"x" * 10_000
            finally:
                pathlib.Path("closed").touch()
        """
    )
    worker.slot.send()
    worker.slot.frame()
    worker.slot.cancel()
    frames = 1
    while not (frame := worker.slot.frame()).flags:
        frames += 1
    assert frame.flags == 2
    assert frames < 1000
    (tmp_path / "closed").unlink()
    # The slot is as good as before.
    worker.slot.send()
    worker.slot.frame()
    worker.slot.cancel()


def test_a_client_that_goes_away_makes_write_fail(serve: Serve) -> None:
    worker = serve(
        """
        import time
        def app(environ, start_response):
            write = start_response("200 OK", [])
            while True:
                write(b"x")
                time.sleep(0.001)
        """
    )
    worker.slot.send()
    worker.slot.frame()
    worker.slot.cancel()
    while not worker.slot.frame().flags:
        pass
    assert worker.stderr() == "", "a client that goes away is no error of the app"


def test_a_cancel_that_comes_too_late_is_forgotten(serve: Serve) -> None:
    worker = serve(
        """
        def app(environ, start_response):
            start_response("200 OK", [])
            for _ in range(10):
                yield b"x"
        """
    )
    for _ in range(3):
        assert worker.slot.get().body == b"x" * 10
        worker.slot.cancel()


def test_slow_work_after_the_response_holds_the_end_back(serve: Serve) -> None:
    worker = serve(
        """
        import time
        class Body(list):
            def close(self):
                time.sleep(0.02)
        def app(environ, start_response):
            start_response("200 OK", [])
            return Body([b"abc"]) if environ["QUERY_STRING"] else [b"abc"]
        """
    )
    for _ in range(2):
        assert worker.slot.get("/?slow").frames == 1
    # Learned: whole body first, the end when the slot is free again.
    held = worker.slot.get("/?slow")
    assert (held.frames, held.body, held.header("content-length")) == (2, b"abc", "3")
    assert worker.slot.get("/").frames == 2
    assert worker.slot.get("/").frames == 1


def test_a_failure_after_the_whole_body_is_no_cut_response(serve: Serve) -> None:
    worker = serve(
        """
        import time
        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", "3")])
            yield b"abc"
            time.sleep(0.01)
            if environ["QUERY_STRING"]:
                raise KeyError("too late")
        """
    )
    for target in ("/?raise", "/", "/", "/?raise", "/"):
        response = worker.slot.get(target)
        assert (response.body, response.aborted) == (b"abc", False)
    assert worker.stderr().count("KeyError: 'too late'") == 2


def test_a_gigabyte_takes_no_memory(serve: Serve) -> None:
    worker = serve(
        """
        BLOCK = b"x" * (1 << 20)
        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", str(1 << 30))])
            for _ in range(1 << 10):
                yield BLOCK
        """
    )

    def peak_kib() -> int:
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    worker.slot.get(method="HEAD")
    before = peak_kib()
    worker.slot.send()
    received = 0
    digest = hashlib.sha256()
    while True:
        frame = worker.slot.frame()
        assert len(frame.payload) <= 300 * 1024
        received += len(frame.payload)
        digest.update(frame.payload[:1])
        if frame.flags:
            break
    assert received - (1 << 30) < 100
    assert peak_kib() - before < 4 * 1024


def test_a_gateway_that_speaks_nonsense_is_left(serve: Serve) -> None:
    worker = serve(
        """
        def app(environ, start_response):
            start_response("200 OK", [])
            return [b"abc"]
        """
    )
    worker.slot.stream.sendall(b"\xff" * 64)
    with pytest.raises((ClosedError, ConnectionResetError)):
        worker.slot.frame()
    again = worker.gateway.accept().welcome()
    assert again.get().body == b"abc"
    again.close()
