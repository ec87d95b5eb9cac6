"""WebSockets: what a message there and back costs, and what a silent connection does."""

from __future__ import annotations

from bench import asgi_rivals, hold, load, quintet, rivals, rounds
from bench.context import HELLO, Context, Outcome
from bench.places import SITES
from bench.rivals import Start
from bench.rounds import Sample, Samples
from bench.stacks import Site, Stack

TITLE = "WebSocket echo, and idle WebSockets"
TOOLS = ("wrk",)
_SITE = Site(SITES / "plain_asgi", "", "plain:application", 2, asgi=True)
_PATH = "/echo"
_MESSAGE_BYTES = 64
_CONNECTIONS = load.CONNECTIONS
_IDLE, _QUICK_IDLE = 2_000, 300
# What is loaded with the first of a kind is not charged to the connections. No more than these: a load leaves room in
# a heap that does not shrink, and the connections vanish in it (Daphne after a second of wrk had room for 2,000).
_FIRST = 16
_MEMORY = "memory_bytes_per_connection"


def run(context: Context) -> Outcome:
    """Memory first, each round on servers of its own: allocators keep what they once had. Then the echoes, side by side."""
    samples = Samples()
    starts: dict[str, Start] = dict(asgi_rivals.STARTS)
    if not context.rivals_only:
        starts = {"quintet": quintet.start, **starts}
    count = _QUICK_IDLE if context.quick else _IDLE
    for number in range(context.rounds):
        for name in starts if number % 2 == 0 else reversed(starts):
            sample = _idle(context, name, starts[name], count)
            samples.add(name, sample)
            context.say(f"  round {number + 1}/{context.rounds}  {name:<16} {rounds.brief(sample)}")
    missing = [name for name, figures in samples.by_stack.items() if min(figures[_MEMORY]) <= 0]
    for name in missing:
        del samples.by_stack[name][_MEMORY]
    with context.started(_SITE, asgi_rivals.STARTS, *HELLO) as stacks:

        def measure(stack: Stack, _number: int) -> Sample:
            found, sample = rounds.with_cpu(
                stack,
                lambda: load.websocket(
                    stack.address, _PATH, context.seconds(2), _CONNECTIONS, _MESSAGE_BYTES
                ),
            )
            return {
                **sample,
                "requests_per_second": found.per_second,
                "p50_ms": found.p50_ms,
                "p99_ms": found.p99_ms,
                "errors": found.errors,
                **rounds.memory(stack),
            }

        rounds.in_turn(stacks, context.rounds, measure, samples, context.say)
    return Outcome(
        samples,
        method=f"A request is a message of {_MESSAGE_BYTES} bytes there and back, on {_CONNECTIONS} connections in a "
        "closed loop, without compression; 2 workers (Daphne, which has none: one process), uvloop. Memory is the "
        f"growth of PSS per connection with {count:,} silent ones.",
        more={
            "missing": [
                f"{name}'s heap had room for the connections: no memory of theirs" for name in missing
            ]
        },
    )


def _idle(context: Context, name: str, start: Start, count: int) -> Sample:
    stack = start(_SITE, rivals.workdir(context.scenario, name))
    stack.name = name
    try:
        stack.check(*HELLO)
        with hold.held(stack, _PATH, _FIRST, websocket=True):
            pass
        before = stack.memory_mib()[1]
        with hold.held(stack, _PATH, count, websocket=True):
            after = stack.memory_mib()[1]
        return {_MEMORY: (after - before) * (1 << 20) / count}
    finally:
        stack.stop()
