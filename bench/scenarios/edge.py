"""What the edge costs those who configure it: instructions of the gateway with limits, routes, compression, and without."""

from __future__ import annotations

from bench import callgrind
from bench.context import Context, Goal, Outcome, hello_site
from bench.rounds import Samples, tidy

TITLE = "Configured and not used: instructions of the gateway"
TOOLS = ("gcc", "valgrind")
_GOAL = 1.03
# A page of the app, as browsers ask for it, and a file from memory, which is the least that the gateway does.
_PATHS = {"page": "/hello", "file": "/static/1kB.png"}
_HEADERS = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Cookie: sessionid=t5v8x1k0c3h7p2q9w4e6r8y1u3i5o7a9; csrftoken=Zx81jQm4bTn0",
)
_LIMITS = """\
[[limit]]
rate = "100000/s"
[bans]
after = 100
count_4xx = true
"""
_ROUTES = """\
[[route]]
host = "www.example.org"
redirect = "https://example.org{path}{query}"
[[route]]
path = ["/api/*", "/v1/*"]
method = ["POST", "PUT"]
body_max = "1MiB"
[[route]]
path = "/handbook/*"
respond = "moved"
[[route]]
path = "/exports/*"
header = "X-Beta"
respond = "beta"
[[route]]
path = "/*"
name = "site"
"""
_COMPRESSION = """\
[compression]
enabled = true
"""
_VARIANTS = {
    "off": "",
    "limits": _LIMITS,
    "routes": _ROUTES,
    "compression": _COMPRESSION,
    "all": _LIMITS + _COMPRESSION + _ROUTES,
}


def run(context: Context) -> Outcome:
    """A fixed number of requests for each, several times in turn: the counts hardly differ."""
    samples, requests = Samples(), 1_000 if context.quick else 4_000
    for number in range(1 if context.quick else 3):
        for name, config in _VARIANTS.items():
            with callgrind.started(context.scenario, name, hello_site(1), config) as stack:
                sample = {}
                for case, path in _PATHS.items():
                    stack.check(path)
                    counted = callgrind.per_request(stack, path, requests, *_HEADERS)
                    sample[f"instructions_per_request_{case}"] = counted
            samples.add(name, sample)
            context.say(
                f"  round {number + 1}  {name:<12} {', '.join(f'{k} {v:.0f}' for k, v in sample.items())}"
            )
    outcome = Outcome(
        samples,
        method="valgrind's callgrind around the gateway process; the requests of a browser, one after another on one connection. "
        "`limits`: a limit by address, bans for offences and for errors. `routes`: five, the last takes the request and changes nothing. "
        "`compression`: on, for answers that are too small or compressed already.",
    )
    for name in _VARIANTS:
        if name in {"off", "all"}:
            continue
        for case in _PATHS:
            figure = f"instructions_per_request_{case}"
            ratio = samples.median(name, figure) / samples.median("off", figure)
            outcome.goals.append(Goal(f"{case} with {name} / without ≤ {_GOAL}", tidy(ratio), _GOAL))
    return outcome
