"""Bandwidth: nobody gets more than was said, whatever he asks for and however; and nobody is held up, or taken for a slow client."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import places
from harness.data import Certificate
from harness.processes import wait_until
from harness.site import Site, Start

RATE = 200_000
# What takes two seconds.
SIZE = 400_000
# A step of the rate goes at once.
SOONEST = (SIZE - RATE / 16) / RATE
# A machine with much else to do.
LATEST = 4 * SOONEST

LimitedStart = Callable[..., Site]


@pytest.fixture
def limited(start: Start, tmp_path: Path) -> LimitedStart:
    """`limited("[limits]…")`: the plain app with this configuration, and a folder of files."""

    def starter(config: str, **options: object) -> Site:
        shutil.copy(places.APPS / "plain" / "plain.py", tmp_path / "plain.py")
        (tmp_path / "static").mkdir()
        (tmp_path / "static" / "film.bin").write_bytes(b"f" * SIZE)
        (tmp_path / "quintet.toml").write_text(config)
        flags = ("--app", "plain:application", *options.pop("flags", ()))
        return start(tmp_path, threads=options.pop("threads", 1), flags=flags, **options)

    return starter


EVERYWHERE = f"""
[limits]
bandwidth = "{RATE}"

[files]
static_url = "/static/"
static_root = "static"

# A client that is slowed down is not slow.
[timeouts]
write = "1s"

[buffers]
streaming_timeout = "1s"
"""


def took(site: Site, path: str, *, size: int = SIZE) -> float:
    """Seconds for a whole answer, on a connection of its own."""
    with site.raw() as raw:
        began = time.monotonic()
        answer = raw.request(f"GET {path}").answer()
        assert (answer.status, len(answer.body)) == (200, size)
        return time.monotonic() - began


@pytest.mark.parametrize("path", ["/static/film.bin", f"/big?size={SIZE}"])
def test_files_and_answers_of_the_app(limited: LimitedStart, path: str) -> None:
    site = limited(EVERYWHERE)
    assert SOONEST <= took(site, path) <= LATEST
    assert site.metrics()["quintet_responses_slowed_total"] == 1


def test_over_tls(limited: LimitedStart, certificate: Certificate) -> None:
    site = limited(EVERYWHERE, flags=certificate.flags, tls=certificate.trust)
    assert SOONEST <= took(site, "/static/film.bin") <= LATEST


def test_a_connection_earns_while_it_is_silent_and_others_are_others(limited: LimitedStart) -> None:
    site = limited(EVERYWHERE.replace("[files]", f"bandwidth_after = {SIZE}\n[files]"))
    with site.raw() as raw:
        began = time.monotonic()
        raw.request("GET /static/film.bin").answer()
        assert time.monotonic() - began < SOONEST, "what goes before the bandwidth holds"
        raw.request("GET /static/film.bin").answer()
        assert time.monotonic() - began >= SOONEST
        assert took(site, "/static/film.bin") < SOONEST


def test_streams_of_http_2_share_it(limited: LimitedStart, certificate: Certificate) -> None:
    site = limited(EVERYWHERE, flags=certificate.flags, tls=certificate.trust)
    half = SIZE // 2
    paths = ["/static/film.bin", f"/big?size={half}", f"/big?size={half}"]
    seconds: list[float] = []
    with site.client(http2=True) as client:
        assert client.get("/hello").http_version == "HTTP/2"

        def fetch(path: str) -> None:
            began = time.monotonic()
            assert len(client.get(path).content) in (SIZE, half)
            seconds.append(time.monotonic() - began)

        threads = [threading.Thread(target=fetch, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(seconds) == 3
    assert 2 * SOONEST - 0.2 <= max(seconds) <= 2 * LATEST


def test_a_route_says_otherwise(limited: LimitedStart) -> None:
    site = limited(
        EVERYWHERE
        + f"""
[[route]]
path = "/static/*"
bandwidth = 0

[[route]]
path = "/big"
header = "X-Half"
bandwidth = {RATE // 2}
bandwidth_after = {SIZE // 2}
"""
    )
    assert took(site, "/static/film.bin") < SOONEST
    with site.raw() as raw:
        began = time.monotonic()
        raw.request(f"GET /big?size={SIZE}", "X-Half: 1").answer()
        assert SOONEST <= time.monotonic() - began <= LATEST


def test_no_worker_waits_for_it(limited: LimitedStart) -> None:
    site = limited(EVERYWHERE)
    with site.raw() as raw:
        raw.request(f"GET /big?size={SIZE}").head()
        # The only thread there is.
        began = time.monotonic()
        assert site.get("/hello").status_code == 200
        assert time.monotonic() - began < SOONEST
        assert site.metrics()["quintet_slots_streaming"] == 0
        raw.exactly(SIZE)


def test_an_answer_that_does_not_fit_goes_faster_before_it_holds_a_worker(limited: LimitedStart) -> None:
    """Ten megabytes at 200 kB a second, with room for one: the rest of them is not waited for."""
    site = limited(
        EVERYWHERE.replace("[buffers]", '[buffers]\nresponse_memory = "64KiB"\nresponse_disk = "1MiB"')
    )
    size = 10_000_000
    with site.raw() as raw:
        raw.request(f"GET /big?size={size}").head()
        raw.exactly(size - (1 << 21))
        began = time.monotonic()
        assert site.get("/hello").status_code == 200
        assert time.monotonic() - began < LATEST


@pytest.mark.parametrize("buffer", ["true", "false"])
def test_answers_of_upstreams(plain: Start, limited: LimitedStart, buffer: str) -> None:
    back = plain()
    site = limited(
        EVERYWHERE
        + f"""
[[upstream]]
name = "api"
servers = {json.dumps([f"127.0.0.1:{back.port}"])}
buffer = {buffer}

[[route]]
path = "/big"
upstream = "api"
bandwidth = {RATE // 4}
"""
    )
    # Without buffers a read of 64 KiB takes longer to go out than `streaming_timeout`: who is slowed down is not slow.
    seconds = took(site, f"/big?size={SIZE // 2}", size=SIZE // 2)
    assert 2 * SOONEST - 0.2 <= seconds <= 2 * LATEST


def test_an_app_hears_that_its_slowed_client_is_gone(limited: LimitedStart) -> None:
    site = limited(EVERYWHERE)
    with site.raw() as raw:
        raw.request("GET /stream?lines=100000&pause=0.001").head()
        raw.reset()
    wait_until(lambda: "stream closed" in site.get("/events").json(), 10, "the app's stream is closed")
