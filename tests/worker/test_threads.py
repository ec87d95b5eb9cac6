"""Several slots of one process: who serves what, under load and when an app waits."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from link import Slot
from workers import Serve

MIXED = """
    import os, time
    def app(environ, start_response):
        kind, _, number = environ["PATH_INFO"].strip("/").partition("/")
        body = environ["wsgi.input"].read()
        if kind == "spin":
            end = time.perf_counter() + 0.003
            while time.perf_counter() < end: pass
        if kind == "hold":
            while not os.path.exists("release-" + number): time.sleep(0.001)
        start_response("200 OK", [("X-Number", number)])
        if kind == "stream":
            return (piece for piece in [number.encode(), b":", body])
        return [number.encode() + b":" + body]
"""


@pytest.mark.every_python
def test_answers_belong_to_their_requests(serve: Serve) -> None:
    worker = serve(MIXED, threads=4)
    wrong: list[str] = []

    def ask(place: int, slot: Slot) -> None:
        for number in range(300):
            name = f"{place}-{number}"
            kind = ("spin", "stream", "plain", "plain", "plain")[number % 5]
            body = name.encode() * (1 + 1000 * (number % 3))
            request = {"method": "POST", "target": f"/{kind}/{name}"}
            if number % 4 == 0:
                slot.send(stream=True, **request)
                slot.send_body(body[:100])
                slot.send_body(body[100:], end=True)
            else:
                slot.send(body=body, **request)
            response = slot.response()
            if response.body != name.encode() + b":" + body or response.header("x-number") != name:
                wrong.append(name)

    threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(worker.slots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert wrong == []
    for slot in worker.slots:
        slot.retire()
    assert worker.wait() == 0
    assert worker.stderr() == ""


def test_a_slot_is_never_left_alone_while_another_request_waits(serve: Serve, tmp_path: Path) -> None:
    worker = serve(MIXED, threads=2)
    first, second = worker.slots
    for number in range(10):
        # The second request arrives while the first runs, and may be served by the same thread.
        first.send(target="/spin/1")
        second.send(target=f"/hold/{number}")
        assert first.response().body == b"1:"
        # It is answered while the other one is held, or never.
        assert first.get("/plain/3").body == b"3:"
        (tmp_path / f"release-{number}").touch()
        assert second.response().body == f"{number}:".encode()


def test_slots_end_one_by_one_under_load(serve: Serve) -> None:
    worker = serve(MIXED, threads=4)
    for slot in worker.slots:
        for _ in range(20):
            for other in worker.slots:
                other.send(target="/spin/1")
            for other in worker.slots:
                assert other.response().status == 200
        slot.retire()
        assert slot.is_closed()
        worker.slots = [other for other in worker.slots if other is not slot]
    assert worker.wait() == 0
    assert worker.stderr() == ""


def test_gateways_die_under_load(serve: Serve) -> None:
    worker = serve(MIXED, threads=4)
    for _ in range(5):
        for slot in worker.slots:
            slot.send(target="/spin/1")
        for slot in worker.slots:
            slot.close()
        worker.slots = [worker.gateway.accept().welcome() for _ in range(4)]
        assert sorted(slot.hello["slot"] for slot in worker.slots) == [0, 1, 2, 3]
        for slot in worker.slots:
            slot.send(target="/plain/7")
        for slot in worker.slots:
            assert slot.response().body == b"7:"
    assert worker.stderr() == ""


def test_a_request_that_makes_no_sense_costs_its_stream_only(serve: Serve) -> None:
    worker = serve(MIXED, threads=2)
    first, second = worker.slots
    first.stream.sendall(b"\x03\x00\x00\x00\x01\x00\x00\x00abc")
    assert first.is_closed()
    again = worker.gateway.accept().welcome()
    assert again.hello["slot"] == 0
    assert again.get("/plain/1").body == b"1:"
    assert second.get("/plain/2").body == b"2:"
    worker.slots = [again, second]
