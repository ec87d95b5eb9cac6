"""The disk for spooled bodies is full: who needs it is told, everybody else is served.

No machine needs to be filled for that: a limit for the size of files makes writing fail at the same place, and where a story is
about who shares the disk there is a small one that only its site sees.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.processes import alive, unshared, wait_until
from harness.raw import Closed
from harness.site import Site, Start

pytestmark = pytest.mark.any_python

# Beyond it a write fails (EFBIG), as it does on a full disk (ENOSPC). Python ignores SIGXFSZ, and hands that on.
FILE_BYTES_MAX = 1 << 20
_SCRIPT = (
    f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({FILE_BYTES_MAX},) * 2); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
LIMITED = (sys.executable, "-c", _SCRIPT)
# The small disk, and what of an upload may still be on its way to it.
DISK_BYTES = 4 << 20
ON_ITS_WAY_BYTES = 256 << 10
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


def spooled(gateway: int, disk: Path) -> int:
    """Bytes in the gateway's files on that disk, which have no names."""
    sizes = 0
    for entry in Path(f"/proc/{gateway}/fd").iterdir():
        try:
            if str(entry.readlink()).startswith(str(disk)):
                sizes += entry.stat().st_size
        except FileNotFoundError:
            # Closed while we looked.
            continue
    return sizes


def test_one_upload_fills_the_disk_and_the_next_one_is_refused(plain: Start, tmp_path: Path) -> None:
    """Whose bytes are there keeps them; who was refused leaves nothing behind."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ("sh", "-c", f'mount -t tmpfs -o size={DISK_BYTES} spool "$0" && exec "$@"', str(disk))
    site = plain(
        workers=1,
        threads=2,
        prefix=(*unshared("--mount"), *mounted),
        env={"QUINTET_BUFFERS_DIR": str(disk)},
    )
    site.allow_log("could not write a request body")
    gateway = site.gateway()
    large = b"x" * (DISK_BYTES * 3 // 4)
    with site.raw() as first:
        first.request("POST /length", f"Content-Length: {len(large)}").send(large[1:])
        wait_until(lambda: spooled(gateway, disk) > len(large) - ON_ITS_WAY_BYTES, 10, "it lies on the disk")
        for _ in range(3):
            assert site.post("/length", content=large).status_code == 500
            assert site.get("/hello").text == "hello"
        assert site.log.count(r"ERROR could not write a request body to .*No space left on device") == 3
        first.send(large[:1])
        assert first.answer().text == f"{len(large)} of {len(large)}"
    wait_until(lambda: spooled(gateway, disk) == 0, 5, "the disk is empty")
    assert site.post("/length", content=large).text == f"{len(large)} of {len(large)}"
    goes_on(site, gateway)
