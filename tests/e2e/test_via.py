"""Servers are told by which way a request has come, and sites that send requests to each other notice it."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from harness.site import Site, Start, free_port

ROUTE = """
[[upstream]]
name = "other"
servers = ["127.0.0.1:{port}"]
{more}

[[route]]
path = "/circle/*"
upstream = "other"
"""


def towards(start: Start, directory: Path, port: int, *, own_port: int | None = None, more: str = "") -> Site:
    """A site whose /circle/ is at this port."""
    directory.mkdir()
    (directory / "app.py").write_text(
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [environ.get('HTTP_VIA', '-').encode()]\n"
    )
    (directory / "quintet.toml").write_text(ROUTE.format(port=port, more=more))
    bind = (f"127.0.0.1:{own_port}",) if own_port else None
    site = start(directory, flags=("--app", "app:application"), bind=bind, wait=own_port is None)
    if own_port:
        site.port = own_port
        site.wait_ready()
    return site


def test_the_way_is_told(start: Start, tmp_path: Path) -> None:
    last = tmp_path / "last"
    last.mkdir()
    (last / "app.py").write_text(
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [environ.get('HTTP_VIA', '-').encode()]\n"
    )
    back = start(last, flags=("--app", "app:application"))
    site = towards(start, tmp_path / "front", back.port)
    assert site.get("/circle/").text == "1.1 quintet"
    assert site.get("/circle/", headers={"Via": "1.0 fred"}).text.replace(", ", ",") == "1.0 fred,1.1 quintet"
    silent = towards(start, tmp_path / "silent", back.port, more="via = false")
    assert silent.get("/circle/").text == "-"


def test_two_sites_that_send_requests_to_each_other(start: Start, tmp_path: Path) -> None:
    port = free_port()
    one = towards(start, tmp_path / "one", port)
    other = towards(start, tmp_path / "other", one.port, own_port=port)
    for site in (one, other):
        site.allow_log("the request goes in a circle")
    began = time.monotonic()
    for _ in range(8):
        assert one.get("/circle/").status_code == 508
    assert time.monotonic() - began < 5
    assert one.get("/").text == "-"
    metrics = [site.metrics()['quintet_upstream_requests_total{upstream="other"}'] for site in (one, other)]
    assert sum(metrics) == 8 * 9, "eight hops, and the one that is refused"
    with httpx.Client() as client:
        page = client.get(f"{one.url}/circle/", headers={"Accept": "text/html"})
    assert "in a circle" in page.text
