"""Pages of a real Django project get smaller on their way, for who asks for it; nothing else about them changes."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from harness.data import Certificate
from harness.processes import wait_until
from harness.raw import Answer, Raw
from harness.site import Site, Start

GZIP = "Accept-Encoding: gzip"
BROWSER = "Accept-Encoding: gzip, deflate, br, zstd"
ON = {"QUINTET_COMPRESSION_ENABLED": "true"}

# RFC 8878, 3.1.1.
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@pytest.fixture
def pages(start: Start) -> Site:
    """The project of tests/apps/pages with compression."""
    return start("pages", threads=4, flags=("--app", "pages:application"), env=ON)


def ask(site: Site, path: str, *fields: str, method: str = "GET") -> Answer:
    """One request on a connection of its own."""
    with site.raw() as raw:
        raw.request(f"{method} {path}", "Connection: close", *fields)
        return raw.answer(head_only=method == "HEAD")


def unpacked(answer: Answer) -> bytes:
    """What was compressed with gzip."""
    assert answer.get("Content-Encoding") == "gzip", answer.fields
    return gzip.decompress(answer.body)


@pytest.mark.short
def test_pages_get_smaller_for_who_asks_for_it(pages: Site) -> None:
    plain = ask(pages, "/page/")
    assert plain.get("Content-Encoding") is None
    assert plain.get("Vary") == "Accept-Encoding"
    packed = ask(pages, "/page/", GZIP)
    assert unpacked(packed) == plain.body
    assert len(packed.body) == int(packed.get("Content-Length") or 0) < len(plain.body) / 5
    assert packed.get("Vary") == "Accept-Encoding"
    assert unpacked(ask(pages, "/data/", GZIP)) == ask(pages, "/data/").body
    zstd = ask(pages, "/page/", BROWSER)
    assert zstd.get("Content-Encoding") == "zstd"
    assert zstd.body.startswith(ZSTD_MAGIC)
    assert ask(pages, "/page/", "Accept-Encoding: gzip;q=0.5, br").get("Content-Encoding") == "br"
    # Pages that Django makes itself when something is wrong are as any other, if they are long enough.
    assert ask(pages, "/nowhere/", GZIP).get("Content-Encoding") is None
    metrics = pages.metrics()
    assert metrics['quintet_compressed_total{coding="gzip"}'] == 2
    assert metrics['quintet_compressed_total{coding="zstd"}'] == 1
    assert metrics["quintet_compression_out_bytes_total"] < metrics["quintet_compression_in_bytes_total"] / 5
    assert metrics["quintet_compression_seconds_count"] == 4


def test_nothing_is_compressed_unless_it_is_asked_for(start: Start) -> None:
    site = start("pages", flags=("--app", "pages:application"))
    page = ask(site, "/page/", BROWSER)
    assert (page.get("Content-Encoding"), page.get("Vary")) == (None, None)


def test_what_is_left_alone(pages: Site) -> None:
    # Compressed by Django already, and only once.
    own = ask(pages, "/own/", BROWSER)
    assert unpacked(own) == ask(pages, "/page/").body
    for path in ("/short/", "/picture/", "/untouched/", "/part/"):
        left = ask(pages, path, BROWSER)
        assert (left.get("Content-Encoding"), left.get("Vary")) == (None, None), path
    assert ask(pages, "/part/", BROWSER, "Range: bytes=0-1999").get("Accept-Ranges") == "bytes"
    # An app that does not hear Range answers with everything, which may be compressed as ever.
    assert unpacked(ask(pages, "/page/", GZIP, "Range: bytes=0-9")) == ask(pages, "/page/").body


def test_paths_and_requests_of_other_sites_can_be_kept_from_it(start: Start) -> None:
    env = ON | {"QUINTET_COMPRESSION_EXCLUDE": "/account/*", "QUINTET_COMPRESSION_TYPES": "image/*"}
    site = start("pages", flags=("--app", "pages:application"), env=env)
    assert ask(site, "/account/page/", GZIP).get("Content-Encoding") is None
    assert unpacked(ask(site, "/picture/", GZIP)) == b"\0" * 4000
    cross = "Sec-Fetch-Site: cross-site"
    assert ask(site, "/page/", GZIP, cross).get("Content-Encoding") == "gzip"
    seen = ask(site, "/page/", GZIP, cross, "Cookie: sessionid=abc")
    assert (seen.get("Content-Encoding"), seen.get("Vary")) == (None, "Accept-Encoding")


@pytest.mark.short
def test_head_and_conditional_requests(pages: Site) -> None:
    got = ask(pages, "/page/", GZIP)
    tag = got.get("ETag")
    assert tag
    assert tag.startswith('W/"')
    assert f"W/{ask(pages, '/page/').get('ETag')}" == tag
    head = ask(pages, "/page/", GZIP, method="HEAD")

    def without_length(answer: Answer) -> list[tuple[str, str]]:
        varying = {"content-length", "date", "x-request-id"}
        return sorted((name, value) for name, value in answer.fields if name.lower() not in varying)

    # Django's middleware makes a tag for GET only, and the length of what is not made is not known.
    assert without_length(head) == [field for field in without_length(got) if field[0].lower() != "etag"]
    assert head.get("Content-Length") is None
    same = ask(pages, "/page/", GZIP, f"If-None-Match: {tag}")
    assert (same.status, same.get("ETag"), same.get("Vary")) == (304, tag, "Accept-Encoding")
    assert same.get("Content-Encoding") is None
    plain = ask(pages, "/page/", f"If-None-Match: {tag[2:]}")
    assert (plain.status, plain.get("ETag")) == (304, tag[2:])
    assert ask(pages, "/page/", GZIP, 'If-None-Match: W/"other"').status == 200


def chunk(raw: Raw) -> bytes:
    """The next chunk of a body; empty at the end."""
    size = int(raw.line(), 16)
    data = raw.exactly(size)
    assert raw.line() == b""
    return data


@pytest.mark.short
def test_a_piece_of_a_stream_arrives_before_the_next_is_made(pages: Site) -> None:
    with pages.raw() as raw:
        raw.request("GET /rows/", GZIP)
        head = [line.lower() for line in raw.head()]
        assert "content-encoding: gzip" in head
        assert "transfer-encoding: chunked" in head
        decoder = zlib.decompressobj(wbits=31)
        for number in range(4):
            if number:
                assert ask(pages, "/go/").status == 204
            text = b""
            while not text.endswith(b"\n"):
                text += decoder.decompress(chunk(raw))
            assert text == b"line %d\n" % number
        while piece := chunk(raw):
            assert decoder.decompress(piece) == b""
        assert decoder.eof
        # The connection goes on.
        assert unpacked(raw.request("GET /page/", GZIP).answer()).startswith(b"<ul>")


def test_a_client_that_leaves_takes_its_encoder_along(pages: Site) -> None:
    with pages.raw() as raw:
        raw.request("GET /endless/", GZIP)
        raw.head()
        decoder = zlib.decompressobj(wbits=31)
        assert b"violin" in decoder.decompress(chunk(raw))
        # One gzip encoder.
        assert pages.metrics()["quintet_compression_memory_bytes"] == 352 << 10
    wait_until(lambda: pages.metrics()["quintet_compression_memory_bytes"] == 0, 10, "the end of the encoder")
    assert ask(pages, "/page/", GZIP).status == 200


@pytest.mark.short
def test_a_long_answer_in_pieces_is_whole(pages: Site) -> None:
    plain = ask(pages, "/table/")
    assert plain.get("Content-Length") == str(len(plain.body))
    packed = ask(pages, "/table/", GZIP)
    assert unpacked(packed) == plain.body
    # Over HTTP/1.0 the length is worth more than compression.
    with pages.raw() as raw:
        old = raw.request("GET /table/ HTTP/1.0", GZIP).answer()
    assert (old.get("Content-Encoding"), old.body) == (None, plain.body)


def test_event_streams_are_left_alone_and_asgi_is_as_wsgi(start: Start) -> None:
    flags = ("--app", "pages:asgi_application", "--interface", "asgi")
    site = start("pages", flags=flags, env=ON)
    events = ask(site, "/events/", BROWSER)
    assert events.get("Content-Encoding") is None
    assert events.body == b"data: one\n\ndata: two\n\n"
    assert unpacked(ask(site, "/page/", GZIP)) == ask(site, "/page/").body
    assert unpacked(ask(site, "/table/", GZIP)) == ask(site, "/table/").body


def test_a_route_says_otherwise(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "quintet.toml"
    secret, wanted = (
        '[[route]]\npath = "/page/"\ncompress = false\n',
        '[[route]]\npath = "/table/"\ncompress = true\n',
    )

    def codings(text: str) -> list[str | None]:
        config.write_text(text)
        flags = ("--app", "pages:application", "--config", str(config))
        site = start("pages", flags=flags)
        answers = [ask(site, path, GZIP).get("Content-Encoding") for path in ("/page/", "/data/", "/table/")]
        site.stop()
        return answers

    assert codings("[compression]\nenabled = true\n" + secret) == [None, "gzip", "gzip"]
    assert codings(wanted) == [None, None, "gzip"]


def test_over_http_2(start: Start, certificate: Certificate) -> None:
    flags = ("--app", "pages:application", *certificate.flags)
    site = start("pages", flags=flags, env=ON, tls=certificate.trust)
    with site.client(http2=True) as client:
        for path in ("/page/", "/table/"):
            packed = client.get(path, headers={"Accept-Encoding": "gzip"})
            assert packed.http_version == "HTTP/2"
            assert packed.headers["content-encoding"] == "gzip"
            assert packed.content == client.get(path, headers={"Accept-Encoding": "identity"}).content
