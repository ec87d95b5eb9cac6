"""Slow, greedy and absent clients: none of them takes a worker from the others."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import threading
import time

import pytest

from harness.processes import wait_until
from harness.raw import Closed, Raw
from harness.site import Site, Start

pytestmark = pytest.mark.any_python

# What the slow ones send and take; larger than any socket buffer.
BIG = 20_000_000


@pytest.mark.short
def test_a_slow_upload_holds_no_worker(plain: Start) -> None:
    site = plain(workers=1, threads=1)
    with site.raw() as slow:
        slow.request("POST /length", "Content-Length: 300000").send(b"x" * 100_000)
        # The only thread is free all the time.
        for _ in range(5):
            assert site.get("/hello").text == "hello"
            slow.send(b"x" * 20_000)
        slow.send(b"x" * 100_000)
        assert slow.answer().text == "300000 of 300000"


@pytest.mark.short
def test_a_slow_download_holds_no_worker(plain: Start) -> None:
    site = plain(workers=1, threads=1)
    with site.raw() as slow:
        slow.request(f"GET /big?size={BIG}")
        # The app is done long before the client has taken a tenth of it.
        wait_until(lambda: "big closed" in site.get("/events").json(), 10, "the app is done")
        body = slow.answer().body
    assert len(body) == BIG


@pytest.mark.short
def test_a_client_that_leaves_lets_the_app_close_its_response(plain: Start) -> None:
    site = plain(workers=1, threads=2)
    with site.raw() as client:
        client.request("GET /stream?lines=1000&pause=0.05")
        client.head()
        client.reset()
    wait_until(lambda: "stream closed" in site.get("/events").json(), 15, "close() is called")
    assert "stream finished" not in site.get("/events").json()
    wait_until(lambda: site.status()["gateway"]["slots_busy"] == 0, 5, "the thread is free")


def test_a_client_that_leaves_the_queue_is_not_served(plain: Start) -> None:
    site = plain(workers=1, threads=1)
    with site.raw() as first:
        first.request("GET /sleep?seconds=1.5&say=first")
        wait_until(lambda: site.status()["gateway"]["slots_busy"] == 1, 5, "the thread is busy")
        gone = site.raw().request("GET /stream?lines=1")
        wait_until(lambda: site.status()["gateway"]["queue_depth"] == 1, 5, "it waits")
        gone.close()
        wait_until(lambda: site.status()["gateway"]["queue_depth"] == 0, 5, "it is taken off the queue")
        assert first.answer().text == "first"
    assert site.get("/events").json() == []


@pytest.mark.short
def test_a_full_queue_is_a_503_with_retry_after(plain: Start) -> None:
    site = plain(
        workers=1, threads=1, env={"QUINTET_QUEUE_DEPTH_MAX": "2", "QUINTET_QUEUE_RETRY_AFTER": "7s"}
    )
    site.allow_log("queue")
    held = [site.raw().request("GET /sleep?seconds=1.5&say=held") for _ in range(3)]
    wait_until(lambda: site.status()["gateway"]["queue_depth"] == 2, 5, "the queue is full")
    response = site.get("/hello")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"
    for client in held:
        assert client.answer().text == "held"
        client.close()
    assert site.get("/hello").status_code == 200


def test_who_waits_too_long_is_a_503(plain: Start) -> None:
    site = plain(workers=1, threads=1, env={"QUINTET_TIMEOUTS_QUEUE": "500ms"})
    site.allow_log("queue")
    with site.raw() as busy:
        busy.request("GET /sleep?seconds=4&say=busy")
        wait_until(lambda: site.status()["gateway"]["slots_busy"] == 1, 5, "the thread is busy")
        response = site.get("/hello")
        assert response.status_code == 503
        assert "retry-after" in response.headers
        assert busy.answer().text == "busy"


def test_slow_requests_do_not_stand_before_quick_ones(plain: Start) -> None:
    """One queue for all threads: a quick request never waits behind a slow one while a thread is free."""
    site = plain(workers=2, threads=2)
    slow = [site.raw().request("GET /sleep?seconds=4&say=slow") for _ in range(3)]
    wait_until(lambda: site.status()["gateway"]["slots_busy"] == 3, 5, "three threads are busy")
    for _ in range(20):
        assert site.get("/hello").text == "hello"
    assert all(client.is_silent(0.01) for client in slow), "the quick ones were all answered before"
    for client in slow:
        assert client.answer().text == "slow"
        client.close()


def test_the_least_busy_process_is_chosen(plain: Start) -> None:
    """Two threads of one process share Python's lock: two requests go to two processes."""
    site = plain(workers=2, threads=4)
    for _ in range(5):
        clients = [site.raw().request("GET /sleep?seconds=0.3") for _ in range(2)]
        answers = {client.answer().text for client in clients}
        assert len(answers) == 2, answers
        for client in clients:
            client.close()


@pytest.mark.timeout(180)
def test_ten_thousand_idle_connections_are_held(plain: Start, connections: list[Raw]) -> None:
    """Or as many as this machine lets one process open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(10_000, hard - 200)
    assert wanted > 500, f"the limit of descriptors is {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        site = plain(workers=1)
        assert site.get("/hello").text == "hello"
        before = _resident_kib(site.gateway())
        for index in range(wanted):
            # Several source addresses: each has its own range of ports.
            connections.append(site.raw(source=f"127.0.0.{1 + index % 4}"))
            if index % 10 == 0:
                # Some have already been used and are kept alive.
                assert connections[-1].request("GET /hello").answer().status == 200
        wait_until(lambda: site.status()["gateway"]["connections"] >= wanted, 30, "all are accepted")
        each = (_resident_kib(site.gateway()) - before) / wanted
        # A few kilobytes each; this also catches a buffer that is taken before there is anything to read.
        assert each < 12, f"{each:.1f} KiB a connection"
        for _ in range(50):
            assert site.get("/hello").text == "hello"
        for index in (0, 5, wanted // 2, wanted - 1):
            assert connections[index].request("GET /hello").answer().text == "hello"
    finally:
        for raw in connections:
            raw.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _resident_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_too_many_connections_are_told_so(plain: Start) -> None:
    site = plain(workers=1, env={"QUINTET_LIMITS_CONNECTIONS_MAX": "5"})
    site.allow_log("connection")
    held = [site.raw() for _ in range(5)]
    for raw in held:
        assert raw.request("GET /hello").answer().status == 200
    with site.raw() as more:
        try:
            assert more.request("GET /hello").answer().status == 503
        except (Closed, BrokenPipeError, ConnectionResetError):
            pytest.fail("closed without an answer")
    for raw in held:
        raw.close()
    wait_until(lambda: site.get("/hello").status_code == 200, 5, "there is room again")


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 5_000_000])
def test_bodies_of_every_size_arrive_whole(plain: Start, size: int) -> None:
    site = plain(workers=1)
    body = os.urandom(size)
    for framing in ({}, {"Transfer-Encoding": "chunked"}):
        content = iter([body[: size // 2], body[size // 2 :]]) if framing else body
        response = site.post("/echo?how=sized&size=10000", content=content)
        assert response.status_code == 200
        assert hashlib.sha256(response.content).digest() == hashlib.sha256(body).digest()


class TestLimits:
    """What is too large is refused before Python hears of it."""

    @pytest.fixture
    def site(self, plain: Start) -> Site:
        limits = {
            "QUINTET_LIMITS_BODY_MAX": "100KiB",
            "QUINTET_LIMITS_LINE_MAX": "1KiB",
            "QUINTET_LIMITS_HEADERS_MAX": "2KiB",
            "QUINTET_LIMITS_HEADER_COUNT_MAX": "20",
        }
        return plain(workers=1, env=limits)

    def test_413_for_a_body_that_says_it_is_too_long(self, site: Site) -> None:
        with site.raw() as client:
            client.request("POST /length", "Content-Length: 1000000", "Expect: 100-continue")
            answer = client.answer()
            assert answer.status == 413
            assert client.is_closed()

    def test_413_for_a_body_that_turns_out_too_long(self, site: Site) -> None:
        with site.raw() as client:
            client.request("POST /length", "Transfer-Encoding: chunked")
            chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
            for _ in range(8):
                client.send(chunk)
            assert client.answer().status == 413
            assert client.is_closed()

    def test_414_for_a_long_line(self, site: Site) -> None:
        with site.raw() as client:
            assert client.request("GET /" + "x" * 2000).answer().status == 414
            assert client.is_closed()

    def test_431_for_long_fields(self, site: Site) -> None:
        with site.raw() as client:
            assert client.request("GET /hello", "X-Long: " + "x" * 3000).answer().status == 431
            assert client.is_closed()

    def test_431_for_many_fields(self, site: Site) -> None:
        with site.raw() as client:
            assert client.request("GET /hello", *(f"X-{n}: 1" for n in range(30))).answer().status == 431
            assert client.is_closed()

    def test_what_is_just_small_enough_passes(self, site: Site) -> None:
        assert site.get("/hello?" + "x" * 900).status_code == 200
        assert site.post("/length", content=b"x" * 102_400).text == "102400 of 102400"


class TestTimeouts:
    """Every phase has an end."""

    @pytest.fixture
    def site(self, plain: Start) -> Site:
        timeouts = dict.fromkeys(("HEADER", "BODY", "KEEP_ALIVE", "WRITE"), "700ms")
        return plain(workers=1, env={f"QUINTET_TIMEOUTS_{name}": value for name, value in timeouts.items()})

    def test_408_for_a_head_that_stops(self, site: Site) -> None:
        with site.raw() as client:
            client.send("GET /hello HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
            assert client.answer().status == 408
            assert client.is_closed()

    def test_408_for_a_body_that_stops(self, site: Site) -> None:
        with site.raw() as client:
            client.request("POST /length", "Content-Length: 10").send(b"123")
            assert client.answer().status == 408
            assert client.is_closed()

    def test_a_head_by_the_drop_does_not_get_more_time(self, site: Site) -> None:
        with site.raw() as client:
            started = time.monotonic()
            client.send("GET /hello HTTP/1.1\r\n")
            # Each drop is well in time; the head as a whole is not.
            while client.is_silent(0.1):
                assert time.monotonic() - started < 10
                client.send("X-Drop: 1\r\n")
            assert client.answer().status == 408

    def test_an_idle_connection_is_closed_without_a_word(self, site: Site) -> None:
        with site.raw() as client:
            assert client.request("GET /hello").answer().status == 200
            assert client.is_closed()

    def test_a_client_that_takes_nothing_is_cut(self, site: Site) -> None:
        with site.raw() as client:
            client.request(f"GET /big?size={5 * BIG}")
            time.sleep(3)
            with pytest.raises(Closed):
                client.answer()
                client.exactly(5 * BIG)
        wait_until(lambda: site.status()["gateway"]["slots_busy"] == 0, 10, "the thread is free")


def test_slow_clients_beyond_the_spool_are_counted_and_capped(plain: Start) -> None:
    """Where memory and disk are used up the worker must wait, but not for too many and not for long."""
    site = plain(
        workers=1,
        threads=4,
        env={
            "QUINTET_BUFFERS_RESPONSE_MEMORY": "64KiB",
            "QUINTET_BUFFERS_RESPONSE_DISK": "64KiB",
            "QUINTET_BUFFERS_STREAMING_MAX": "2",
            "QUINTET_BUFFERS_STREAMING_TIMEOUT": "4s",
        },
    )
    site.allow_log("slow|stream|cut")
    greedy = [site.raw().request(f"GET /big?size={BIG}") for _ in range(4)]
    try:
        # Two of the four are cut, so that two threads serve the others.
        wait_until(lambda: site.status()["gateway"]["slots_busy"] <= 2, 8, "the slowest are cut")
        assert site.get("/hello").text == "hello"
        wait_until(lambda: site.status()["gateway"]["slots_busy"] == 0, 15, "the rest is cut in time")
    finally:
        for client in greedy:
            client.close()


@pytest.mark.short
def test_a_streamed_upload_reaches_the_app_while_it_is_sent(plain: Start) -> None:
    site = plain(workers=1, env={"QUINTET_BUFFERS_REQUEST_STREAM": "/echo"})
    with site.raw() as client:
        client.request("POST /echo?how=5", "Content-Length: 1000000").send(b"12345")
        # It answers after five bytes; the other 999,995 were never sent.
        assert client.answer().text == "12345"


def test_parallel_clients_get_their_own_answers(plain: Start) -> None:
    site = plain(workers=2, threads=4)
    wrong: list[str] = []

    def client(number: int) -> None:
        with site.client() as http:
            for turn in range(40):
                said = f"{number}-{turn}"
                got = http.post("/echo", content=said).text
                if got != said:
                    wrong.append(f"{said} got {got}")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert json.loads(site.get("/events").text) == []
