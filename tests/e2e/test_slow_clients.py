"""slowhttptest in all its modes: hundreds of clients that take their time, and somebody who does not is served all the while."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from harness.load import Load
from harness.site import Start

pytestmark = [pytest.mark.any_python, pytest.mark.alone]

SECONDS = 6
CLIENTS = 300
MODES = {
    "headers": ("-H", "-i", "1", "/hello"),
    "body": ("-B", "-i", "1", "-s", "100000", "/echo"),
    "ranges": ("-R", "-a", "1", "-b", "3000", "/hello"),
    "reading": ("-X", "-n", "1", "-w", "10", "-y", "20", "-z", "32", "/big?size=200000"),
}


@pytest.mark.parametrize("mode", MODES)
def test_slow_clients_hold_up_nobody(plain: Start, mode: str) -> None:
    site = plain(workers=1, threads=2)
    *flags, path = MODES[mode]
    with Load(site, "/hello", clients=2, pause=0.01) as load:
        load.wait_for(10)
        before, started = load.count, time.monotonic()
        done = subprocess.run(
            [
                *("slowhttptest", "-v", "1", "-c", str(CLIENTS), "-r", "100", "-l", str(SECONDS)),
                *(*flags, "-u", f"http://127.0.0.1:{site.port}{path}"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        pace = (load.count - before) / (time.monotonic() - started)
        load.wait_for(10)
    assert load.failures == []
    assert set(load.statuses) == {200}
    # Two clients that rest for a hundredth of a second: a tenth of what they could ask at most. A site that is held up comes to none.
    assert pace > 20
    # In colours.
    told = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert re.findall(r"service available: +(\w+)", told)[-1] == "YES", told
    assert re.search(r"test type: +\w", told), told
