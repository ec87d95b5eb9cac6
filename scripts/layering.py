"""The house's statics: imports go down, `unsafe` stays in its rooms, files open with their purpose.

Reads `cargo metadata` and the sources; prints every breach and fails when there is one. The rooms and their
planes are those of ARCHITECTURE.md.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

# A room may import rooms of lower planes, never of its own: two players meet only in `cli`.
PLANES = {
    "quintet-ctl-autoscaler": 0,
    "quintet-ctl-config": 0,
    "quintet-ctl-telemetry": 0,
    "quintet-ctl-admin": 0,
    "quintet-http-limits": 0,
    "quintet-http-redis": 0,
    "quintet-http-upstream": 0,
    "quintet-py-link": 0,
    "quintet-http-gateway": 1,
    "quintet-ctl-supervisor": 1,
    "quintet-py-worker": 1,
    "quintet-cli": 2,
    "quintet": 3,
}
# Crates that only these rooms may name. Who is absent is the point.
RESERVED = {
    # Only the extension knows Python.
    "pyo3": {"quintet-py-worker"},
    # The supervisor is one thread and stays small; pure rooms have no I/O and no clock.
    "tokio": {"quintet-http-gateway", "quintet-cli"},
    "hyper": {"quintet-http-gateway"},
    "rustls": {"quintet-http-gateway"},
    "clap": {"quintet-cli"},
}
# Nothing of these may be linked into the native binary, however indirectly.
BANNED_IN_BINARY = {"pyo3", "openssl-sys"}
# Where `unsafe` may stand, each use with its SAFETY comment (clippy asks for that).
UNSAFE = ("crates/py-worker/src/", "crates/ctl-supervisor/src/inherit.rs")
# What a reader takes in at once; tests at the end of a file do not count.
LINES_MAX = 600

# Comments, strings (raw ones too) and characters, so that only code is searched for keywords.
NOT_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\[^\n]{1,10}?|[^\'\\\n])\'', re.DOTALL
)
TESTS = re.compile(r"^#\[cfg\(test\)\]\s*\n(?:#\[[^\n]*\]\s*\n)*mod \w+ \{", re.MULTILINE)


def metadata() -> dict[str, Any]:
    """What cargo knows of the workspace."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)


def imports(packages: list[dict[str, Any]]) -> Iterator[str]:
    """Imports that do not go down, and rooms nobody has placed."""
    for package in packages:
        room = package["name"]
        if room not in PLANES:
            yield f"{room}: not in PLANES of scripts/layering.py; which plane is it on?"
            continue
        for dependency in package["dependencies"]:
            name = dependency["name"]
            # Test helpers may look anywhere: they are in no binary.
            if dependency["kind"] == "dev":
                continue
            if name in PLANES and PLANES[name] >= PLANES[room]:
                yield f"{room} imports {name}, which is not below it"
            if room not in RESERVED.get(name, {room}):
                yield f"{room} imports {name}, which only {', '.join(sorted(RESERVED[name]))} may"
    for room in PLANES.keys() - {package["name"] for package in packages}:
        yield f"{room}: in PLANES of scripts/layering.py, but there is no such room"


def binary(data: dict[str, Any]) -> Iterator[str]:
    """What must not be linked into the binary, and the way it came in."""
    names = {package["id"]: package["name"] for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    todo = [(key, "quintet") for key, name in names.items() if name == "quintet"]
    seen = set()
    while todo:
        key, way = todo.pop()
        if key in seen:
            continue
        seen.add(key)
        if names[key] in BANNED_IN_BINARY:
            yield f"the binary links {names[key]}: {way}"
        for dependency in nodes[key]["deps"]:
            linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            todo += [(dependency["pkg"], f"{way} > {names[dependency['pkg']]}")] if linked else []


def sources(root: Path) -> Iterator[str]:
    """Breaches in the Rust files."""
    for path in sorted(root.glob("crates/**/*.rs")):
        name = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        if not text.startswith("//!"):
            yield f"{name}: does not open with //!, what lives here and what does not"
        cut = TESTS.search(text)
        lines = text[: cut.start()].count("\n") if cut else text.count("\n")
        if lines > LINES_MAX and "/tests" not in name:
            yield f"{name}: {lines} lines without tests; what is it really two of?"
        if not name.startswith(UNSAFE):
            code = NOT_CODE.sub(lambda found: "\n" * found.group().count("\n"), text)
            for number, line in enumerate(code.splitlines(), 1):
                if re.search(r"\bunsafe\b|allow\s*\(\s*unsafe_code", line):
                    yield f"{name}:{number}: unsafe outside {', '.join(UNSAFE)}"
        if path.name == "mod.rs":
            yield f"{name}: modules are foo.rs + foo/, never mod.rs"


def main() -> int:
    """Print every breach."""
    data = metadata()
    members = set(data["workspace_members"])
    packages = [package for package in data["packages"] if package["id"] in members]
    breaches = [*imports(packages), *binary(data), *sources(ROOT)]
    for breach in breaches:
        print(f"layering: {breach}", file=sys.stderr)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
