"""Smuggling: attacks go through the gateway to other people's servers, and both must have seen the same requests.

In front quintet, behind it a server with an app that writes down what reaches it (tests/apps/witness). For each request that
the app saw there must be exactly one that the gateway sent (the access log tells, by the request id), with the same method, path and
body as quintet's own parser reads in the attack's bytes. Meanwhile others ask on the same connections to the server: each must
get the answer to its own question.

The attacks are those of attacks.py (over HTTP/1.1 and HTTP/2) and gunicorn's files of requests, each behind the framing that the gateway chooses: a length
where it has the whole body, chunks where it passes the body on as it comes, frames of HTTP/2.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from attacks import Fields, attacks, h2_attacks
from harness import places
from harness.processes import wait_until
from harness.site import Site, free_port
from test_gunicorn_corpus import Case, corpus, parser, with_host  # noqa: F401 (fixtures)

# Attacks at a time.
ATTACKERS = 12
# Longer than the gateway waits for the rest of a request.
ATTACK_SECONDS_MAX = 30
SERVER_START_SECONDS_MAX = 30

BIN = Path(sys.executable).parent
WSGI, ASGI = "witness:application", "witness:asgi"
# The servers behind: words of their command lines, with {port}.
SERVERS = {
    "gunicorn": [
        "gunicorn",
        WSGI,
        "-k",
        "gthread",
        "--threads",
        "8",
        "--keep-alive",
        "30",
        "-b",
        "127.0.0.1:{port}",
    ],
    "waitress": ["waitress-serve", "--listen=127.0.0.1:{port}", "--threads=8", WSGI],
    "uvicorn": ["uvicorn", ASGI, "--http", "h11", "--lifespan", "off", "--port", "{port}"],
    "hypercorn": ["hypercorn", ASGI, "-b", "127.0.0.1:{port}"],
    "daphne": ["daphne", "-p", "{port}", ASGI],
    "granian": ["granian", "--interface", "wsgi", "--port", "{port}", WSGI],
    "quintet": [str(places.quintet()), "run", "--workers", "1", "--app", WSGI, "--bind", "127.0.0.1:{port}"],
}
WAYS = {
    "whole": 'protocol = "http/1.1"\nbuffer = true',
    "streamed": 'protocol = "http/1.1"\nbuffer = false',
    "h2": 'protocol = "h2"\nbuffer = false',
}
# RFC 9110, 9.2.2: a request that found its connection closing is sent again.
MAY_COME_AGAIN = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
SPEAK_HTTP2 = ("hypercorn", "quintet")
PAIRS = [(server, way) for server in SERVERS for way in WAYS if way != "h2" or server in SPEAK_HTTP2]


@contextlib.contextmanager
def server_behind(name: str, directory: Path) -> Iterator[tuple[int, Path]]:
    """Its port, and the file where the app writes what it sees."""
    port, seen = free_port(), directory / "seen"
    seen.touch()
    first, *rest = (word.format(port=port) for word in SERVERS[name])
    env = os.environ | {"WITNESS": str(seen), "PYTHONPATH": str(places.APPS / "witness")}
    # quintet hears of request ids from proxies that it trusts only.
    env |= {"QUINTET_SERVER_RUNTIME_DIR": str(directory / "run"), "QUINTET_PROXY_TRUSTED": "127.0.0.1"}
    with (directory / "server.log").open("wb") as log:
        started = subprocess.Popen(
            [BIN / first, *rest],
            cwd=places.APPS / "witness",
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:

        def listens() -> bool:
            assert started.poll() is None, (directory / "server.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        wait_until(listens, SERVER_START_SECONDS_MAX, f"{name} listens")
        yield port, seen
    finally:
        started.terminate()
        try:
            started.wait(SERVER_START_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextlib.contextmanager
def gateway(port: int, way: str, directory: Path) -> Iterator[Site]:
    """All that comes goes to the server on this port."""
    project = directory / "front"
    project.mkdir()
    shutil.copy(places.APPS / "plain" / "plain.py", project)
    (project / "quintet.toml").write_text(
        f"""
timeouts = {{ header = "300ms", body = "300ms" }}

[[upstream]]
name = "behind"
servers = ["127.0.0.1:{port}"]
response_timeout = "5s"
{WAYS[way]}

[[route]]
upstream = "behind"
"""
    )
    flags = ("--app", "plain:application", "--workers", "1", "--access-log", "json")
    site = Site(project, flags=flags)
    site.start()
    # Of who is attacked it is told.
    for complaint in ("the server", "closed the connection", "another server", "has failed too often"):
        site.allow_log(complaint)
    try:
        yield site
    finally:
        wrong = site.close()
    assert wrong == []


def attack(site: Site, data: bytes) -> None:
    """Sends it and a harmless request behind it, and listens until the gateway has had enough."""
    with socket.create_connection(("127.0.0.1", site.port), ATTACK_SECONDS_MAX) as client:
        client.settimeout(ATTACK_SECONDS_MAX)
        last = b"GET /behind-it HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        with contextlib.suppress(ConnectionError):
            client.sendall(data + last)
            while client.recv(65536):
                pass


def h2_attack(site: Site, fields: Fields, body: bytes) -> None:
    """Sends it in a connection of its own, frame by frame, and listens until it is answered or refused."""
    frames = [
        SettingsFrame(0),
        HeadersFrame(1, Encoder().encode(fields, huffman=False), flags=["END_HEADERS"]),
        DataFrame(1, body, flags=["END_STREAM"]),
    ]
    with socket.create_connection(("127.0.0.1", site.port), ATTACK_SECONDS_MAX) as client:
        client.settimeout(ATTACK_SECONDS_MAX)
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(frame.serialize() for frame in frames))
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(65536):
                received += piece
                while len(received) >= 9:
                    frame, length = Frame.parse_frame_header(memoryview(received[:9]))
                    if len(received) < 9 + length:
                        break
                    received = received[9 + length :]
                    if isinstance(frame, GoAwayFrame | RstStreamFrame) or "END_STREAM" in frame.flags:
                        return


def victim(site: Site, stop: threading.Event, wrong: list[str]) -> None:
    """Asks one thing after another on a kept connection."""
    with site.client() as client:
        count = 0
        while not stop.is_set():
            count += 1
            answer = client.get(f"/victim-{count}")
            if answer.status_code != 200 or answer.json()["path"] != f"/victim-{count}":
                wrong.append(f"/victim-{count}: {answer.status_code} {answer.text}")
            stop.wait(0.01)


def under_attack(site: Site, all_attacks: list[Callable[[], None]]) -> None:
    """All attacks, while others are served as always."""
    stop, wrong = threading.Event(), []
    victims = [threading.Thread(target=victim, args=(site, stop, wrong)) for _ in range(3)]
    for thread in victims:
        thread.start()
    try:
        with ThreadPoolExecutor(ATTACKERS) as pool:
            for done in [pool.submit(one) for one in all_attacks]:
                done.result()
    finally:
        stop.set()
        for thread in victims:
            thread.join()
    assert wrong == []


def sent_by(site: Site) -> dict[str, dict[str, Any]]:
    """The requests that the gateway has passed on, by their ids. It has ended."""
    lines = (line for line in str(site.log).splitlines() if line.startswith('{"time"'))
    entries = [json.loads(line) for line in lines]
    return {entry["request_id"]: entry for entry in entries if entry["by"] == "upstream" or broken_off(entry)}


def broken_off(entry: dict[str, Any]) -> bool:
    """Was it passed on as it came, until it turned out to be wrong, or did not come any more?"""
    return entry["by"] == "gateway" and entry["status"] in {400, 408, 499}


def path_of(target: str) -> bytes:
    """As an app sees it."""
    return unquote_to_bytes(target.encode("latin-1").partition(b"?")[0])


def read_by_us(parser: Path, data: bytes) -> list[tuple[str, bytes, str]]:  # noqa: F811
    """Method, path and body of the requests in these bytes, by quintet's own parser."""
    done = subprocess.run([parser], input=data, capture_output=True, check=True)
    requests = json.loads(done.stdout)["requests"]
    return [(it["method"], path_of(it["target"]), it["body"]) for it in requests]


def same_path(server: str, sent: bytes, seen: bytes) -> bool:
    """May this server show its app that path for this one?"""
    if server == "waitress":
        # Of several slashes at the beginning it keeps one.
        return sent.lstrip(b"/") == seen.lstrip(b"/")
    # RFC 9112, 3.2.4: the server as a whole has no path.
    return sent == seen or (server == "quintet" and (sent, seen) == (b"*", b""))


def compare(
    site: Site,
    server: str,
    seen_file: Path,
    expected: dict[str, list[tuple[str, bytes, str]]],
    empty: frozenset[str] = frozenset(),
) -> int:
    """What the app saw is what the gateway sent and what the attack's bytes say; how many attacks the app saw whole.

    Attacks that are `empty` announce no body, and send one.
    """
    sent = sent_by(site)
    wrong, ids, whole = [], set(), set()
    for line in seen_file.read_text().splitlines():
        it = json.loads(line)
        entry = sent.get(it["request_id"])
        if entry is None:
            wrong.append(f"nobody sent this: {it}")
            continue
        if it["request_id"] in ids and it["method"] not in MAY_COME_AGAIN:
            wrong.append(f"seen twice: {it}")
        ids.add(it["request_id"])
        method, path = entry["method"], path_of(entry["target"])
        if it["method"] != method or not same_path(server, path, it["path"].encode("latin-1")):
            wrong.append(f"sent as {entry}, seen as {it}")
        if broken_off(entry):
            # granian's apps cannot tell a body that broke off from an empty one.
            may_be_empty = server == "granian" or it["attack"] in empty
            if it["bytes"] is not None and (it["bytes"] or not may_be_empty):
                wrong.append(f"broken off, and yet the app saw its end: {it}")
        elif it["attack"] is not None:
            whole.add(it["attack"])
            bodies = [body for *asked, body in expected[it["attack"]] if asked == [method, path]]
            if it["sha256"] not in [hashlib.sha256(body.encode("latin-1")).hexdigest() for body in bodies]:
                wrong.append(f"another body than {bodies}: {it}")
    assert wrong == [], f"{len(wrong)} requests:\n" + "\n".join(wrong[:20])
    # The other direction: what was answered well has been seen.
    assert {key for key, entry in sent.items() if entry["status"] == 200} <= ids
    return len(whole)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("server", "way"), PAIRS)
def test_both_see_the_same_requests(
    server: str,
    way: str,
    tmp_path: Path,
    corpus: dict[str, list[Case]],  # noqa: F811
    parser: Path,  # noqa: F811
) -> None:
    all_attacks = attacks()
    files = [case.data for case in (*corpus["valid"], *corpus["invalid"])]
    # Most of the files are without a Host, for which alone they would be refused.
    all_attacks += [data if b"host:" in data.lower() else with_host(data) for data in files]
    expected = {str(number): read_by_us(parser, data) for number, data in enumerate(all_attacks)}
    with server_behind(server, tmp_path) as (port, seen):
        with gateway(port, way, tmp_path) as site:
            under_attack(site, [partial(attack, site, data) for data in all_attacks])
            metrics = site.metrics()
        count = compare(site, server, seen, expected)
    # Requests that are odd, but can be read in one way only, do arrive: else nothing would have been compared.
    assert count > 60
    assert metrics['quintet_upstream_requests_total{upstream="behind"}'] > count


@pytest.mark.timeout(240)
@pytest.mark.parametrize("way", WAYS)
def test_heads_of_http2_hide_nothing(way: str, tmp_path: Path) -> None:
    all_attacks = h2_attacks()
    expected, empty = {}, set()
    for number, (fields, _body) in enumerate(all_attacks):
        first = dict(fields[:4])
        # RFC 9110, 4.2.5: a fragment is the client's own. The library of HTTP/2 takes it away before we see it.
        method, path = (
            first[b":method"].decode("latin-1"),
            first[b":path"].partition(b"#")[0].decode("latin-1"),
        )
        # Where the body ends is never in question.
        expected[str(number)] = [(method, path_of(path), "hello")]
        if (b"content-length", b"0") in fields:
            empty.add(str(number))
    with server_behind("hypercorn", tmp_path) as (port, seen):
        with gateway(port, way, tmp_path) as site:
            under_attack(site, [partial(h2_attack, site, *one) for one in all_attacks])
        count = compare(site, "hypercorn", seen, expected, frozenset(empty))
    # Most are refused; a few are only odd.
    assert count > 5
