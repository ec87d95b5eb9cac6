"""ASGI 3 from end to end: what a plain ASGI app may do, what it sees, and what lasts beside the requests."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import httpx
import pytest

from harness.data import Certificate
from harness.processes import wait_until
from harness.raw import Closed, Raw
from harness.site import Site, Start

APP = ("--app", "plain_asgi:application")
# An event is at its client within this: what a person takes for "at once".
AT_ONCE_SECONDS = 0.1


@pytest.fixture
def asgi(start: Start) -> Start:
    """`asgi(workers=2)`: the plain ASGI app of tests/apps/plain_asgi."""

    def starter(**options: object) -> Site:
        flags = tuple(options.pop("flags", ()))
        return start("plain_asgi", flags=(*APP, *flags), **options)

    return starter


@pytest.fixture
def site(asgi: Start) -> Site:
    """One worker that takes one request at a time."""
    return asgi(workers=1, flags=("--concurrency", "1"))


class Listener:
    """What `EventSource` does: asks for events, reads them as they come."""

    def __init__(self, site: Site, path: str = "/events", accept: str = "text/event-stream") -> None:
        self.raw = site.raw()
        self.raw.request(f"GET {path}", f"Accept: {accept}")
        head = self.raw.head()
        assert head[0] == "HTTP/1.1 200 OK", head
        assert "transfer-encoding: chunked" in [line.lower() for line in head]
        self.late: list[float] = []

    def event(self) -> bytes | None:
        """The next chunk; None at the end, in order."""
        size = int(self.raw.line(), 16)
        if size == 0:
            assert self.raw.line() == b""
            return None
        data = self.raw.exactly(size)
        assert self.raw.line() == b""
        for line in data.splitlines():
            if line.startswith(b"data: "):
                self.late.append(time.monotonic() - float(line[6:]))
        return data

    def rest(self) -> int:
        """Reads to the end; how many events there were."""
        count = 0
        while data := self.event():
            count += data.count(b"id: ")
        return count


def notes(site: Site) -> list[str]:
    return site.get("/notes").json()


@pytest.mark.short
def test_the_scope(site: Site) -> None:
    scope = site.get("/scope/%C3%A9?q=1&q=2", headers={"X-A": "b"}).json()
    assert scope["type"] == "http"
    assert scope["path"] == "/scope/é"
    assert scope["raw_path"] == "/scope/%C3%A9"
    assert scope["query_string"] == "q=1&q=2"
    assert scope["root_path"] == ""
    assert scope["scheme"] == "http"
    assert scope["server"] == ["127.0.0.1", site.port]
    assert scope["client"][0] == "127.0.0.1"
    assert ["x-a", "b"] in scope["headers"]
    assert "tls" not in scope["extensions"]
    assert notes(site) == ["started"]


def test_the_server_is_the_address_that_it_listens_on(asgi: Start, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    trust = ("--trusted-proxies", "127.0.0.1")
    site = asgi(workers=1, flags=("--bind", f"unix:{path}", *trust))
    with Raw.unix(str(path)) as client:
        scope = json.loads(client.request("GET /scope", host="shop.example").answer().text)
    assert scope["server"] == [str(path), None]
    assert ["host", "shop.example"] in scope["headers"]
    # Whatever a proxy tells of itself.
    headers = {"Host": "shop.example", "X-Forwarded-Host": "shop.example", "X-Forwarded-Port": "443"}
    assert site.get("/scope", headers=headers).json()["server"] == ["127.0.0.1", site.port]


def test_the_tls_that_ends_here(asgi: Start, certificate: Certificate) -> None:
    flags = ("--tls-certificate", str(certificate.chain), "--tls-key", str(certificate.key))
    site = asgi(workers=1, flags=flags, tls=certificate.trust)
    scope = site.get("/scope").json()
    assert scope["scheme"] == "https"
    # TLS 1.3 and its suites (RFC 8446, 4.2.1 and B.4).
    assert scope["extensions"]["tls"]["tls_version"] == 0x0304
    assert scope["extensions"]["tls"]["cipher_suite"] in {0x1301, 0x1302, 0x1303}
    with site.client(http2=True) as client:
        scope = client.get("/scope").json()
    assert scope["http_version"] == "2"
    assert scope["extensions"]["tls"]["tls_version"] == 0x0304


@pytest.mark.short
def test_bodies_up_and_down(site: Site) -> None:
    large = os.urandom(1 << 20) * 3
    assert site.post("/echo", content=b"small").content == b"small"
    assert site.post("/echo", content=large).content == large
    assert (
        site.post("/echo", content=iter([large[:70_000], large[70_000:200_000]])).content == large[:200_000]
    )
    assert site.get("/count?to=1000").text == "".join(f"{n}\n" for n in range(1000))


def test_a_body_that_is_streamed_up_reaches_the_app_as_it_comes(asgi: Start) -> None:
    site = asgi(workers=1, env={"QUINTET_BUFFERS_REQUEST_STREAM": "/relay,/echo"})
    assert site.post("/echo", content=iter([b"a" * 70_000, b"b"])).content == b"a" * 70_000 + b"b"


def test_an_app_answers_while_the_body_comes(asgi: Start) -> None:
    site = asgi(workers=1, env={"QUINTET_BUFFERS_REQUEST_STREAM": "/relay"})
    raw = site.raw().request("POST /relay", "Transfer-Encoding: chunked")
    for n in range(5):
        raw.send("5\r\nhello\r\n")
        if n == 0:
            assert raw.head()[0] == "HTTP/1.1 200 OK"
        assert (raw.line(), raw.line()) == (b"5", b"HELLO")
    raw.send("0\r\n\r\n")
    assert (raw.line(), raw.line()) == (b"0", b"")
    assert raw.request("GET /hello").answer().text == "hello"
    # A client that breaks off is heard of by the app, and gets no whole answer.
    site.allow_log("cut|broke|completing")
    raw = site.raw().request("POST /relay", "Transfer-Encoding: chunked").send("1\r\nx\r\nno chunk\r\n")
    raw.head()
    assert b"0\r\n\r\n" not in raw.rest()
    wait_until(lambda: "the body broke off" in notes(site), 5, "the app hears of it")


def test_a_client_that_leaves_is_noticed_by_the_app(site: Site) -> None:
    raw = site.raw().request("GET /wait")
    wait_until(lambda: site.status()["gateway"]["slots_busy"] == 1, 5, "it waits")
    raw.close()
    wait_until(lambda: "left without an answer" in notes(site), 5, "the app hears of it")


@pytest.mark.alone
@pytest.mark.short
@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"], ids=["asked for", "found out"])
def test_events_come_at_once_and_hold_no_slot(site: Site, accept: str) -> None:
    listener = Listener(site, "/events?to=20&pause=0.05", accept)
    # The only slot is free meanwhile.
    assert site.get("/hello").text == "hello"
    assert site.status()["gateway"]["long_lived"] == 1
    assert listener.rest() == 20
    assert sorted(listener.late)[-2] < AT_ONCE_SECONDS, listener.late
    wait_until(lambda: site.status()["gateway"]["long_lived"] == 0, 5, "nothing is left")
    # The connection is of use again.
    assert listener.raw.request("GET /hello").answer().text == "hello"


def test_a_hundred_listeners_beside_one_slot(site: Site) -> None:
    listeners = [
        Listener(site, "/events?pause=0.5", "*/*" if n % 2 else "text/event-stream") for n in range(100)
    ]
    wait_until(lambda: site.status()["gateway"]["long_lived"] == 100, 5, "all are open")
    wait_until(lambda: site.status()["workers"][0]["long_lived"] == 100, 5, "its worker holds them")
    started = time.monotonic()
    assert all(site.get("/hello").text == "hello" for _ in range(20))
    assert time.monotonic() - started < 5
    assert all(listener.event() for listener in listeners)
    for listener in listeners:
        listener.raw.close()
    wait_until(lambda: notes(site).count("the listener left") == 100, 10, "all apps hear of it")
    assert site.status()["gateway"]["long_lived"] == 0


@pytest.mark.alone
def test_events_over_http2(asgi: Start) -> None:
    site = asgi(workers=1, flags=("--concurrency", "1"))
    with (
        site.client(http2=True, http1=False) as client,
        client.stream("GET", "/events?to=10&pause=0.05") as response,
    ):
        assert response.http_version == "HTTP/2"
        sent = (line[6:] for line in response.iter_lines() if line.startswith("data: "))
        late = [time.monotonic() - float(moment) for moment in sent]
        assert len(late) == 10
        assert sorted(late)[-2] < AT_ONCE_SECONDS, late


def test_a_client_that_does_not_read_stops_its_own_app_only(site: Site) -> None:
    raw = site.raw()
    raw.request("GET /flood?kib=20000", "Accept: text/event-stream")

    def sent() -> int:
        return max((int(note.split()[1]) for note in notes(site) if note.startswith("flood")), default=0)

    wait_until(lambda: sent() > 100, 5, "it begins")

    def stands() -> bool:
        before = sent()
        time.sleep(0.5)
        return sent() == before

    wait_until(stands, 15, "the app waits for its client")
    # The kernel's buffers on both sides hold some megabytes; the window is a quarter of one.
    assert sent() < 15_000
    assert site.get("/hello").text == "hello"
    answer = raw.answer()
    assert len(answer.body) == 20_000 * 1024


def test_one_worker_too_full_is_told_to_the_client(asgi: Start) -> None:
    site = asgi(workers=1, env={"QUINTET_WORKERS_LONG_LIVED_MAX": "2"})
    listeners = [Listener(site, "/events?pause=0.2") for _ in range(2)]
    refused = site.get("/events", headers={"Accept": "text/event-stream"})
    assert refused.status_code == 503
    assert "Retry-After" in refused.headers
    listeners.pop().raw.close()
    wait_until(lambda: site.status()["gateway"]["long_lived"] == 1, 5, "there is room")
    Listener(site, "/events?to=1").rest()


@pytest.mark.short
def test_early_hints(asgi: Start) -> None:
    site = asgi(workers=1)
    raw = site.raw().request("GET /hints")
    assert raw.head() == ["HTTP/1.1 103 Early Hints", "link: </a.css>; rel=preload; as=style"]
    assert raw.is_silent(0.05), "the response comes later"
    assert raw.answer().text == "hinted"
    # Those of HTTP/1.0 get none.
    raw = site.raw().request("GET /hints HTTP/1.0")
    assert raw.answer().text == "hinted"
    # Who asks for events gets them just so.
    raw = site.raw().request("GET /hints", "Accept: text/event-stream")
    assert raw.head()[0] == "HTTP/1.1 103 Early Hints"
    assert raw.answer().text == "hinted"


@pytest.mark.short
def test_trailers(site: Site) -> None:
    answer = site.raw().request("GET /trailers", "TE: trailers", "Connection: TE").answer()
    assert (answer.text, answer.trailers) == ("body", [("x-sum", "7")])
    answer = site.raw().request("GET /trailers").answer()
    assert (answer.text, answer.trailers) == ("body", [])


def test_a_file_by_its_path(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(os.urandom(3 << 20))
    assert site.get(f"/file?path={file}").content == file.read_bytes()
    assert (
        site.get(f"/file?path={file}", headers={"Accept": "text/event-stream"}).content == file.read_bytes()
    )


def test_a_bug_is_a_500_with_the_id_that_the_log_has(site: Site) -> None:
    site.allow_log("a bug of the app|a bug in the middle|bug|cut")
    response = site.get("/boom")
    assert response.status_code == 500
    assert response.headers["X-Request-ID"] in response.text
    # The entry is written when the answer has gone.
    site.log.wait_for(response.headers["X-Request-ID"])
    with pytest.raises(httpx.RemoteProtocolError):
        site.get("/half")
    with pytest.raises(httpx.RemoteProtocolError):
        site.get("/half", headers={"Accept": "text/event-stream"})
    assert site.get("/hello").text == "hello"


def test_lifespan_is_begun_and_ended_in_each_worker(asgi: Start, tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    site = asgi(workers=2, env={"STORY_SHUTDOWN": str(ends)})
    assert notes(site) == ["started"]
    assert site.stop() == 0
    assert ends.read_text() == "shut down\n" * 2


def test_a_lifespan_that_fails_ends_the_start(asgi: Start) -> None:
    site = asgi(workers=1, env={"STORY_LIFESPAN": "there is no database"}, wait=False)
    site.allow_log("there is no database|start")
    assert site.wait_exit() == 3
    assert "there is no database" in str(site.log)
    site.process.returncode = 0


def test_a_killed_worker_breaks_its_streams_so_that_clients_can_tell(asgi: Start) -> None:
    site = asgi(workers=1)
    site.allow_log("died|went|killed|signal|lost|middle")
    listener = Listener(site)
    listener.event()
    site.kill_worker()
    with pytest.raises(Closed):
        listener.rest()
    site.wait_workers(1)
    # And the next finds the new worker.
    Listener(site, "/events?to=1").rest()


def test_a_new_gateway_finds_the_long_links_again(asgi: Start) -> None:
    site = asgi(workers=2)
    site.allow_log("gateway|link")
    listeners = [Listener(site) for _ in range(4)]
    site.kill_gateway()
    for listener in listeners:
        with pytest.raises(Closed):
            listener.rest()
    site.wait_ready()
    again = [Listener(site, accept=accept) for accept in ("text/event-stream", "*/*") for _ in range(2)]
    assert all(listener.event() for listener in again)

    def held() -> int:
        return sum(worker["long_lived"] for worker in site.status()["workers"])

    wait_until(lambda: held() == 4, 5, "their workers hold them")


def test_a_reload_gives_listeners_their_grace_and_loses_nobody(asgi: Start) -> None:
    site = asgi(workers=1, env={"QUINTET_WORKERS_LONG_LIVED_GRACE": "1s"})
    listener = Listener(site, "/events?pause=0.05")
    listener.event()
    old = site.get("/pid").text
    began = time.monotonic()
    assert site.reload().returncode == 0
    wait_until(lambda: site.get("/pid").text != old, 5, "the new worker answers")
    # It ends in order, so that EventSource comes back by itself.
    assert listener.rest() > 5
    assert 0.5 < time.monotonic() - began < 15
    again = listener.raw.request("GET /pid").answer()
    assert again.text != old
    wait_until(lambda: len(site.status()["workers"]) == 1, 15, "the old worker has gone")


def test_apps_that_do_not_listen_for_the_end_keep_no_worker(asgi: Start) -> None:
    env = {"QUINTET_WORKERS_LONG_LIVED_GRACE": "200ms", "QUINTET_SERVER_DRAIN_TIMEOUT": "60s"}
    site = asgi(workers=1, env=env)
    # The app is still asleep when its worker should go.
    site.allow_log("is not done in time|does not go")
    listener, gone = Listener(site, "/stubborn"), Listener(site, "/stubborn", "*/*")
    assert listener.event()
    assert gone.event()
    gone.raw.close()
    assert site.reload().returncode == 0
    assert listener.rest() == 0, "it ends in order"
    wait_until(lambda: len(site.status()["workers"]) == 1, 20, "the old worker has gone")


def test_a_stop_ends_what_lasts_after_its_grace(asgi: Start) -> None:
    site = asgi(workers=1, env={"QUINTET_WORKERS_LONG_LIVED_GRACE": "500ms"})
    listener = Listener(site, "/events?pause=0.05")
    listener.event()
    ended: list[int] = []
    reading = threading.Thread(target=lambda: ended.append(listener.rest()))
    reading.start()
    began = time.monotonic()
    assert site.stop() == 0
    assert time.monotonic() - began < 15
    reading.join(5)
    assert ended
    assert ended[0] > 3


def test_listeners_come_and_go_while_workers_are_reloaded(asgi: Start) -> None:
    site = asgi(workers=2, env={"QUINTET_WORKERS_LONG_LIVED_GRACE": "200ms"})
    over = threading.Event()
    wrong: list[str] = []
    seen = [0] * 6

    def listen(which: int) -> None:
        while not over.is_set():
            try:
                seen[which] += Listener(
                    site, "/events?to=10&pause=0.02", "*/*" if which % 2 else "text/event-stream"
                ).rest()
            except (Closed, AssertionError) as error:
                wrong.append(repr(error))

    listeners = [threading.Thread(target=listen, args=(which,)) for which in range(6)]
    for listener in listeners:
        listener.start()
    for _ in range(3):
        assert site.reload().returncode == 0
    over.set()
    for listener in listeners:
        listener.join(20)
    assert not wrong
    assert all(count >= 10 for count in seen), json.dumps(seen)
    wait_until(lambda: site.status()["gateway"]["long_lived"] == 0, 10, "nothing is left")
