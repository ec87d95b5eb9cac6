"""Static and uploaded files, served without Python, and files that the app hands over."""

from __future__ import annotations

import gzip
import json
import os
from email.utils import formatdate
from pathlib import Path

import pytest

from harness import places
from harness.data import ShopData
from harness.processes import wait_until
from harness.site import Site, Start

pytestmark = pytest.mark.any_python


@pytest.fixture
def shop(start: Start) -> Site:
    return start("shop")


@pytest.fixture
def stylesheet(shop: Site, shop_data: ShopData) -> str:
    """The shop's style sheet under its hashed name."""
    manifest = json.loads((shop_data.directory / "static" / "staticfiles.json").read_text())
    return f"/static/{manifest['paths']['css/shop.css']}"


CSS = (places.SHOP / "assets" / "css" / "shop.css").read_bytes()


@pytest.mark.short
def test_hashed_names_may_be_kept_for_ever(shop: Site, stylesheet: str) -> None:
    response = shop.get(stylesheet)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/css")
    assert "immutable" in response.headers["cache-control"]
    assert "max-age=31536000" in response.headers["cache-control"]
    assert response.content == CSS
    # The same file under its plain name may change.
    assert "immutable" not in shop.get("/static/css/shop.css").headers["cache-control"]


def test_no_python_is_asked_for_a_file(shop: Site, stylesheet: str) -> None:
    before = shop.status()["gateway"]["requests_total"]
    busy = [shop.raw().request("GET /slow/?seconds=3") for _ in range(shop.status()["gateway"]["slots"])]
    # Every thread sleeps, and files are served all the same.
    assert shop.get(stylesheet).status_code == 200
    for client in busy:
        client.close()
    assert shop.status()["gateway"]["requests_total"] > before


def test_conditional_requests(shop: Site, stylesheet: str) -> None:
    first = shop.get(stylesheet)
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    plain = {"Accept-Encoding": "identity"}
    etag = shop.get(stylesheet, headers=plain).headers["etag"]
    for condition, status in [
        ({"If-None-Match": etag}, 304),
        ({"If-None-Match": f'"other", {etag}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Modified-Since": modified}, 304),
        ({"If-Modified-Since": formatdate(0, usegmt=True)}, 200),
        # RFC 9110, 13.2.2: the entity tag is the stronger word.
        ({"If-None-Match": '"other"', "If-Modified-Since": modified}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Match": etag}, 200),
        ({"If-Unmodified-Since": formatdate(0, usegmt=True)}, 412),
    ]:
        response = shop.get(stylesheet, headers=plain | condition)
        assert response.status_code == status, condition
        if status == 304:
            assert response.content == b""
            assert response.headers["etag"] == etag


def test_ranges(shop: Site, stylesheet: str) -> None:
    plain = {"Accept-Encoding": "identity"}
    size = len(CSS)
    for asked, start, end in [
        ("bytes=0-9", 0, 10),
        ("bytes=10-", 10, size),
        ("bytes=-10", size - 10, size),
        (f"bytes=5-{size * 2}", 5, size),
    ]:
        response = shop.get(stylesheet, headers=plain | {"Range": asked})
        assert response.status_code == 206, asked
        assert response.content == CSS[start:end]
        assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    beyond = shop.get(stylesheet, headers=plain | {"Range": f"bytes={size}-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{size}"
    # What is no range of bytes is no condition either.
    for nonsense in ("bytes=9-1", "lines=1-2", "bytes=a-b"):
        assert shop.get(stylesheet, headers=plain | {"Range": nonsense}).status_code in {200, 416}
    # A range of a version that is gone is the whole of the new one.
    stale = shop.get(stylesheet, headers=plain | {"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (stale.status_code, stale.content) == (200, CSS)


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_what_compresses_is_compressed(shop: Site, stylesheet: str, coding: str) -> None:
    with shop.raw() as client:
        answer = client.request(f"GET {stylesheet}", f"Accept-Encoding: {coding}").answer()
    assert answer.get("content-encoding") == coding
    assert "accept-encoding" in answer.get("vary").lower()
    assert len(answer.body) < len(CSS) / 2
    if coding == "gzip":
        assert gzip.decompress(answer.body) == CSS
    with shop.raw() as client:
        plain = client.request(f"GET {stylesheet}", "Accept-Encoding: identity").answer()
    assert plain.get("content-encoding") is None
    # Two codings are two representations.
    assert plain.get("etag") != answer.get("etag")


def test_precompressed_siblings_are_taken(shop: Site, shop_data: ShopData) -> None:
    directory = shop_data.directory / "static" / "made"
    directory.mkdir()
    (directory / "a.js").write_bytes(b"let a = 1;\n" * 100)
    (directory / "a.js.br").write_bytes(b"pretend this is brotli")
    with shop.raw() as client:
        answer = client.request("GET /static/made/a.js", "Accept-Encoding: gzip, br").answer()
    assert (answer.get("content-encoding"), answer.body) == ("br", b"pretend this is brotli")
    assert "javascript" in answer.get("content-type")


def test_nothing_outside_the_roots(shop: Site, shop_data: ShopData) -> None:
    # Django notes an attempt on the media, and we a link that leads out.
    shop.allow_log("SuspiciousFileOperation|symbolic link leads out")
    static = shop_data.directory / "static"
    (shop_data.directory / "secret.txt").write_text("secret")
    (static / ".hidden").write_text("secret")
    (static / "way-out").symlink_to(shop_data.directory)
    for path in (
        "/static/../secret.txt",
        "/static/%2e%2e/secret.txt",
        "/static/..%2fsecret.txt",
        "/static/css/../../secret.txt",
        "/static/css/..%2f..%2fsecret.txt",
        "/static/%252e%252e/secret.txt",
        "/static/..\\secret.txt",
        "/static//etc/passwd",
        "/static/css/%00shop.css",
        "/static/.hidden",
        "/static/way-out/secret.txt",
        "/static/staticfiles.json/",
        "/media/../secret.txt",
    ):
        with shop.raw() as client:
            answer = client.request(f"GET {path}").answer()
            assert answer.status in {301, 302, 400, 403, 404}, (path, answer.status)
            assert b"secret" not in answer.body or b"Not here" in answer.body, path


def test_directories_are_not_listed(shop: Site) -> None:
    for path in ("/static/", "/static/css", "/static/css/"):
        assert shop.get(path).status_code == 404


def test_only_get_and_head(shop: Site, stylesheet: str) -> None:
    assert shop.fetch("HEAD", stylesheet).headers["content-length"]
    response = shop.fetch("DELETE", stylesheet)
    assert response.status_code == 405
    assert "GET" in response.headers["allow"]


def test_a_large_file(shop: Site, shop_data: ShopData) -> None:
    blob = os.urandom(30_000_000)
    (shop_data.directory / "static" / "blob.bin").write_bytes(blob)
    assert shop.get("/static/blob.bin").content == blob
    part = shop.get("/static/blob.bin", headers={"Range": "bytes=29000000-"})
    assert part.content == blob[29_000_000:]


def test_a_file_that_changes_is_served_as_it_is_now(shop: Site, shop_data: ShopData) -> None:
    path = shop_data.directory / "static" / "note.txt"
    path.write_text("first")
    first = shop.get("/static/note.txt")
    assert first.text == "first"
    path.write_text("second, longer")
    # Small files are kept in memory, but looked after every moment.
    wait_until(lambda: shop.get("/static/note.txt").text == "second, longer", 5, "the new content")
    assert shop.get("/static/note.txt").headers["etag"] != first.headers["etag"]


class TestMedia:
    """Uploads may be private: nobody gets them from us unless somebody said so."""

    PICTURE = "/media/products/mc-00001.svg"

    def test_private_by_default(self, start: Start) -> None:
        shop = start("shop")
        # The shop's own URLconf answers: the request went through Python.
        assert "etag" not in shop.get(self.PICTURE).headers

    def test_public_when_said_so(self, start: Start) -> None:
        shop = start("shop", env={"QUINTET_FILES_MEDIA": "public"})
        response = shop.get(self.PICTURE)
        assert response.headers["content-type"] == "image/svg+xml"
        assert "etag" in response.headers

    def test_with_debug_where_the_urlconf_serves_them(self, start: Start) -> None:
        shop = start("shop", env={"DEBUG": "1"})
        assert "etag" in shop.get(self.PICTURE).headers


def test_with_debug_no_collectstatic_is_needed(start: Start, tmp_path: Path) -> None:
    shop = start("shop", env={"DEBUG": "1", "STATIC_ROOT": str(tmp_path / "never-made")})
    assert shop.get("/static/css/shop.css").content == CSS
    assert shop.get("/static/admin/css/base.css").status_code == 200
    assert shop.get("/static/nothing.css").status_code == 404


class TestHandedOver:
    """X-Accel-Redirect and X-Sendfile."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> Path:
        directory = tmp_path / "protected"
        directory.mkdir()
        (directory / "report.pdf").write_bytes(b"%PDF secret")
        (tmp_path / "outside.txt").write_text("outside")
        return directory

    @pytest.fixture
    def site(self, plain: Start, files: Path) -> Site:
        return plain(workers=1, env={"QUINTET_FILES_ACCEL": f"/protected/={files}"})

    def test_the_file_is_sent_with_the_apps_fields(self, site: Site) -> None:
        response = site.get("/accel?to=/protected/report.pdf")
        assert response.status_code == 200
        assert response.content == b"%PDF secret"
        assert response.headers["content-type"] == "text/x-secret"
        assert response.headers["x-app"] == "said so"
        assert "x-accel-redirect" not in response.headers
        part = site.get("/accel?to=/protected/report.pdf", headers={"Range": "bytes=0-3"})
        assert (part.status_code, part.content) == (206, b"%PDF")

    def test_apaches_way(self, site: Site, files: Path) -> None:
        assert site.get(f"/sendfile?to={files}/report.pdf").content == b"%PDF secret"

    def test_nothing_outside(self, site: Site, files: Path) -> None:
        site.allow_log("accel|Accel|sendfile|Sendfile|file")
        for path in (
            "/accel?to=/protected/../outside.txt",
            "/accel?to=/elsewhere/report.pdf",
            f"/sendfile?to={files.parent}/outside.txt",
            f"/sendfile?to={files}/../outside.txt",
        ):
            response = site.get(path)
            assert response.status_code in {403, 404, 500, 502}, path
            assert "outside" not in response.text

    def test_clients_cannot_ask_for_it(self, site: Site) -> None:
        assert site.get("/protected/report.pdf").status_code == 404
        assert site.get("/hello", headers={"X-Accel-Redirect": "/protected/report.pdf"}).text == "hello"

    def test_without_the_setting_the_fields_are_not_obeyed(self, plain: Start, files: Path) -> None:
        site = plain(workers=1)
        site.allow_log("accel|Accel|sendfile|Sendfile|file")
        assert b"secret" not in site.get(f"/sendfile?to={files}/report.pdf").content
