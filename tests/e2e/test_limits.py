"""Who asks too often is told when to come again; who goes on is shut out for a while, and no longer, and nobody else is."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from harness.processes import wait_until
from harness.raw import Answer, Closed, Raw
from harness.site import Site, Start

pytestmark = pytest.mark.any_python

# Lists are looked at and bans written down every two seconds.
SOON = 10
BANNED = "a client was banned for too many refused or failed requests"


@pytest.fixture
def limited(start: Start, project: Path) -> Start:
    """`limited("…toml…")`: the plain app with these limits, its state in the project."""

    def starter(config: str, *flags: str) -> Site:
        text = f'[server]\nstate_dir = "state"\n{config}'
        (project / "quintet.toml").write_text(text)
        return start(project, flags=("--app", "plain:application", *flags))

    return starter


def ask(site: Site, path: str = "/hello", *fields: str, client: str = "127.0.0.2") -> Answer:
    """One request of a client with this address."""
    with site.raw(client) as raw:
        return raw.request(f"GET {path}", "Connection: close", *fields).answer()


def statuses(
    site: Site, count: int, path: str = "/hello", *fields: str, client: str = "127.0.0.2"
) -> list[int]:
    """Of so many requests on one connection."""
    found = []
    with site.raw(client) as raw:
        for _ in range(count):
            found.append(raw.request(f"GET {path}", *fields).answer().status)
            if found[-1] == 403:
                break
    return found


def bans(site: Site) -> dict[str, dict[str, object]]:
    """`quintet bans list`, by client."""
    done = site.quintet("bans", "list", "--json")
    assert done.returncode == 0, done.stderr
    return {ban["client"]: ban for ban in json.loads(done.stdout)["bans"]}


def put(path: Path, text: str) -> None:
    """A file that is never half there."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


RATE = """
[[limit]]
path = "/hello"
rate = "3/h"
"""


@pytest.mark.short
def test_one_request_too_many_is_told_when_to_come_again(limited: Start) -> None:
    site = limited(RATE)
    assert statuses(site, 3) == [200, 200, 200]
    refused = ask(site)
    assert refused.status == 429
    assert refused.get("RateLimit-Policy") == '"hello";q=3;w=3600'
    seconds = int(refused.get("Retry-After") or 0)
    assert 1190 <= seconds <= 1200
    assert refused.get("RateLimit") == f'"hello";r=0;t={seconds}'
    assert f"try again in {seconds} seconds" in refused.text
    page = ask(site, "/hello", "Accept: text/html")
    assert page.get("Content-Type") == "text/html; charset=utf-8"
    # Another path, another client: theirs is theirs.
    assert ask(site, "/pid").status == 200
    assert ask(site, client="127.0.0.3").status == 200
    metrics = site.dir / "run" / "admin.sock"
    with Raw.unix(str(metrics)) as raw:
        assert "quintet_limit_refused_total 2\n" in raw.request("GET /metrics").answer().text


def test_a_session_and_a_key_are_counted_wherever_they_come_from(limited: Start) -> None:
    site = limited('[[limit]]\nrate = "2/h"\nby = ["header:X-Api-Key"]\nannounce = true\n')
    assert ask(site, "/hello", "X-Api-Key: one").get("RateLimit") == '"all";r=1;t=1800'
    assert ask(site, "/hello", "X-Api-Key: one", client="127.0.0.3").get("RateLimit") == '"all";r=0;t=3600'
    assert ask(site, "/hello", "X-Api-Key: one", client="127.0.0.4").status == 429
    assert ask(site, "/hello", "X-Api-Key: two").status == 200


def test_a_route_names_its_limits(limited: Start) -> None:
    site = limited(
        """
[[limit]]
name = "api"
rate = "2/h"

[[route]]
header = "X-Api"
limit = ["api"]
response_headers = ["X-Route: api"]
"""
    )
    assert statuses(site, 3, "/hello", "X-Api: 1") == [200, 200, 429]
    refused = ask(site, "/hello", "X-Api: 1")
    assert (refused.status, refused.get("X-Route")) == (429, "api")
    assert statuses(site, 5) == [200] * 5


def test_a_burst_is_smoothed_where_that_is_wanted(limited: Start) -> None:
    site = limited('[[limit]]\nrate = "5/s"\nburst = 4\naction = "delay"\n')
    began = time.monotonic()
    assert statuses(site, 4) == [200] * 4
    # The first at once, each other a fifth of a second after the one before.
    assert time.monotonic() - began >= 0.55


def test_by_route_all_who_come_are_counted_together(limited: Start) -> None:
    route = '[[route]]\nheader = "X-Api={0}"\nlimit = ["api"]\n'
    site = limited(
        '[[limit]]\nname = "api"\nby = ["route"]\nrate = "2/h"\n' + route.format(1) + route.format(2)
    )
    one = [ask(site, "/hello", "X-Api: 1", client=f"127.0.0.{last}").status for last in (2, 3, 4)]
    assert one == [200, 200, 429]
    assert statuses(site, 3, "/hello", "X-Api: 2") == [200, 200, 429]
    assert statuses(site, 1) == [200]


def test_the_true_client_counts_behind_a_trusted_proxy(limited: Start) -> None:
    site = limited(RATE + "[bans]\nafter = 2\n", "--trusted-proxies", "127.0.0.9")
    site.allow_log(BANNED)
    behind = {"client": "127.0.0.9"}
    ann, eve = "X-Forwarded-For: 203.0.113.1", "X-Forwarded-For: 203.0.113.66"
    assert statuses(site, 6, "/hello", eve, **behind) == [200, 200, 200, 429, 429, 429]
    assert ask(site, "/hello", ann, **behind).status == 200
    # The fourth offence would have been one more than allowed, and it is not the proxy's.
    assert ask(site, "/pid", eve, **behind).status == 403
    assert ask(site, "/pid", ann, **behind).status == 200
    assert list(bans(site)) == ["203.0.113.66"]
    # Whoever is not trusted may claim what he likes.
    assert ask(site, "/pid", eve, client="127.0.0.3").status == 200
    # A proxy that names nobody is not shut out for what others do.
    for _ in range(8):
        ask(site, "/nothing", **behind)
    assert ask(site, "/pid", **behind).status == 200
    refused = site.quintet("bans", "add", "127.0.0.9")
    assert refused.returncode == 1
    assert "trusted proxy" in refused.stderr


def test_who_scans_is_banned_and_let_in_again(limited: Start) -> None:
    site = limited('[bans]\nafter = 5\nwindow = "1m"\ntime = "6s"\n')
    site.allow_log(BANNED)
    with site.raw("127.0.0.2") as open_before:
        assert open_before.request("GET /hello").answer().status == 200
        assert statuses(site, 8, "/wp-login.php") == [404] * 6 + [403]
        banned_at = time.monotonic()
        refused = open_before.request("GET /hello").answer()
        assert (refused.status, refused.get("Connection")) == (403, "close")
        assert "not answered for the time being" in refused.text
        assert open_before.is_closed()
    assert ask(site).status == 403
    assert ask(site, client="127.0.0.3").status == 200
    row = bans(site)["127.0.0.2"]
    assert (row["by"], row["times"]) == ("offences", 1)
    wait_until(lambda: ask(site).status == 200, 6 + SOON, "the ban is over")
    # Some of it had passed when it was noticed.
    assert time.monotonic() - banned_at >= 4
    # The same again: twice as long.
    assert 403 in statuses(site, 8, "/wp-login.php")
    assert bans(site)["127.0.0.2"]["times"] == 2


def test_a_banned_client_may_get_no_answer_at_all(limited: Start) -> None:
    site = limited('[bans]\nanswer = "drop"\n')
    with site.raw("127.0.0.2") as open_before:
        assert open_before.request("GET /hello").answer().status == 200
        assert site.quintet("bans", "add", "127.0.0.2", "--for", "1h").returncode == 0
        open_before.request("GET /hello")
        assert open_before.is_closed()
    with pytest.raises((Closed, ConnectionError)):
        ask(site)
    assert site.quintet("bans", "remove", "127.0.0.2").stdout == "127.0.0.2 may come again\n"
    assert ask(site).status == 200


def test_the_operator_sees_bans_adds_and_pardons(limited: Start) -> None:
    site = limited("")
    assert site.quintet("bans", "list").stdout == "nobody is banned\n"
    done = site.quintet("bans", "add", "127.0.0.2", "--for", "90m")
    assert (done.returncode, done.stdout) == (0, "127.0.0.2 is banned for 5400 s\n")
    assert site.quintet("bans", "add", "2001:db8::7").stdout == "2001:db8::/64 is banned for 600 s\n"
    assert ask(site).status == 403
    listed = site.quintet("bans", "list").stdout
    assert listed.splitlines()[1].split() == ["127.0.0.2", "90", "min", "1", "operator"]
    assert site.quintet("bans", "remove", "2001:db8::/64").returncode == 0
    assert site.quintet("bans", "remove", "127.0.0.2").returncode == 0
    assert ask(site).status == 200
    again = site.quintet("bans", "remove", "127.0.0.2")
    assert (again.returncode, again.stderr) == (1, "error: 127.0.0.2 is not banned\n")
    wrong = site.quintet("bans", "add", "192.0.2.0/24")
    assert wrong.returncode == 2
    assert "deny_file" in wrong.stderr


def test_lists_are_read_again_when_they_change(limited: Start, project: Path) -> None:
    deny = project / "deny.txt"
    deny.write_text("# scanners\n127.0.0.2\n")
    (project / "allow.txt").write_text("127.0.0.7  # the office\n")
    site = limited('[bans]\ndeny_file = "deny.txt"\nallow_file = "allow.txt"\nafter = 2\n')

    def shut_out() -> list[int]:
        return [ask(site, client=f"127.0.0.{number}").status for number in (2, 3, 7)]

    assert shut_out() == [403, 200, 200]
    put(deny, "127.0.0.2/31\n127.0.0.7\n")
    wait_until(lambda: shut_out() == [403, 403, 200], SOON, "the new list holds")
    assert statuses(site, 6, "/nothing", client="127.0.0.7") == [404] * 6
    site.allow_log("a list of addresses cannot be read")
    put(deny, "127.0.0.300\n")
    site.log.wait_for("a list of addresses cannot be read, the one of before stays in force.*line 1", SOON)
    assert shut_out() == [403, 403, 200]
    put(deny, "")
    wait_until(lambda: shut_out() == [200, 200, 200], SOON, "the empty list holds")


def test_bans_and_counts_outlive_crashes_upgrades_and_restarts(limited: Start, project: Path) -> None:
    site = limited(RATE)
    assert statuses(site, 4) == [200, 200, 200, 429]
    assert site.quintet("bans", "add", "127.0.0.5", "--for", "1h").returncode == 0

    def still() -> None:
        assert ask(site, client="127.0.0.5").status == 403
        assert ask(site).status == 429
        assert ask(site, client="127.0.0.3").status == 200

    kept = project / "state" / "limits"
    wait_until(kept.exists, SOON, "the ban is written down")
    done = site.quintet("upgrade")
    assert done.returncode == 0, done.stdout + done.stderr
    # What the old one counted last comes with what it wrote at the end.
    wait_until(lambda: ask(site).status == 429, SOON, "the new one has heard of it")
    still()
    assert site.quintet("stop").returncode == 0
    site.wait_exit()
    site.start()
    still()
    site.allow_log("the gateway .* died")
    site.kill_gateway()
    site.wait_ready()
    still()


def test_connections_of_one_address_are_bounded(limited: Start) -> None:
    site = limited("[limits]\nconnections_per_address = 3\n")
    site.allow_log("a connection was refused because its address has too many open")
    open_now = [site.raw("127.0.0.2") for _ in range(3)]
    for raw in open_now:
        assert raw.request("GET /hello").answer().status == 200
    assert ask(site).status == 503
    assert ask(site, client="127.0.0.3").status == 200
    open_now.pop().close()
    wait_until(lambda: ask(site).status == 200, SOON, "its place is free again")
    for raw in open_now:
        assert raw.request("GET /hello").answer().status == 200
        raw.close()
