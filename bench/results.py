"""bench/results/<scenario>.json: the committed figures, in the shape that charts and tables are drawn from."""

from __future__ import annotations

import datetime
import json
from typing import Any

from bench import limits
from bench.context import Context, Outcome
from bench.places import RESULTS, WORK


def write(context: Context, title: str, outcome: Outcome, versions: dict[str, str]) -> dict[str, Any]:
    """Full runs of all stacks are kept with the project; quick ones stay in bench/.work."""
    result: dict[str, Any] = {
        "scenario": context.scenario,
        "title": title,
        "quick": context.quick,
        "pairs": outcome.samples.rounds(),
        "machine": limits.machine(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "versions": versions,
        "method": outcome.method,
        "stacks": outcome.samples.stacks(),
        "ratios": outcome.samples.ratios(),
        "ratio_spread": outcome.samples.ratio_spread(),
        "limit": outcome.limit,
        "goals": [goal.as_json() for goal in outcome.goals],
        **outcome.more,
    }
    kept = not context.quick and not context.rivals_only
    file = (RESULTS if kept else WORK / "results") / f"{context.scenario}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return result


def show(result: dict[str, Any]) -> None:
    """The short of it, on the terminal."""
    print(f"\n{result['scenario']}: {result['title']} (medians of {result['pairs']} rounds)")
    wanted = (
        "cpu_us_per_request",
        "requests_per_second",
        "p99_ms",
        "memory_bytes_per_connection",
        "pss_mib",
        "errors",
    )
    columns = [name for name in wanted if any(name in row for row in result["stacks"].values())]
    print("  " + f"{'':<18}" + "".join(f"{name:>28}" for name in columns))
    for stack, row in result["stacks"].items():
        print("  " + f"{stack:<18}" + "".join(f"{row.get(name, '–'):>28}" for name in columns))
    if result["limit"]:
        limit = result["limit"]
        ratio = f", quintet is at {limit['ratio']} ×" if "ratio" in limit else ""
        print(f"  limit: {limit['name']}: {limit['cpu_us_per_request']} µs{ratio}")
    for goal in result["goals"]:
        print(f"  {'met   ' if goal['met'] else 'missed'}  {goal['text']}: {goal['value']}")
