"""A Django view that returns a short string: what the server itself costs."""

from __future__ import annotations

from bench import limits, pages, rivals
from bench.context import HELLO, Context, Goal, Outcome, hello_site
from bench.rounds import Samples

TITLE = "A short string from a Django view"
TOOLS = ("wrk", "nginx")
_STARTS = {
    "nginx+gunicorn": rivals.nginx_gunicorn,
    "granian": rivals.granian,
    "nginx+granian": rivals.nginx_granian,
    "nginx+uwsgi": rivals.nginx_uwsgi,
}
# Long enough to be steady to a percent (0.8 s of CPU), short enough to be taken in every round.
_BARE_REQUESTS = 10_000
# Status line and the headers Django's middleware sets, and the string.
_ANSWER_BYTES = 330


def run(context: Context) -> Outcome:
    """Closed loop for CPU and throughput, open loop for latency."""
    path, body = HELLO
    site, samples = hello_site(workers=2, threads=4), Samples()
    with context.started(site, _STARTS, path, body) as stacks:
        bare = pages.closed_rounds(context, stacks, site, path, samples, _BARE_REQUESTS)
        more = pages.open_rounds(context, stacks, path, samples)
        more["loopback_echo_us"] = limits.loopback_echo(_ANSWER_BYTES, context.seconds(2))
    outcome = Outcome(
        samples,
        pages.limit(bare, samples),
        more=more,
        method="2 workers with 4 threads each (gunicorn sync: 1); wrk with 64 keep-alive connections; "
        "then Poisson arrivals at fixed rates.",
    )
    if not context.rivals_only:
        cpu = samples.ratios()["cpu_us_per_request"]
        assert outcome.limit is not None
        outcome.goals = [
            Goal("CPU of the whole stack / the bare Django call ≤ 1.25", outcome.limit["ratio"], 1.25),
            Goal("CPU / nginx+gunicorn ≤ 0.30", cpu["nginx+gunicorn"], 0.30),
            Goal("CPU / Granian alone ≤ 0.75", cpu["granian"], 0.75),
        ]
    return outcome
