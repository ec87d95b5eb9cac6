"""What a scenario gets and what it gives back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import quintet, rivals
from bench.places import SITES, STATIC
from bench.rivals import Start
from bench.rounds import Samples, tidy
from bench.stacks import Site, Stack


@dataclass(frozen=True)
class Goal:
    """A promise of the project, and what was measured."""

    text: str
    value: float
    limit: float

    def as_json(self) -> dict[str, Any]:
        """For results/*.json."""
        return {
            "text": self.text,
            "value": tidy(self.value),
            "limit": tidy(self.limit),
            "met": self.value <= self.limit,
        }


@dataclass
class Context:
    """How long and how often; quick runs show that everything works, full runs are quoted."""

    scenario: str
    quick: bool
    # Without quintet: to look at the rivals alone.
    rivals_only: bool = False

    @property
    def rounds(self) -> int:
        """Five pairs are what a quoted figure needs (docs/benchmarks.md)."""
        return 2 if self.quick else 5

    def seconds(self, full: float, quick: float = 1.0) -> float:
        """How long one measurement takes."""
        return quick if self.quick else full

    def say(self, text: str) -> None:
        """Progress."""
        print(text, flush=True)

    @contextlib.contextmanager
    def started(
        self,
        site: Site,
        starts: dict[str, Start],
        check: str,
        expected: bytes | None,
        *,
        ours: Start = quintet.start,
        tls: bool = False,
    ) -> Iterator[list[Stack]]:
        """Our stack and the rivals', side by side, each checked for a correct answer; stopped at the end."""
        everyone: dict[str, Start] = dict(starts) if self.rivals_only else {"quintet": ours, **starts}
        stacks: list[Stack] = []
        try:
            for name, start in everyone.items():
                stack = start(site, rivals.workdir(self.scenario, name))
                stack.name = name
                stacks.append(stack)
                stack.check(check, expected, tls=tls)
            self.say(f"{self.scenario}: {', '.join(stack.name for stack in stacks)}; {self.rounds} rounds")
            yield stacks
        finally:
            for stack in stacks:
                stack.stop()


@dataclass
class Outcome:
    """One scenario's results."""

    samples: Samples
    limit: dict[str, Any] | None = None
    goals: list[Goal] = field(default_factory=list)
    # How it was measured, in a sentence or two; printed under the table.
    method: str = ""
    more: dict[str, Any] = field(default_factory=dict)


def hello_site(workers: int = 2, threads: int = 1, static_root: Path = STATIC) -> Site:
    """The site of most scenarios: `django-admin startproject` with two views."""
    return Site(
        SITES / "hello",
        "hello.settings",
        "hello.wsgi:application",
        workers,
        threads,
        env={"BENCH_STATIC_ROOT": str(static_root)},
        static_root=static_root,
    )


HELLO = ("/hello", b"Hello, world!")
