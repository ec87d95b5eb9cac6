"""Bar charts as SVG: small, readable in light and dark, drawn from bench/results only.

The style sheet inside each file follows the reader's colour scheme, also where the SVG is shown as an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from bench.places import CHARTS

# Pixels of the view box; the page scales it.
_WIDTH, _LEFT, _RIGHT = 760, 210, 150
_BAR, _GAP, _GROUP_GAP, _TOP = 20, 8, 34, 64
_STYLE = """
text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-size:16px;font-weight:600}
.note{fill:#59636e;font-size:12px}.rival{fill:#9aa5b1}.ours{fill:#c2410c}.whisker{stroke:#1f2328;stroke-width:1;opacity:.55}
.limit{stroke:#0969da;stroke-width:1.5;stroke-dasharray:4 3}.limit-name{fill:#0969da;font-size:12px}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.rival{fill:#6e7681}.ours{fill:#fb923c}
.whisker{stroke:#e6edf3}.limit{stroke:#58a6ff}.limit-name{fill:#58a6ff}}
"""
# Cases of a scenario in words, in the order in which they are drawn.
_SPOKEN = {
    "1kB": "1 kB",
    "100kB": "100 kB",
    "10MB": "10 MB",
    "handshake": "a full handshake and 1 kB",
    "page": "a page of the app",
    "file": "a file",
    "plain": "a plain app",
    "django": "Django",
    "one_1kB": "one server, 1 kB",
    "one_100kB": "one server, 100 kB",
    "one_post": "one server, a POST of 10 kB",
    "three_1kB": "three servers, 1 kB",
    "alone": "nobody is slow",
    "headers": "slow headers",
    "body": "slow bodies",
    "ranges": "many ranges",
    "reading": "slow readers",
}


@dataclass(frozen=True)
class Bar:
    """One stack's figure, with the least and the greatest of the rounds."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Chart:
    """Groups of bars. Groups are drawn to one scale, or each to its own where they differ by magnitudes."""

    title: str
    note: str
    unit: str
    groups: list[tuple[str, list[Bar]]]
    one_scale: bool = True
    limit: tuple[str, float] | None = None


def draw(chart: Chart) -> str:
    """The SVG's text."""
    greatest = max((bar.high for _, bars in chart.groups for bar in bars), default=1.0)
    parts, top = list[str](), _TOP
    span = _WIDTH - _LEFT - _RIGHT
    for name, bars in chart.groups:
        if name:
            parts.append(f'<text class="note" x="0" y="{top + 4}">{escape(name)}</text>')
            top += 14
        scale = span / (greatest if chart.one_scale else max(bar.high for bar in bars))
        first = top
        for bar in bars:
            parts += _bar(bar, top, scale, chart.unit)
            top += _BAR + _GAP
        if chart.limit:
            x = _LEFT + chart.limit[1] * scale
            parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{first - 6}" y2="{top - 2}"/>')
        top += _GROUP_GAP - _GAP if name else 0
    height = top + 10
    if chart.limit:
        label = f"{chart.limit[0]}: {_number(chart.limit[1])} {chart.unit}"
        x = _LEFT + chart.limit[1] * span / greatest
        parts.append(
            f'<text class="limit-name" x="{x:.1f}" y="{top + 10}" text-anchor="middle">{escape(label)}</text>'
        )
        height += 14
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(chart.title, quote=True)}"><style>{_STYLE}</style>'
        f'<text class="title" x="0" y="18">{escape(chart.title)}</text>'
        f'<text class="note" x="0" y="38">{escape(chart.note)}</text>'
    )
    return head + "\n".join(parts) + "</svg>\n"


def _bar(bar: Bar, top: int, scale: float, unit: str) -> list[str]:
    kind = "ours" if bar.name == "quintet" else "rival"
    middle, end = top + _BAR / 2, _LEFT + bar.value * scale
    low, high = _LEFT + bar.low * scale, _LEFT + bar.high * scale
    label_x = _LEFT + max(bar.high, bar.value) * scale + 8
    return [
        f'<text x="{_LEFT - 10}" y="{middle + 4.5}" text-anchor="end">{escape(bar.name)}</text>',
        f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{max(end - _LEFT, 1):.1f}" height="{_BAR}" rx="2"/>',
        f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{label_x:.1f}" y="{middle + 4.5}">{_number(bar.value)} {escape(unit)}</text>',
    ]


def of(result: dict[str, Any]) -> Chart | None:
    """The chart of a scenario's result; None where a table row says it all."""
    scenario = result["scenario"]
    if scenario in {"hello", "shop"}:
        limit = result["limit"]
        return Chart(
            f"{result['title']}: CPU per request",
            "all server processes, user + system; less is better",
            "µs",
            [("", bars(result, "cpu_us_per_request"))],
            limit=("bare Django call", limit["cpu_us_per_request"]) if limit else None,
        )
    if scenario in {"mixed", "overload"}:
        title, slots = {
            "mixed": ("p99 of the fast requests while 5 % take 500 ms", "8 slots"),
            "overload": ("p99 of the served requests under overload", "8 slots of 100 ms"),
        }[scenario]
        shares = [share for share in (30, 50, 80, 120, 200) if _has(result, f"p99_ms_at_{share}")]
        return Chart(
            title,
            f"open loop, {slots} in 2 processes; less is better",
            "ms",
            [(f"{share} % of the slots' capacity", bars(result, f"p99_ms_at_{share}")) for share in shares],
        )
    if scenario in {"static", "tls", "h2", "proxy", "asgi-hello"}:
        cases = [case for case in _SPOKEN if _has(result, f"cpu_us_per_request_{case}")]
        groups = [(spoken(case), bars(result, f"cpu_us_per_request_{case}")) for case in cases]
        note = "each group to its own scale; less is better"
        return Chart(f"{result['title']}: CPU per request", note, "µs", groups, one_scale=False)
    if scenario == "spawn":
        return Chart(
            "A worker more, under load",
            "from the birth of its process to its first answer; less is better",
            "ms",
            [("", bars(result, "spawn_ms"))],
        )
    if scenario == "websocket":
        return Chart(
            "A WebSocket message there and back: CPU",
            "all server processes, user + system; less is better",
            "µs",
            [("", bars(result, "cpu_us_per_request"))],
        )
    if scenario == "idle":
        return Chart(
            "Memory per idle keep-alive connection",
            "PSS of all server processes; less is better",
            "bytes",
            [("", bars(result, "memory_bytes_per_connection"))],
        )
    return None


def bars(result: dict[str, Any], figure: str) -> list[Bar]:
    """One figure of every stack, ours first, then the rivals from best to worst."""
    found = []
    for name, row in result["stacks"].items():
        if figure in row:
            low, high = row["spread"].get(figure, [row[figure], row[figure]])
            found.append(Bar(name, row[figure], low, high))
    return sorted(found, key=lambda bar: (bar.name != "quintet", bar.value))


def write(results: list[dict[str, Any]]) -> list[str]:
    """Draws every chart; returns the scenarios that have one."""
    CHARTS.mkdir(parents=True, exist_ok=True)
    drawn = []
    for result in results:
        chart = of(result)
        if chart:
            (CHARTS / f"{result['scenario']}.svg").write_text(draw(chart))
            drawn.append(result["scenario"])
    return drawn


def _has(result: dict[str, Any], figure: str) -> bool:
    return any(figure in row for row in result["stacks"].values())


def spoken(case: str) -> str:
    """A case in words."""
    return _SPOKEN[case]


def _number(value: float) -> str:
    """Three digits, and thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
