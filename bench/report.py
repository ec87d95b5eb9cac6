"""The generated part of docs/benchmarks.md (and the short of it in README.md), between two markers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import charts
from bench.places import DOCUMENT, RESULTS, ROOT
from bench.scenarios import NAMES

_BEGIN, _END = "<!-- bench:figures -->", "<!-- /bench:figures -->"
_SHORT_BEGIN, _SHORT_END = "<!-- bench:short -->", "<!-- /bench:short -->"
# figure in results/*.json: column
_COLUMNS = {
    "cpu_us_per_request": "CPU µs / request",
    "instructions_per_request": "instructions / request",
    "requests_per_second": "requests / s",
    "goodput": "goodput",
    "refused_share": "refused",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "mean_ms": "mean ms",
    "memory_bytes_per_connection": "bytes / connection",
    "database_cpu_us_per_request": "PostgreSQL µs / request",
    "spawn_ms": "ms since its birth",
    "spawn_max_ms": "longest",
    "order_ms": "ms since the order",
    "reloads": "reloads",
    "upgrades": "upgrades",
    "requests": "requests",
    "max_ms": "longest ms",
    "pss_mib": "PSS MiB",
    "errors": "failed",
}
# Where the same figure exists for several cases, a row each.
_CASES = {
    "static": ("1kB", "100kB", "10MB"),
    "tls": ("1kB", "100kB", "handshake"),
    "h2": ("1kB", "100kB"),
    "proxy": ("one_1kB", "one_100kB", "one_post", "three_1kB"),
    "mixed": ("at_30", "at_50", "at_80"),
    "overload": ("at_80", "at_120", "at_200"),
    "edge": ("page", "file"),
    "idle": ("10000", "15000"),
    "slow": ("alone", "headers", "body", "ranges", "reading"),
    "asgi-hello": ("plain", "django"),
}


def write() -> list[Path]:
    """Charts and tables from the committed results; returns what was written."""
    results = [json.loads(file.read_text()) for name in NAMES if (file := RESULTS / f"{name}.json").exists()]
    if not results:
        return []
    drawn = charts.write(results)
    written = []
    sections = "\n".join(_section(result, result["scenario"] in drawn) for result in results)
    if _fill(DOCUMENT, _BEGIN, _END, f"{_promises(results)}\n{sections}"):
        written.append(DOCUMENT)
    if _fill(ROOT / "README.md", _SHORT_BEGIN, _SHORT_END, _short(results)):
        written.append(ROOT / "README.md")
    return written


def _promises(results: list[dict[str, Any]]) -> str:
    """Every goal, reached or not."""
    lines = ["## Goals\n", "| scenario | goal | measured | |", "|---|---|---|---|"]
    for result in results:
        for goal in result["goals"]:
            verdict = "reached" if goal["met"] else "**not reached**"
            lines.append(f"| {result['scenario']} | {goal['text']} | {_number(goal['value'])} | {verdict} |")
    return "\n".join(lines) + "\n"


def _section(result: dict[str, Any], has_chart: bool) -> str:
    lines = [f"## `{result['scenario']}`: {result['title']}\n"]
    if has_chart:
        lines.append(f"![{result['title']}](benchmarks/{result['scenario']}.svg)\n")
    rounds = f"Medians of {result['pairs']} rounds [least – greatest]." if result["pairs"] > 1 else "One run."
    lines.append(f"{result['method']} {rounds}\n")
    lines += _table(result)
    limit = result.get("limit")
    if limit:
        ratio = f"; quintet is at {limit['ratio']} times that" if "ratio" in limit else ""
        lines.append(f"\nThe limit, {limit['name']}: {_number(limit['cpu_us_per_request'])} µs{ratio}.")
    lines += _beside(result)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines.append(f"\n{result['machine']}, {result['date']}; {versions}.\n")
    return "\n".join(lines)


def _table(result: dict[str, Any]) -> list[str]:
    """A row a stack, or a row a stack and case."""
    cases = [case for case in _CASES.get(result["scenario"], ()) if _known(result, case)] or [""]
    columns = [name for name in _COLUMNS if any(_known(result, case, name) for case in cases)]
    head = ["stack", *(["case"] if cases != [""] else []), *(_COLUMNS[name] for name in columns)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for case in cases:
        for stack, row in result["stacks"].items():
            cells = [
                stack,
                *([_spoken(case)] if case else []),
            ]
            lines.append(
                "| " + " | ".join([*cells, *(_cell(row, _key(row, name, case)) for name in columns)]) + " |"
            )
    return lines


def _spoken(case: str) -> str:
    """`at_30`: 30 %, `1kB`: 1 kB, `10000`: 10,000 idle."""
    if case.startswith("at_"):
        return f"{case.removeprefix('at_')} %"
    return f"{int(case):,} idle" if case.isdigit() else charts.spoken(case)


def _known(result: dict[str, Any], case: str, name: str = "") -> bool:
    for row in result["stacks"].values():
        if name and _key(row, name, case) in row:
            return True
        if not name and any(figure.endswith(f"_{case}") for figure in row):
            return True
    return False


def _key(row: dict[str, Any], name: str, case: str) -> str:
    """The figure of the case, or the stack's own where it has one for all cases (memory)."""
    if not case:
        return name
    return f"{name}_{case}" if f"{name}_{case}" in row or name not in {"pss_mib"} else name


def _cell(row: dict[str, Any], figure: str) -> str:
    if figure not in row:
        return "–"
    low, high = row["spread"].get(figure, [None, None])
    shown = _number(row[figure])
    return shown if low is None or low == high else f"{shown} [{_number(low)} – {_number(high)}]"


def _beside(result: dict[str, Any]) -> list[str]:
    """Limits and figures that are a scenario's own, and why one is missing."""
    lines = [f"\nNot measured: {text}." for text in result.get("missing", [])]
    if isinstance(result.get("loopback_echo_us"), dict):
        told = ", ".join(f"{case} {_number(value)} µs" for case, value in result["loopback_echo_us"].items())
        lines.append(
            f"\nA loopback echo of the same bytes (one read, one write, one epoll loop a core): {told}."
        )
    elif "loopback_echo_us" in result:
        lines.append(f"\nA loopback echo of the same bytes: {_number(result['loopback_echo_us'])} µs.")
    if "memcpy_us" in result:
        told = ", ".join(f"{case} {_number(value)} µs" for case, value in result["memcpy_us"].items())
        lines.append(f"One copy of the body in memory: {told}.")
    if "rates_per_second" in result and result["scenario"] in {"hello", "shop"}:
        told = ", ".join(
            f"{share} %: {_number(rate)}/s" for share, rate in result["rates_per_second"].items()
        )
        lines.append(
            f"\np50 and p99 are of an open loop at 80 % of what {result['capacity_of']} can ({told})."
        )
    if "extrapolated_mib_at_100000_connections" in result:
        table = result["extrapolated_mib_at_100000_connections"]
        told = ", ".join(f"{name} {_number(value)} MiB" for name, value in table.items())
        lines.append(f"\nExtrapolated, not measured, for 100,000 connections: {told}.")
    return lines


def _short(results: list[dict[str, Any]]) -> str:
    """What a newcomer understands at once."""
    by_name = {result["scenario"]: result for result in results}
    lines = ["| | quintet | usual stack | best rival |", "|---|---|---|---|"]
    wanted = (
        ("hello", "cpu_us_per_request", "CPU per request: a short Django view", "µs"),
        ("shop", "cpu_us_per_request", "CPU per request: a page from PostgreSQL", "µs"),
        ("mixed", "p99_ms", "p99 of fast requests while 5 % take 500 ms", "ms"),
        ("static", "cpu_us_per_request", "CPU per static file of 1 kB", "µs"),
        ("tls", "cpu_us_per_request_handshake", "CPU per TLS handshake and request", "µs"),
        ("proxy", "cpu_us_per_request", "CPU per request passed on to an upstream", "µs"),
        ("idle", "memory_bytes_per_connection", "memory per idle connection", "bytes"),
        ("reload", "errors", "requests that failed in reloads under full load", "of"),
        ("upgrade", "errors", "requests that failed in upgrades under full load", "of"),
        ("spawn", "spawn_ms", "a worker more, from its start to its first answer", "ms"),
        ("websocket", "cpu_us_per_request", "CPU per WebSocket message there and back", "µs"),
        ("websocket", "memory_bytes_per_connection", "memory per idle WebSocket", "bytes"),
    )
    for scenario, figure, text, unit in wanted:
        result = by_name.get(scenario)
        if result and figure in result["stacks"]["quintet"]:
            lines.append(f"| {text} | {' | '.join(_three(result, figure, unit))} |")
    return "\n".join(lines) + "\n"


def _three(result: dict[str, Any], figure: str, unit: str) -> tuple[str, str, str]:
    """Ours, that of nginx (with gunicorn), that of the best rival, where it is another."""

    def shown(bar: charts.Bar) -> str:
        if unit == "of":
            return f"{bar.value:.0f} of {_number(float(result['stacks'][bar.name]['requests']))}"
        return f"{_number(bar.value)} {unit}"

    ours, *rivals = charts.bars(result, figure)
    usual = next((bar for bar in rivals if bar.name in {"nginx", "nginx+gunicorn"}), None)
    best = rivals[0]
    last = f"{best.name} {shown(best)}" if best is not usual else ""
    return f"**{shown(ours)}**", f"{usual.name} {shown(usual)}" if usual else "", last


def _fill(file: Path, begin: str, end: str, text: str) -> bool:
    """Replaces what stands between the markers; a file without them is left alone."""
    if not file.exists():
        return False
    before, found_begin, rest = file.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        return False
    file.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")
    return True


def _number(value: float) -> str:
    if isinstance(value, float) and value < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"
