"""How an ASGI worker begins and ends, and what becomes of exchanges whose client, gateway or app goes away."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from link import HELLO as HELLO_FRAME
from link import ClosedError
from workers import Serve, ask_for_a_key_error, eventually

HELLO = """
    import asyncio, atexit, pathlib, time
    atexit.register(lambda: pathlib.Path("atexit").touch())
    async def app(scope, receive, send):
        path = scope["path"]
        if path == "/hold":
            pathlib.Path("begun").touch()
            while not pathlib.Path("go").exists(): await asyncio.sleep(0.005)
        if path == "/stuck":
            pathlib.Path("begun").touch()
            time.sleep(600)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": path.encode()})
        if path == "/background":
            while not pathlib.Path("go").exists(): await asyncio.sleep(0.005)
            pathlib.Path("background").touch()
"""


@pytest.mark.every_python
def test_hello_names_worker_and_stream(serve_asgi: Serve, package_version: str) -> None:
    worker = serve_asgi(
        HELLO, concurrency=3, long_lived_max=77, worker=7, generation=4, token="a secret", pool=2
    )
    hello = {
        "version": package_version,
        "worker": 7,
        "generation": 4,
        "pool": 2,
        "pid": worker.process.pid,
        "token": "a secret",
    }
    for number, slot in enumerate(worker.slots):
        assert slot.hello == {**hello, "channel": "slot", "slot": number, "slots": 3}
        assert slot.get("/a").body == b"/a"
    assert worker.link.hello == {**hello, "channel": "long", "slot": 0, "slots": 77}


def test_none_is_a_number_of_websockets_too(serve_asgi: Serve) -> None:
    worker = serve_asgi(HELLO, long_lived_max=0)
    assert worker.link.hello["slots"] == 0
    assert worker.slot.get("/x").body == b"/x"


def test_slots_serve_at_the_same_time(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(HELLO, concurrency=4)
    for slot in worker.slots[:3]:
        slot.send(target="/hold")
    for number in range(20):
        assert worker.slots[3].get(f"/{number}").body == f"/{number}".encode()
    (tmp_path / "go").touch()
    for slot in worker.slots[:3]:
        assert slot.response().body == b"/hold"


@pytest.mark.every_python
def test_retired_streams_end_the_worker_in_order(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(HELLO, concurrency=2)
    worker.slots[0].retire()
    assert worker.slots[0].is_closed()
    assert worker.slots[1].get().status == 200
    worker.link.retire()
    assert worker.link.is_closed()
    assert worker.process.poll() is None
    worker.slots[1].retire()
    assert worker.wait() == 0
    assert (tmp_path / "atexit").exists()
    assert worker.stderr() == ""


@pytest.mark.every_python
@pytest.mark.parametrize("how", ["exit", "sigterm"])
def test_told_to_stop_it_finishes_what_it_has(serve_asgi: Serve, tmp_path: Path, how: str) -> None:
    worker = serve_asgi(HELLO, concurrency=2)
    busy, idle = worker.slots
    busy.send(target="/hold")
    eventually((tmp_path / "begun").exists)
    if how == "exit":
        worker.tell({"type": "exit"})
    else:
        worker.process.send_signal(signal.SIGTERM)
    assert idle.is_closed()
    assert worker.link.is_closed()
    (tmp_path / "go").touch()
    assert busy.response().body == b"/hold"
    assert busy.is_closed()
    assert worker.wait() == 0
    assert (tmp_path / "atexit").exists()
    assert worker.stderr() == ""


def test_a_request_that_was_sent_before_the_stop_is_served(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(HELLO)
    worker.slot.send(target="/hold")
    eventually((tmp_path / "begun").exists)
    worker.slot.send(target="/queued")
    worker.tell({"type": "exit"})
    assert worker.link.is_closed()
    (tmp_path / "go").touch()
    assert worker.slot.response().body == b"/hold"
    assert worker.slot.response().body == b"/queued"
    assert worker.slot.is_closed()
    assert worker.wait() == 0


def test_it_leaves_with_its_supervisor_even_when_it_is_stuck(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(HELLO)
    worker.slot.send(target="/stuck")
    eventually((tmp_path / "begun").exists)
    worker.lines.close()
    worker.control.close()
    assert worker.wait() == 70


@pytest.mark.every_python
def test_a_gateway_that_died_is_met_again(serve_asgi: Serve) -> None:
    worker = serve_asgi(HELLO, concurrency=2)
    for _ in range(3):
        for slot in [*worker.slots, worker.link]:
            slot.close()
        worker.slots = []
        worker.meet()
        assert [slot.hello["slot"] for slot in worker.slots] == [0, 1]
        for slot in worker.slots:
            assert slot.get("/again").body == b"/again"
    assert worker.stderr() == ""


def test_a_worker_that_is_refused_says_why_and_leaves(serve_asgi: Serve) -> None:
    worker = serve_asgi(HELLO)
    worker.slot.close()
    worker.gateway.accept().refuse("another version")
    assert worker.wait() == 70
    assert 'the gateway refused this worker detail="another version"' in worker.stderr()


def test_a_request_that_makes_no_sense_costs_its_stream_only(serve_asgi: Serve) -> None:
    worker = serve_asgi(HELLO, concurrency=2)
    first, second = worker.slots
    for nonsense in [
        b"\x03\x00\x00\x00\x01\x00\x00\x00abc",
        b"\xff" * 8,
        bytes([0, 0, 0, 0, HELLO_FRAME, 0, 0, 0]),
    ]:
        first.stream.sendall(nonsense)
        assert first.is_closed()
        first.close()
        first = worker.gateway.accept().welcome()
        assert first.hello["slot"] == 0
        assert first.get("/1").body == b"/1"
        assert second.get("/2").body == b"/2"
    worker.slots = [first, second]


GONE = """
    import asyncio, json, pathlib
    def note(what): print(what, file=open("noted", "a"), flush=True)
    async def app(scope, receive, send):
        path = scope["path"]
        if path == "/":
            await send({"type": "http.response.start", "status": 200})
            return await send({"type": "http.response.body", "body": b"fine"})
        pathlib.Path("begun").touch()
        if path == "/listen":
            assert (await receive())["type"] == "http.request"
            note((await receive())["type"])
            # Just told: what is sent now is dropped without a word.
            await send({"type": "http.response.start", "status": 200})
            note("went on")
        if path == "/body":
            while True:
                message = await receive()
                if message["type"] == "http.disconnect": break
            note("http.disconnect")
        if path == "/stream":
            await send({"type": "http.response.start", "status": 200})
            try:
                while True:
                    await send({"type": "http.response.body", "body": b"tick", "more_body": True})
                    await asyncio.sleep(0.005)
            except OSError as error:
                note(type(error).__name__)
                raise
        if path == "/large":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": bytes(20_000_000)})
            note("sent")
        if path == "/fails":
            await receive()
            await receive()
            raise ValueError("nobody listens")
        if path == "/told":
            await receive(); await receive()
            await asyncio.sleep(1.1)
            try: await send({"type": "http.response.start", "status": 200})
            except ConnectionResetError: note("raised")
"""


def noted(directory: Path) -> str:
    path = directory / "noted"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("path", ["/listen", "/body", "/stream", "/large", "/fails"])
def test_a_client_that_goes_away(serve_asgi: Serve, tmp_path: Path, path: str) -> None:
    worker = serve_asgi(GONE)
    request = {"method": "POST", "stream": True} if path == "/body" else {}
    worker.slot.send(target=path, **request)
    if path == "/body":
        worker.slot.send_body(b"some")
    eventually((tmp_path / "begun").exists)
    time.sleep(0.05)
    worker.slot.cancel()
    response = worker.slot.response()
    assert response.aborted
    wanted = {
        "/listen": "http.disconnect\nwent on\n",
        "/body": "http.disconnect\n",
        "/stream": "ConnectionResetError\n",
        "/large": "sent\n",
        "/fails": "",
    }
    eventually(lambda: noted(tmp_path) == wanted[path])
    # And the slot is as good as before.
    assert worker.slot.get("/").body == b"fine"
    assert worker.stderr() == ""


@pytest.mark.parametrize("path", ["/listen", "/body", "/stream", "/large"])
def test_a_gateway_that_goes_away(serve_asgi: Serve, tmp_path: Path, path: str) -> None:
    worker = serve_asgi(GONE)
    worker.slot.send(target=path, **({"method": "POST", "stream": True} if path == "/body" else {}))
    eventually((tmp_path / "begun").exists)
    time.sleep(0.02)
    worker.slot.close()
    again = worker.gateway.accept().welcome()
    assert again.get("/").body == b"fine"
    eventually(lambda: noted(tmp_path) != "")
    worker.slots = [again]
    assert worker.stderr() == ""


def test_who_was_told_long_ago_is_told_again(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(GONE)
    worker.slot.send(target="/told")
    worker.slot.cancel()
    assert worker.slot.response().aborted
    assert noted(tmp_path) == "raised\n"


@pytest.mark.every_python
def test_an_app_goes_on_after_its_answer(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(HELLO, concurrency=2)
    first, second = worker.slots
    # As many as there are slots may go on; their slots are free.
    assert first.get("/background").body == b"/background"
    assert first.get("/background").body == b"/background"
    assert second.get("/next").body == b"/next"
    # Of one more the end is held back.
    second.send(target="/background")
    second.stream.settimeout(0.2)
    frame = second.frame()
    assert not frame.flags
    with pytest.raises(TimeoutError):
        second.frame()
    (tmp_path / "go").touch()
    second.stream.settimeout(10)
    assert second.frame().flags == 1
    for slot in worker.slots:
        eventually(lambda slot=slot: slot.get("/next").frames == 1)
    assert worker.stderr() == ""


def test_a_worker_ends_after_what_it_does_behind_answers(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(HELLO)
    assert worker.slot.get("/background").status == 200
    worker.slot.retire()
    worker.link.retire()
    assert worker.slot.is_closed()
    time.sleep(0.1)
    assert worker.process.poll() is None
    (tmp_path / "go").touch()
    assert worker.wait() == 0
    assert (tmp_path / "background").exists()


RAISES = """
    import asyncio
    async def app(scope, receive, send):
        path = scope["path"]
        if path == "/before": raise KeyError("lost")
        if path == "/nothing": return
        if path == "/exit": raise SystemExit(3)
        if path == "/interrupt": raise KeyboardInterrupt
        if path == "/cancelled": raise asyncio.CancelledError
        await send({"type": "http.response.start", "status": 200})
        if path == "/after-start": raise KeyError("lost")
        if path == "/half": return
        await send({"type": "http.response.body", "body": b"fine", "more_body": True})
        if path == "/later": raise KeyError("lost")
        if path == "/unfinished": return
        await send({"type": "http.response.body"})
        if path == "/behind": raise KeyError("lost")
"""


@pytest.mark.every_python
@pytest.mark.parametrize("log_json", [False, True])
def test_an_exception_is_a_500_with_the_request_id_and_one_entry(serve_asgi: Serve, log_json: bool) -> None:
    worker = serve_asgi(RAISES, log_json=log_json)
    ask_for_a_key_error(worker, log_json)
    assert worker.slot.get("/").body == b"fine"


def test_a_head_that_was_not_sent_is_replaced(serve_asgi: Serve) -> None:
    worker = serve_asgi(RAISES)
    assert worker.slot.get("/after-start").status == 500
    response = worker.slot.exchange(method="HEAD", target="/before")
    assert (response.status, response.body) == (500, b"")


def test_an_answer_that_has_begun_is_cut_off(serve_asgi: Serve) -> None:
    worker = serve_asgi(RAISES)
    response = worker.slot.get("/later")
    assert (response.status, response.body, response.aborted) == (200, b"fine", True)
    response = worker.slot.get("/behind")
    assert (response.status, response.body, response.aborted) == (200, b"fine", False)
    eventually(lambda: worker.stderr().count("KeyError: 'lost'") == 2)


def test_an_app_that_returns_too_early(serve_asgi: Serve) -> None:
    worker = serve_asgi(RAISES)
    assert worker.slot.get("/nothing").status == 500
    assert worker.stderr().count("ASGI callable returned without starting response.") == 1
    assert worker.slot.get("/half").status == 500
    assert worker.slot.get("/unfinished").aborted
    assert worker.stderr().count("ASGI callable returned without completing response.") == 2


@pytest.mark.parametrize("path", ["/exit", "/interrupt", "/cancelled"])
def test_an_exit_ends_the_request_only(serve_asgi: Serve, path: str) -> None:
    worker = serve_asgi(RAISES)
    for _ in range(2):
        assert worker.slot.get(path).status == 500
    assert worker.slot.get("/").body == b"fine"
    assert worker.stderr().count("the app raised an exception") == 2


def test_the_child_of_a_fork_is_no_worker(serve_asgi: Serve) -> None:
    worker = serve_asgi(
        """
        import os
        async def app(scope, receive, send):
            if scope["type"] == "http" and os.fork() == 0: return
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"parent"})
        """
    )
    for _ in range(3):
        assert worker.slot.get().body == b"parent"
    assert worker.stderr() == ""


def test_children_of_forks_end_like_any_process(serve_asgi: Serve) -> None:
    worker = serve_asgi(
        """
        import asyncio, multiprocessing, time
        fork = multiprocessing.get_context("fork")
        def terminated():
            child = fork.Process(target=time.sleep, args=(600,), daemon=True)
            child.start()
            child.terminate()
            child.join(5)
            ended = child.exitcode
            if ended is None: child.kill()
            return ended
        async def app(scope, receive, send):
            ended = terminated() if scope["path"] == "/here" else await asyncio.to_thread(terminated)
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": str(ended).encode()})
        """
    )
    for path in ["/here", "/thread"] * 5:
        assert worker.slot.get(path).body == b"-15"


def test_streams_end_under_load(serve_asgi: Serve) -> None:
    worker = serve_asgi(HELLO, concurrency=4)
    while worker.slots:
        for _ in range(20):
            for slot in worker.slots:
                slot.send(target="/x")
            for slot in worker.slots:
                assert slot.response().body == b"/x"
        slot = worker.slots.pop()
        slot.retire()
        with pytest.raises((ClosedError, ConnectionResetError)):
            slot.frame()
    worker.link.retire()
    assert worker.wait() == 0
    assert worker.stderr() == ""
