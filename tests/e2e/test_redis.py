"""Several hosts count together through Redis; when it is away each counts by itself, and no visitor notices."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from harness import places
from harness.data import Certificate
from harness.processes import wait_until
from harness.raw import Answer, Raw
from harness.redis import Line, PrivateRedis
from harness.site import Site, Start, free_port

AWAY = "Redis is away"
# The keeper looks every second; probes are at most five seconds apart.
SOON = 15
# What counts here is whether they count together, not how fast a busy machine is.
PATIENT = 'timeout = "1s"\n'


class Host(Protocol):
    """`host("…toml…")`: one more host that shares its limits."""

    def __call__(self, config: str, *, url: str | None = None, redis: str = PATIENT) -> Site: ...


@pytest.fixture
def serve() -> Iterator[Callable[..., PrivateRedis]]:
    """`serve("--requirepass", "…")`: an empty one with these flags. It outlives the sites of the story."""
    servers: list[PrivateRedis] = []

    def starter(*flags: str) -> PrivateRedis:
        servers.append(PrivateRedis(*flags))
        return servers[-1]

    yield starter
    for server in servers:
        server.close()


@pytest.fixture
def redis(serve: Callable[..., PrivateRedis]) -> PrivateRedis:
    """An empty one."""
    return serve()


@pytest.fixture
def line(redis: PrivateRedis) -> Iterator[Line]:
    """A line to it."""
    line = Line(redis.port)
    yield line
    line.close()


@pytest.fixture
def host(redis: PrivateRedis, start: Start, tmp_path: Path) -> Host:
    """See `Host`. It is waited for until it counts with others, unless it has a `url` of its own."""
    count = iter(range(100))

    def starter(
        config: str, *, url: str | None = None, redis: str = PATIENT, server: PrivateRedis = redis
    ) -> Site:
        project = tmp_path / f"host{next(count)}"
        shutil.copytree(places.APPS / "plain", project, ignore=shutil.ignore_patterns("__pycache__"))
        text = f'[server]\nstate_dir = "state"\nreactors = 1\n[redis]\nurl = "{url or server.url}"\n{redis}{config}'
        (project / "quintet.toml").write_text(text)
        site = start(project, flags=("--app", "plain:application"))
        if url is None:
            wait_shared(site)
        return site

    return starter


def metric(site: Site, name: str) -> int:
    """Its value now."""
    with Raw.unix(str(site.dir / "run" / "admin.sock")) as raw:
        text = raw.request("GET /metrics").answer().text
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def wait_shared(site: Site) -> None:
    """Until the reactor and the keeper are connected."""
    wait_until(lambda: metric(site, "quintet_redis_connections") == 2, SOON, "it counts with others")
    wait_until(lambda: metric(site, "quintet_redis_up") == 1, SOON, "it counts with others")


def wait_alone(site: Site) -> None:
    """Until it knows that Redis is away."""
    wait_until(lambda: metric(site, "quintet_redis_up") == 0, SOON, "it counts by itself")


def ask(site: Site, path: str = "/hello", *fields: str, client: str = "127.0.0.2") -> Answer:
    """One request of a client with this address."""
    with site.raw(client) as raw:
        return raw.request(f"GET {path}", "Connection: close", *fields).answer()


def statuses(site: Site, count: int, client: str = "127.0.0.2") -> list[int]:
    """Of so many requests on one connection."""
    with site.raw(client) as raw:
        return [raw.request("GET /hello").answer().status for _ in range(count)]


# The keys of limits.
LIMITS = "{quintet}:limit:*"
RATE = '[[limit]]\npath = "/hello"\nrate = "10/h"\n'


@pytest.mark.short
def test_two_hosts_let_through_what_one_would(host: Host) -> None:
    one, other = host(RATE), host(RATE)
    found = [ask(site).status for _ in range(12) for site in (one, other)]
    assert found == [200] * 10 + [429] * 14
    refused = ask(other)
    seconds = int(refused.get("Retry-After") or 0)
    assert 340 <= seconds <= 360
    assert refused.get("RateLimit") == f'"hello";r=0;t={seconds}'
    assert statuses(other, 11, "127.0.0.3") == [200] * 10 + [429]
    assert ask(one, client="127.0.0.3").status == 429
    assert [metric(site, "quintet_limit_alone_total") for site in (one, other)] == [0, 0]
    status = one.quintet("status").stdout
    assert "hosts count together" in status, status
    # Who is refused by one host alone is not asked about.
    assert metric(one, "quintet_limit_refused_total") == 7 + 1


def test_every_limit_works_as_that_of_one_host(host: Host) -> None:
    config = """
[[limit]]
name = "keys"
path = "/hello"
by = ["header:X-Api-Key"]
rate = "3/h"
announce = true
[[limit]]
name = "slow"
path = "/pid"
rate = "5/s"
burst = 3
action = "delay"
[[limit]]
name = "narrow"
rate = "1/h"
[[route]]
header = "X-Narrow"
limit = ["narrow"]
"""
    one, other = host(config), host(config)
    key = "X-Api-Key: secret-of-a-customer"
    assert ask(one, "/hello", key).get("RateLimit") == '"keys";r=2;t=1200'
    assert ask(other, "/hello", key, client="127.0.0.3").get("RateLimit") == '"keys";r=1;t=2400'
    # Refused by its route it counts for none, on either host.
    assert ask(one, "/pid", "X-Narrow: 1").status == 200
    for site in (one, other, other):
        assert ask(site, "/hello", key, "X-Narrow: 1").status == 429
    # What is given back is not waited for.
    time.sleep(0.2)
    assert ask(one, "/hello", key).status == 200
    assert ask(other, "/hello", key).status == 429
    began = time.monotonic()
    assert [ask(site, "/pid", client="127.0.0.9").status for site in (one, other, one)] == [200] * 3
    # The first at once, the others a fifth of a second later each, though they came to different hosts.
    assert time.monotonic() - began >= 0.35


def test_nothing_of_a_client_can_be_read_in_redis(host: Host, redis: PrivateRedis) -> None:
    site = host('[[limit]]\nby = ["header:X-Api-Key"]\nrate = "3/h"\n')
    ask(site, "/hello", "X-Api-Key: secret-of-a-customer")
    keys = redis.do("KEYS", LIMITS)
    assert keys.startswith("*1\r\n"), keys
    assert "{quintet}:limit:" in keys
    assert "secret" not in keys
    # What is owed is a third of three hours; then it is gone.
    name = keys.split("\r\n")[2]
    assert 1_190_000 <= int(redis.do("PTTL", name)[1:]) <= 1_200_000


def worst(site: Site, count: int = 60, client: str = "127.0.0.2") -> tuple[float, list[int]]:
    """The longest that one of so many requests took, in seconds, and their statuses."""
    took, found = 0.0, []
    with site.raw(client) as raw:
        for _ in range(count):
            began = time.monotonic()
            found.append(raw.request("GET /hello").answer().status)
            took = max(took, time.monotonic() - began)
    return took, found


# What the machine may add to it: others work here too.
DEADLINE = 0.05
HICCUP = 0.15
QUICK = f'timeout = "{int(DEADLINE * 1000)}ms"\n'
PLENTY = '[[limit]]\npath = "/hello"\nrate = "1000/h"\n'


def kill(redis: PrivateRedis, _line: Line) -> None:
    redis.kill()


def pause(redis: PrivateRedis, _line: Line) -> None:
    redis.pause()


def hang(_redis: PrivateRedis, line: Line) -> None:
    line.swallows = True


def slow(_redis: PrivateRedis, line: Line) -> None:
    line.delay = 0.2


def cut(_redis: PrivateRedis, line: Line) -> None:
    line.target = 9
    line.cut()


def start_again(redis: PrivateRedis, line: Line) -> None:
    if redis.process.poll() is not None:
        redis.start()
    redis.resume()
    line.target, line.delay, line.swallows = redis.port, 0.0, False


@pytest.mark.parametrize("trouble", [kill, pause, hang, slow, cut], ids=lambda trouble: trouble.__name__)
def test_no_visitor_notices_what_happens_to_redis(
    redis: PrivateRedis, line: Line, host: Host, trouble: Callable[[PrivateRedis, Line], None]
) -> None:
    site = host(PLENTY, url=line.url, redis=QUICK)
    wait_shared(site)
    site.allow_log(AWAY)
    before = metric(site, "quintet_limit_alone_total")
    trouble(redis, line)
    took, found = worst(site)
    assert found == [200] * 60
    # Nobody waited for longer than he may, and only the first few did.
    assert took <= DEADLINE + HICCUP
    wait_alone(site)
    assert metric(site, "quintet_limit_alone_total") - before >= 50
    status = site.quintet("status").stdout
    assert "this host counts by itself" in status, status
    assert site.log.count(AWAY) == 1
    start_again(redis, line)
    wait_shared(site)
    site.log.wait_for("Redis is back", SOON)

    def together() -> bool:
        alone = metric(site, "quintet_limit_alone_total")
        assert worst(site, 5)[1] == [200] * 5
        return metric(site, "quintet_limit_alone_total") == alone

    # A slow line has something left to say of before.
    wait_until(together, SOON, "hosts count together")


def test_a_host_alone_gives_out_the_rate_and_no_more(redis: PrivateRedis, host: Host) -> None:
    one, other = host(RATE), host(RATE)
    assert statuses(one, 4) == [*statuses(other, 3), 200]
    for site in (one, other):
        site.allow_log(AWAY)
    redis.kill()
    wait_alone(one)
    wait_alone(other)
    # Each knows what it has let through itself.
    assert statuses(one, 8) == [200] * 6 + [429] * 2
    assert statuses(other, 9) == [200] * 7 + [429] * 2
    redis.start()
    wait_shared(one)
    wait_shared(other)
    # An empty Redis frees nobody whom a host remembers.
    assert ask(one).status == 429
    assert statuses(other, 12, "127.0.0.3") == [200] * 10 + [429] * 2
    assert ask(one, client="127.0.0.3").status == 429


def test_redis_forgets_scripts_and_keys(redis: PrivateRedis, host: Host) -> None:
    one, other = host(RATE), host(RATE)
    assert statuses(one, 5) == [200] * 5
    assert redis.do("SCRIPT", "FLUSH").startswith("+OK")
    assert statuses(other, 6) == [200] * 5 + [429]
    assert redis.do("FLUSHALL").startswith("+OK")
    # Each still knows the five that it has let through.
    assert statuses(one, 6) == [200] * 5 + [429]
    assert metric(one, "quintet_limit_alone_total") == metric(other, "quintet_limit_alone_total") == 0


def test_a_clock_of_redis_that_is_set_back_keeps_nobody_out(redis: PrivateRedis, host: Host) -> None:
    one, other = (host('[[limit]]\nrate = "2/s"\n') for _ in range(2))
    assert ask(one).status == 200
    name = redis.do("KEYS", LIMITS).split("\r\n")[2]
    # What it would have written when its clock was a day ahead: in ticks since September 2020, see take.lua.
    ahead = (time.time() - 1_600_000_000 + 86_400) * 10_000_000
    redis.do("SET", name, f"{ahead:.0f}", "PX", "90000000")
    assert ask(other).status == 429
    wait_until(lambda: ask(other).status == 200, 3, "the window is over")
    assert metric(other, "quintet_limit_alone_total") == 0


def test_a_wrong_password_is_told_and_not_shown(serve: Callable[..., PrivateRedis], host: Host) -> None:
    locked = serve("--requirepass", "right-pa55")
    url = f"redis://:%s@127.0.0.1:{locked.port}/2"
    site = host(RATE, url=url % "wrong-pa55")
    site.log.wait_for("Redis is away.*WRONGPASS, user or password is not right", SOON)
    site.allow_log(AWAY)
    assert statuses(site, 11) == [200] * 10 + [429]
    shown = [site.quintet(*command.split()).stdout for command in ("status", "status --json")]
    shown += [site.quintet("config", "show", str(site.project)).stdout, str(site.log)]
    shown += [site.quintet("check", str(site.project)).stdout]
    assert "***@127.0.0.1" in shown[2]
    assert not any("pa55" in text for text in shown)
    right = host(RATE, url=url % "right-pa55")
    wait_shared(right)
    assert ask(right).status == 200
    assert "db2:keys=" in locked.do("INFO", "keyspace", auth="right-pa55")


def test_the_address_may_stand_in_a_file_or_be_a_socket(
    redis: PrivateRedis, host: Host, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"unix://{redis.socket}\n")
    one = host(RATE)
    text = (one.project / "quintet.toml").read_text()
    (one.project / "quintet.toml").write_text(
        "\n".join(f'url_file = "{secret}"' if row.startswith("url") else row for row in text.splitlines())
    )
    assert one.quintet("stop").returncode == 0
    one.wait_exit()
    one.start()
    wait_shared(one)
    assert str(redis.socket) in one.quintet("status").stdout
    assert statuses(one, 11) == [200] * 10 + [429]


def test_a_user_with_few_rights_is_enough(redis: PrivateRedis, host: Host) -> None:
    # As docs/guides/hosts.md says.
    guide = (places.ROOT / "docs" / "guides" / "hosts.md").read_text()
    rights = next(row.strip("`") for row in guide.splitlines() if row.startswith("`+hello"))
    assert redis.do("ACL", "SETUSER", "shop", "on", ">pa55", *rights.split()).startswith("+OK")
    url = f"redis://shop:pa55@127.0.0.1:{redis.port}"
    config = RATE + '[bans]\nafter = 3\nwindow = "1h"\n'
    sites = [host(config, url=url) for _ in range(2)]
    for site in sites:
        site.allow_log(BANNED)
        wait_shared(site)
    assert statuses(sites[0], 10) == [200] * 10
    assert ask(sites[1]).status == 429
    assert sites[1].quintet("bans", "add", "127.0.0.9").returncode == 0
    wait_bans(sites[0], "127.0.0.9")
    for site in (*sites, *sites):
        assert ask(site, "/nothing", client="127.0.0.8").status == 404
    wait_bans(sites[0], "127.0.0.8", "127.0.0.9")
    assert [metric(site, "quintet_redis_failures_total") for site in sites] == [0, 0]


def test_over_tls(serve: Callable[..., PrivateRedis], host: Host, certificate: Certificate) -> None:
    flags = ["--tls-cert-file", certificate.chain, "--tls-key-file", certificate.key]
    flags += [
        "--tls-ca-cert-file",
        certificate.ca,
        "--tls-auth-clients",
        "no",
        "--tls-port",
        port := free_port(),
    ]
    serve(*map(str, flags))
    url = f"rediss://localhost:{port}"
    site = host(RATE, url=url, redis=f'{PATIENT}tls_ca = "{certificate.ca}"\n')
    wait_shared(site)
    assert statuses(site, 11) == [200] * 10 + [429]
    # Whom we do not know we do not talk to.
    stranger = host(RATE, url=url)
    stranger.log.wait_for("Redis is away.*TLS: invalid peer certificate", SOON)
    stranger.allow_log(AWAY)


def test_a_cluster_keeps_all_keys_of_a_request_on_one_node(
    serve: Callable[..., PrivateRedis], host: Host
) -> None:
    server = serve("--cluster-enabled", "yes")
    slots = [str(slot) for slot in range(16384)]
    for first in range(0, 16384, 2048):
        assert server.do("CLUSTER", "ADDSLOTS", *slots[first : first + 2048]).startswith("+OK")
    wait_until(lambda: "cluster_state:ok" in server.do("CLUSTER", "INFO"), SOON, "the cluster is whole")
    config = RATE + '[[limit]]\nname = "all"\nrate = "4/h"\nby = []\n'
    site = host(config, url=server.url)
    wait_shared(site)
    assert statuses(site, 5) == [200] * 4 + [429]
    assert metric(site, "quintet_limit_alone_total") == 0


BANNED = "a client was banned for too many refused or failed requests"
# Each host hears of the others every second.
HEARD = 5


def bans(site: Site) -> dict[str, dict[str, object]]:
    """`quintet bans list`, by client."""
    done = site.quintet("bans", "list", "--json")
    assert done.returncode == 0, done.stderr
    return {ban["client"]: ban for ban in json.loads(done.stdout)["bans"]}


def wait_bans(site: Site, *clients: str) -> None:
    """Until these are banned there, and nobody else."""
    wait_until(lambda: sorted(bans(site)) == sorted(clients), HEARD, f"banned: {clients}")


@pytest.mark.short
def test_a_ban_on_one_host_holds_on_all(host: Host) -> None:
    config = '[bans]\nafter = 6\nwindow = "1h"\ntime = "30m"\n'
    one, other = host(config), host(config)
    for site in (one, other):
        site.allow_log(BANNED)
    # Seven offences, three and four on each: no host alone would have banned him.
    for site in (one, other, one, other, one, other, one):
        assert ask(site, "/nothing").status == 404
    wait_bans(one, "127.0.0.2")
    wait_bans(other, "127.0.0.2")
    assert [ask(site).status for site in (one, other)] == [403, 403]
    assert ask(other, client="127.0.0.3").status == 200
    left = [int(str(bans(site)["127.0.0.2"]["ends_in_s"])) for site in (one, other)]
    assert all(1780 <= seconds <= 1800 for seconds in left), left
    # The operator of any host pardons for all, bans for all and changes for all.
    assert other.quintet("bans", "remove", "127.0.0.2").stdout == "127.0.0.2 may come again\n"
    wait_bans(one)
    assert [ask(site).status for site in (one, other)] == [200, 200]
    assert one.quintet("bans", "add", "2001:db8::1", "--for", "2h").returncode == 0
    wait_bans(other, "2001:db8::/64")
    assert other.quintet("bans", "add", "2001:db8::2", "--for", "1m").returncode == 0
    wait_until(lambda: int(str(bans(one)["2001:db8::/64"]["ends_in_s"])) <= 60, HEARD, "the shorter ban")
    # Who was pardoned is not banned again by a host that has not heard of it.
    third = host(config)
    wait_bans(third, "2001:db8::/64")


def test_bans_outlive_redis(redis: PrivateRedis, host: Host) -> None:
    one, other = host(""), host("")
    for site in (one, other):
        site.allow_log(AWAY)
    assert one.quintet("bans", "add", "127.0.0.2", "--for", "1h").returncode == 0
    assert one.quintet("bans", "add", "127.0.0.3", "--for", "1h").returncode == 0
    wait_bans(other, "127.0.0.2", "127.0.0.3")
    assert redis.do("FLUSHALL").startswith("+OK")
    third = host("")
    third.allow_log(AWAY)
    wait_bans(third, "127.0.0.2", "127.0.0.3")
    redis.kill()
    wait_alone(one)
    wait_alone(other)
    assert ask(other).status == 403
    # What is said meanwhile is told when it is back, pardons too.
    told = one.quintet("bans", "remove", "127.0.0.2").stdout
    assert "Redis is away: the other hosts hear of it when it is back" in told
    assert other.quintet("bans", "add", "127.0.0.4", "--for", "1h").returncode == 0
    assert sorted(bans(other)) == ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    redis.start()
    for site in (one, other, third):
        wait_shared(site)
        wait_bans(site, "127.0.0.3", "127.0.0.4")


def test_many_bans_reach_every_host_and_take_no_more_room_than_they_may(
    redis: PrivateRedis, host: Host
) -> None:
    # Tables of hosts are cut into sixteen parts, so they hold a few more or less.
    config = "[bans]\nclients_max = 2000\n"
    one = host(config)
    for number in range(1200):
        words = ["HSET", "{quintet}:bans:records", f"10.0.{number // 200}.{number % 200}"]
        redis.do(*words, f"{(time.time() + 3600) * 1000:.0f} 3600000 1 o")
        redis.do("ZADD", "{quintet}:bans:changes", str(1000 + number), words[2])
        redis.do("ZADD", "{quintet}:bans:ends", f"{(time.time() + 3600) * 1000:.0f}", words[2])
    redis.do("HSET", "{quintet}:bans:state", "number", "3000")
    wait_until(lambda: metric(one, "quintet_banned") == 1200, SOON, "all are heard")
    assert redis.do("ZCARD", "{quintet}:bans:ends") == ":1200\r\n"
    other = host("[bans]\nclients_max = 800\n")
    other.allow_log("could not be banned because too many are")
    assert other.quintet("bans", "add", "127.0.0.2", "--for", "2h").returncode == 0
    wait_until(lambda: redis.do("ZCARD", "{quintet}:bans:ends") == ":800\r\n", HEARD, "no more than it may")
