"""A real page: the shop's list of products, through the ORM from PostgreSQL and through templates."""

from __future__ import annotations

import statistics

from bench import pages, postgres, rivals
from bench.context import Context, Goal, Outcome
from bench.rivals import Start
from bench.rounds import Samples

TITLE = "The shop's list page: ORM on PostgreSQL, templates, sessions"
TOOLS = ("wrk", "nginx", "postgres", "pgbouncer")
_PATH = "/catalogue/"
# Requests wait for the database: more slots than cores.
_WORKERS, _THREADS = 2, 4
_BARE_REQUESTS = 400
# The load of the goal; six stacks at three rates would take a quarter of an hour.
_SHARES = (80,)
# CPU that serving may add to the page itself.
_ADDED_US_MAX = 60.0
# "No worse" under the noise of a shared machine (performance.md).
_NO_WORSE = 1.2


def run(context: Context) -> Outcome:
    """As `hello`. Every stack keeps its database connections (CONN_MAX_AGE); one rival has PgBouncer too."""
    database = postgres.start()
    try:
        return _run(context, database)
    finally:
        database.tree.stop()


def _run(context: Context, database: postgres.Database) -> Outcome:
    site, samples = postgres.site(database, _WORKERS, _THREADS), Samples()
    starts: dict[str, Start] = {
        "nginx+gunicorn": rivals.nginx_gunicorn_threads,
        "granian": rivals.granian,
        "nginx+granian": rivals.nginx_granian,
        "nginx+uwsgi": rivals.nginx_uwsgi,
    }
    if not context.quick:
        starts["nginx+granian+pgbouncer"] = postgres.pooled(rivals.nginx_granian, database)
    with context.started(site, starts, _PATH, None) as stacks:
        bare = pages.closed_rounds(context, stacks, site, _PATH, samples, _BARE_REQUESTS, database.tree)
        more = pages.open_rounds(context, stacks, _PATH, samples, _SHARES)
    outcome = Outcome(
        samples,
        pages.limit(bare, samples),
        more=more,
        method=f"{_WORKERS} workers with {_THREADS} threads each, one PostgreSQL for all, kept connections; "
        "PostgreSQL's own CPU is told apart (database_cpu_us_per_request), PgBouncer's counts.",
    )
    if not context.rivals_only:
        ours, ratios = samples.by_stack["quintet"], samples.ratios()
        added = statistics.median(a - b for a, b in zip(ours["cpu_us_per_request"], bare, strict=True))
        outcome.goals = [
            Goal("CPU above the bare call, µs ≤ 60", added, _ADDED_US_MAX),
            Goal(
                "throughput of the best rival / ours ≤ 1.2",
                1 / min(ratios["requests_per_second"].values()),
                _NO_WORSE,
            ),
            Goal(
                "p99 at 80 % load / the best rival's ≤ 1.2", max(ratios["p99_ms_at_80"].values()), _NO_WORSE
            ),
        ]
    return outcome
