"""The disk for spooled bodies is full: who needs it is told, everybody else is served.

A limit for the size of files stands for the full disk: writing fails at the same place, and no machine needs to be filled.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.processes import alive
from harness.raw import Closed
from harness.site import Site, Start

# Beyond it a write fails (EFBIG), as it does on a full disk (ENOSPC). Python ignores SIGXFSZ, and hands that on.
FILE_BYTES_MAX = 1 << 20
_SCRIPT = (
    f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({FILE_BYTES_MAX},) * 2); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
LIMITED = (sys.executable, "-c", _SCRIPT)
# Response bodies go to the disk early, since the story is about that.
SMALL = {"QUINTET_BUFFERS_RESPONSE_MEMORY": "64KiB"}


@pytest.fixture
def full(plain: Start) -> Site:
    """A site whose spool takes a megabyte a file."""
    site = plain(workers=1, threads=2, prefix=LIMITED, env=SMALL)
    site.allow_log("could not (write a request body|spool a response)")
    return site


def goes_on(site: Site, gateway: int) -> None:
    """The same gateway serves, also what fits on the disk."""
    assert site.get("/hello").text == "hello"
    assert site.post("/length", content=b"x" * 500_000).text == "500000 of 500000"
    assert site.gateway() == gateway
    assert alive(gateway)


def test_an_upload_that_does_not_fit_is_refused(full: Site) -> None:
    gateway = full.gateway()
    answer = full.post("/length", content=b"x" * (3 * FILE_BYTES_MAX))
    assert answer.status_code == 500
    full.log.wait_for(r"ERROR could not write a request body to .*File too large.*request_id")
    goes_on(full, gateway)


def test_a_response_that_does_not_fit_is_broken_off(full: Site) -> None:
    """Its head is out already, so the client can only be told by the missing rest. Nobody else notices."""
    gateway = full.gateway()
    size = 24 * FILE_BYTES_MAX
    with full.raw() as slow:
        slow.request(f"GET /big?size={size}")
        assert slow.head()[0].startswith("HTTP/1.1 200")
        # It does not read; meanwhile the others are served.
        for _ in range(5):
            assert full.get("/hello").text == "hello"
        with pytest.raises(Closed):
            slow.exactly(size)
    full.log.wait_for(r"WARN could not spool a response: File too large.*request_id")
    goes_on(full, gateway)


def test_a_directory_that_is_gone(plain: Start, tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.mkdir()
    site = plain(workers=1, env={"QUINTET_BUFFERS_DIR": str(directory)})
    site.allow_log("could not write a request body")
    gateway = site.gateway()
    directory.rmdir()
    assert site.post("/length", content=b"x" * 500_000).status_code == 500
    site.log.wait_for(r"ERROR could not write a request body to .*No such file.*request_id")
    assert site.get("/hello").text == "hello"
    directory.mkdir()
    goes_on(site, gateway)
