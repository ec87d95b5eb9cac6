"""One gateway, three hosts with a network between them: hosts that fall silent, and come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.fronts import front
from harness.hosts import Host, hosts
from harness.load import Load
from harness.processes import wait_until
from harness.site import Site, Start

CLIENTS = 6


@pytest.fixture
def three() -> Iterator[list[Host]]:
    """Three hosts."""
    with hosts(3) as found:
        yield found


def apps_on(start: Start, three: list[Host]) -> list[Site]:
    """The plain app on each host."""
    flags = ("--app", "plain:application")
    return [start("plain", flags=flags, prefix=host.prefix, address=host.address) for host in three]


# The hosts are named first: they go last, when nothing runs on them any more.
def test_a_host_falls_silent_and_comes_back(three: list[Host], start: Start, tmp_path: Path) -> None:
    apps = apps_on(start, three)
    patience = (
        'connect_timeout = "300ms"\nresponse_timeout = "300ms"\neject_time = "500ms"\nslow_start = "0s"'
    )
    servers = [f"{app.address}:{app.port}" for app in apps]
    site = front(start, tmp_path, {"hosts": (servers, patience)})
    for said in ("did not answer within", "could not connect", "another server", "has failed too often"):
        site.allow_log(said)
    answers_of = [str(app.workers()[0]).encode() for app in apps]
    with Load(site, "/hosts/pid", clients=CLIENTS) as load:
        load.wait_for(300)
        assert set(answers_of) == set(load.bodies), "all serve"
        three[0].cut_off(apps[0])
        load.wait_for(500)
        # Those that were on their way to it when it went, and one now and then that finds out whether it is back.
        silent = load.statuses[504]
        assert set(load.statuses) <= {200, 502, 504}
        assert silent + load.statuses[502] <= 3 * CLIENTS, load.statuses
        three[0].join(apps[0])
        before = load.bodies[answers_of[0]]
        wait_until(lambda: load.bodies[answers_of[0]] > before + 50, 15, "the host serves again")
        lost = sum(load.statuses[status] for status in (502, 504))
        load.wait_for(300)
        assert sum(load.statuses[status] for status in (502, 504)) == lost, "and none is lost any more"
    assert load.failures == []
