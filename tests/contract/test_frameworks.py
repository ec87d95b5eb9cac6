"""Starlette, FastAPI and Litestar: what their users use, unmodified, through sockets.

gunicorn's grid (test_gunicorn_asgi.py) asks the same of six frameworks in breadth; here are the places where a server helps: files by
their path, events without delay, uploads, work after the answer, state of the lifespan.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from harness import places
from harness.processes import wait_until
from harness.site import Site

FILE_BYTES = 3_000_000


@pytest.fixture(scope="module", params=["starlette", "fastapi", "litestar"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One worker for all tests of a framework."""
    file = tmp_path_factory.mktemp("files") / "large.bin"
    file.write_bytes(os.urandom(FILE_BYTES))
    flags = ("--app", f"on_{request.param}:application", "--workers", "1", "--concurrency", "8")
    found = Site(places.APPS / "frameworks", flags=flags, env={"FILE": str(file)})
    found.start()
    # The bug is the app's, and frameworks log it in their own ways.
    found.allow_log("a bug")
    yield found
    assert found.close() == []


def test_routes(site: Site) -> None:
    assert site.get("/hello/you?mood=well").text == "hello you, well"
    assert site.get("/hello/you").text == "hello you, fine"
    assert site.get("/nowhere").status_code == 404
    assert site.post("/hello/you").status_code == 405


def test_a_streamed_response(site: Site) -> None:
    assert site.get("/stream").text == "".join(f"piece {number}\n" for number in range(5))


def test_events_come_as_they_are_sent(site: Site) -> None:
    with site.client() as client, client.stream("GET", "/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        seen = ((line, time.monotonic()) for line in response.iter_lines())
        times = [(line, at) for line, at in seen if line.startswith("data: ")]
    assert [line for line, _ in times] == ["data: 0", "data: 1", "data: 2"]
    # 0.2 s apart: had they been held back, they would have come together.
    assert times[2][1] - times[0][1] > 0.25


def test_a_websocket(site: Site) -> None:
    with connect(f"ws://127.0.0.1:{site.port}/ws") as socket:
        for word in ("one", "two", "x" * 100_000):
            socket.send(word)
            assert socket.recv(timeout=10) == f"echo {word}"


def test_work_after_the_answer_does_not_delay_it(site: Site) -> None:
    started = time.monotonic()
    before = int(site.get("/background").text.split()[0])
    assert time.monotonic() - started < 0.2
    wait_until(lambda: int(site.get("/background").text.split()[0]) > before, 5, "the work is done")


def test_the_state_of_the_lifespan(site: Site) -> None:
    assert site.get("/state").text == "made at the start"


def test_a_file_response(site: Site) -> None:
    whole = site.get("/file")
    assert whole.status_code == 200
    assert whole.content == Path(site.env["FILE"]).read_bytes()
    assert "given.bin" in whole.headers["content-disposition"]


def test_an_upload(site: Site) -> None:
    given = {"file": ("cat.jpg", b"m" * 2_000_000, "image/jpeg")}
    answer = site.post("/upload", files=given, data={"word": "miaow"})
    assert answer.status_code == 200
    assert answer.json() == {"name": "cat.jpg", "bytes": 2_000_000, "word": "miaow"}


def test_a_bug_costs_its_own_request_only(site: Site) -> None:
    assert site.get("/fails").status_code == 500
    assert site.get("/hello/you").text == "hello you, fine"
