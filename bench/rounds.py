"""Measuring in turn: A B C, C B A, A B C …, so that noise and drift of a shared machine meet every stack alike.

A ratio is taken within one round and the median of the rounds' ratios is quoted, with the least and the greatest.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bench import load
from bench.load import Found
from bench.stacks import Stack

Sample = dict[str, float]


@dataclass
class Samples:
    """Every stack's figures, one list entry a round."""

    by_stack: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, stack: str, sample: Sample) -> None:
        """One more round of a stack."""
        figures = self.by_stack.setdefault(stack, {})
        for name, value in sample.items():
            figures.setdefault(name, []).append(value)

    def rounds(self) -> int:
        """How many there were; some figures are taken several times in a round."""
        counts = [len(values) for figures in self.by_stack.values() for values in figures.values()]
        return min(counts, default=0)

    def median(self, stack: str, figure: str) -> float:
        """Over the rounds so far."""
        return statistics.median(self.by_stack[stack][figure])

    def stacks(self) -> dict[str, dict[str, Any]]:
        """Medians for results/*.json, and [least, greatest] under `spread`. Errors are summed, not averaged."""
        table: dict[str, dict[str, Any]] = {}
        for stack, figures in self.by_stack.items():
            row: dict[str, Any] = {}
            spread: dict[str, list[float]] = {}
            for name, values in figures.items():
                if name.startswith("errors"):
                    row[name] = round(sum(values))
                else:
                    row[name] = tidy(statistics.median(values))
                    spread[name] = [tidy(min(values)), tidy(max(values))]
            row["spread"] = spread
            table[stack] = row
        return table

    def ratios(self, ours: str = "quintet") -> dict[str, dict[str, float]]:
        """What `ours` has / what the rival has, figure by figure."""
        return {
            figure: {rival: row["median"] for rival, row in rivals.items()}
            for figure, rivals in self.ratio_spread(ours).items()
        }

    def ratio_spread(self, ours: str = "quintet") -> dict[str, dict[str, dict[str, float]]]:
        """As `ratios`, with the least and the greatest."""
        table: dict[str, dict[str, dict[str, float]]] = {}
        for figure, values in self.by_stack.get(ours, {}).items():
            if figure.startswith("errors"):
                continue
            for rival, figures in self.by_stack.items():
                pairs = [a / b for a, b in zip(values, figures.get(figure, []), strict=False) if b]
                if rival != ours and pairs:
                    row = {
                        "median": tidy(statistics.median(pairs)),
                        "min": tidy(min(pairs)),
                        "max": tidy(max(pairs)),
                    }
                    table.setdefault(figure, {})[rival] = row
        return table


def in_turn(
    stacks: list[Stack],
    rounds: int,
    measure: Callable[[Stack, int], Sample],
    samples: Samples,
    say: Callable[[str], None],
) -> None:
    """Fills `samples`, every second round backwards."""
    for number in range(rounds):
        for stack in stacks if number % 2 == 0 else reversed(stacks):
            sample = measure(stack, number)
            samples.add(stack.name, sample)
            say(f"  round {number + 1}/{rounds}  {stack.name:<16} {brief(sample)}")


def with_cpu(stack: Stack, run: Callable[[], Found]) -> tuple[Found, Sample]:
    """Runs a load; the CPU all server processes spent, per answered request."""
    before = stack.cpu_seconds()
    found = run()
    spent = stack.cpu_seconds() - before
    return found, {"cpu_us_per_request": spent / max(found.answered, 1) * 1e6}


def closed(
    stack: Stack, path: str, seconds: float, *, connections: int = load.CONNECTIONS, tls: bool = False
) -> Sample:
    """Load by wrk, as fast as the stack answers: CPU per request, throughput, memory under load."""
    found, sample = with_cpu(stack, lambda: load.wrk(stack.url(path, tls=tls), seconds, connections))
    return {
        **sample,
        "requests_per_second": found.per_second,
        "seconds": found.seconds,
        "closed_p50_ms": found.p50_ms,
        "closed_p99_ms": found.p99_ms,
        "errors": found.errors,
        **memory(stack),
    }


def memory(stack: Stack) -> Sample:
    """RSS (shared pages counted once per process) and PSS (divided by their sharers), in MiB."""
    rss, pss = stack.memory_mib()
    return {"rss_mib": rss, "pss_mib": pss}


def promote(samples: Samples, label: str) -> None:
    """The case whose figures stand for the scenario: `p99_ms_1kB` is also `p99_ms`."""
    for figures in samples.by_stack.values():
        for name in [name for name in figures if name.endswith(f"_{label}")]:
            figures[name.removesuffix(f"_{label}")] = list(figures[name])


def scheduled(stack: Stack, path: str, rate: float, seconds: float, label: str, **options: Any) -> Sample:
    """Open loop at `rate`; the figures carry `label` ("at_80")."""
    found, sample = with_cpu(stack, lambda: load.scheduled(stack.address, path, rate, seconds, **options))
    return {
        f"cpu_us_per_request_{label}": sample["cpu_us_per_request"],
        f"p50_ms_{label}": found.p50_ms,
        f"p99_ms_{label}": found.p99_ms,
        f"errors_{label}": found.errors,
        f"lateness_p99_ms_{label}": found.more["lateness"]["p99_ms"],
    }


def warm(stacks: Iterable[Stack], path: str, seconds: float = 1.0, *, tls: bool = False) -> None:
    """Every worker has answered before the first figure is taken."""
    for stack in stacks:
        load.wrk(stack.url(path, tls=tls), seconds)


def tidy(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def brief(sample: Sample) -> str:
    """One line for the terminal."""
    words = {"cpu_us_per_request": "µs/req", "requests_per_second": "req/s"}
    shown = [
        f"{tidy(value):>8g} {words.get(name, name)}"
        for name, value in sample.items()
        if name in words
        or name.startswith(("p99_ms", "memory", "grown", "requests_per_second_", "cpu_us_per_request_"))
    ]
    errors = sum(value for name, value in sample.items() if name.startswith("errors"))
    return "  ".join(shown) + f"  {errors:.0f} errors"
