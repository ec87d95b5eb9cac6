"""Gunicorn's raw request files: each is accepted or refused as gunicorn says, or stands below with the reason.

The files come from the source distribution on PyPI, at test time. `crates/http-gateway/examples/parse.rs` reads them
with the gateway's own parser. A deviation is an entry of a table; an entry whose file now agrees fails, too.
"""

from __future__ import annotations

import builtins
import json
import os
import re
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness import places
from suites import archive

# Pinned, so that a new release cannot turn a build red.
GUNICORN = "27.0.1"

# Gunicorn's default limits. It bounds each field, we bound all of them together.
GUNICORN_LIMITS = {"--line-max": 4094, "--headers-max": 8190, "--header-count-max": 100}
LIMIT_OPTIONS = {
    "limit_request_line": "--line-max",
    "limit_request_field_size": "--headers-max",
    "limit_request_fields": "--header-count-max",
}

# HTTP/1.1 without Host. RFC 9112, 3.2: a server MUST respond with 400. They are tested with a Host put in.
WITHOUT_HOST = [
    "004",
    "005",
    "006",
    "007",
    "010",
    "011",
    "012",
    "013",
    "014",
    "018",
    "021",
    "022",
    "023",
    "025",
    "025_line",
    "028",
    "029",
    "030",
    "031",
    "031compat",
    "031compat2",
    "100",
    "pp_02",
]

CODINGS = "RFC 9112, 6.1: only chunked is decoded here; what names another coding gets 501"
FOLDING = "RFC 9112, 5.2: folded lines are refused, and there is no setting to allow them"
DROPPED = "fields with an underscore are dropped (as nginx does), which there is no setting to refuse"

# Accepted by gunicorn, refused here.
REFUSED = {
    "005": (400, "RFC 9110, 4.2.5: a fragment is never sent"),
    "025": (501, CODINGS),
    "025_line": (501, CODINGS),
    "028": (400, "RFC 9112, 5.1: a space before the colon is refused, and there is no setting to allow it"),
    "029": (501, CODINGS),
    "030": (501, CODINGS),
    "031compat": (400, "lower-case methods are refused, and there is no setting to allow them"),
    "031compat2": (400, "lower-case methods are refused, and there is no setting to allow them"),
    "compat_obs_fold": (400, FOLDING),
    "compat_obs_fold_huge": (400, FOLDING),
    "pp_03": (
        400,
        "PROXY protocol, 2: who is asked for a header must send one; guessing would let clients write it",
    ),
    "rfc9112_smuggle_gzip_chunked_01": (501, CODINGS),
    "rfc9112_smuggle_te_identity_chunked_01": (501, CODINGS),
    "rfc9112_target_absolute_userinfo_01": (400, "RFC 9110, 4.2.4: userinfo is to be treated as an error"),
    "rfc9112_target_authority_connect_01": (501, "RFC 9110, 9.3.6: a server need not be a tunnel"),
    "rfc9112_target_authority_ipv6_01": (501, "RFC 9110, 9.3.6: a server need not be a tunnel"),
}

# Accepted by gunicorn, never complete here.
INCOMPLETE = {
    "099": "RFC 9112, 8: the body ends before its Content-Length; what is incomplete does not reach the app",
}

# Refused by gunicorn, accepted here.
ACCEPTED = {
    "019": "X-Forwarded-Proto and X-Forwarded-Ssl may disagree: only the former is heard, and only from trusted peers",
    "040": DROPPED,
    "chunked_07": DROPPED,
}

# Gunicorn's errors for bytes that just end.
UNFINISHED = {"NoMoreData", "ChunkMissingTerminator"}


@dataclass
class Config:
    """Stands in for gunicorn's settings; the expectation files set some."""

    values: dict[str, Any] = field(default_factory=dict)

    def set(self, name: str, value: Any) -> None:
        self.values[name] = value


class _GunicornNames:
    """Stands in for gunicorn's modules: an error is its name."""

    def __getattr__(self, name: str) -> Any:
        return Config if name == "Config" else name


@dataclass
class Case:
    """A request file and what gunicorn expects of it."""

    name: str
    data: bytes
    request: Any
    config: dict[str, Any]


def _decode(text: bytes) -> bytes:
    """The files are written with escapes; line ends in them are for the reader."""
    text = text.replace(b"\n", b"")
    escapes = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0"}
    return re.sub(
        rb"\\(?:x([0-9A-Fa-f]{2})|([rnt0]))",
        lambda m: bytes.fromhex(m[1].decode()) if m[1] else escapes[m[2]],
        text,
    )


def _expectation(source: bytes) -> tuple[Any, dict[str, Any]]:
    names = vars(builtins) | {"__import__": lambda *_args, **_kwargs: _GunicornNames()}
    space: dict[str, Any] = {"__builtins__": names, "uri": lambda raw: raw, "cfg": Config()}
    exec(compile(source, "expectation", "exec"), space)
    return space["request"], space["cfg"].values


@pytest.fixture(scope="session")
def corpus() -> dict[str, list[Case]]:
    """`valid` and `invalid`."""
    files: dict[tuple[str, str, str], bytes] = {}
    with tarfile.open(archive("gunicorn", GUNICORN)) as tar:
        for member in tar.getmembers():
            found = re.fullmatch(r"[^/]+/tests/requests/(valid|invalid)/([^/]+)\.(http|py)", member.name)
            content = tar.extractfile(member) if found else None
            if found and content:
                files[found[1], found[2], found[3]] = content.read()
    cases: dict[str, list[Case]] = {"valid": [], "invalid": []}
    for (kind, name, suffix), data in sorted(files.items()):
        if suffix == "http":
            cases[kind].append(Case(name, _decode(data), *_expectation(files[kind, name, "py"])))
    # The corpus grew release by release; far fewer files would mean that they are not found any more.
    assert len(cases["valid"]) > 50
    assert len(cases["invalid"]) > 70
    return cases


@pytest.fixture(scope="session")
def parser() -> Path:
    """The example, built."""
    cargo = os.environ.get("CARGO", "cargo")
    build = [cargo, "build", "--quiet", "--package", "quintet-http-gateway", "--example", "parse"]
    subprocess.run(build, cwd=places.ROOT, check=True)
    metadata = [cargo, "metadata", "--no-deps", "--format-version", "1"]
    target = json.loads(subprocess.check_output(metadata, cwd=places.ROOT))["target_directory"]
    return Path(target) / "debug" / "examples" / "parse"


def parse(parser: Path, case: Case, data: bytes, limits: dict[str, int]) -> dict[str, Any]:
    options = [str(word) for option in limits.items() for word in option]
    if case.config.get("proxy_protocol"):
        options.append("--proxy-protocol")
    done = subprocess.run([parser, *options], input=data, capture_output=True, check=True)
    return json.loads(done.stdout)


def with_host(data: bytes) -> bytes:
    """Puts a Host behind each request line of HTTP/1.1."""
    return re.sub(rb"( HTTP/1\.1\r\n)", rb"\1Host: test\r\n", data)


def expected_request(request: dict[str, Any], has_host: bool) -> dict[str, Any]:
    """A request in the words of the example."""
    target = request["uri"]
    # RFC 9112, 3.2.2: the absolute form is reduced to path and query.
    if target.startswith("http"):
        target = "/" + target.split("/", 3)[3]
    headers = [(name.lower(), value) for name, value in request["headers"]]
    # Obeyed and taken off, or dropped: neither reaches the app.
    headers = [(n, v) for n, v in headers if n != "transfer-encoding" and "_" not in n]
    if not has_host and request["version"] == (1, 1):
        headers.insert(0, ("host", "test"))
    # Written as bytes or, where it is empty, as text.
    body = request["body"] or b""
    return {
        "method": request["method"],
        "target": target,
        "version": 10 * request["version"][0] + request["version"][1],
        "headers": [list(pair) for pair in headers],
        "body": body.decode("latin-1"),
    }


def judge_valid(parser: Path, case: Case) -> str | None:
    """What is wrong, if anything is."""
    data = case.data
    if case.name in WITHOUT_HOST:
        end = parse(parser, case, data, {})["end"]
        if end != {"status": 400, "why": "Host is missing"} and case.name not in REFUSED:
            return f"listed as without Host, but {end}"
        data = with_host(data)
    seen = parse(parser, case, data, {})
    if case.name in REFUSED:
        status, _reason = REFUSED[case.name]
        refused = isinstance(seen["end"], dict) and seen["end"]["status"] == status
        return None if refused else f"listed as refused with {status}, but {seen['end']}"
    if case.name in INCOMPLETE:
        return None if seen["end"] == "incomplete" else f"listed as incomplete, but {seen['end']}"
    if seen["end"] != "complete":
        return f"refused: {seen['end']}"
    requests = case.request if isinstance(case.request, list) else [case.request]
    expected = [expected_request(request, case.name not in WITHOUT_HOST) for request in requests]
    return None if seen["requests"] == expected else f"{seen['requests']} instead of {expected}"


def judge_invalid(parser: Path, case: Case) -> str | None:
    """What is wrong, if anything is."""
    # Refused for the want of Host would not show that they are refused for what they are.
    data = case.data if b"host:" in case.data.lower() else with_host(case.data)
    limits = dict(GUNICORN_LIMITS)
    for name, option in LIMIT_OPTIONS.items():
        limits[option] = case.config.get(name) or limits[option]
    seen = parse(parser, case, data, limits)
    end = seen["end"]
    if case.name in ACCEPTED:
        return None if end == "complete" else f"listed as accepted, but {end}"
    if case.request in UNFINISHED:
        return None if end == "incomplete" else f"not unfinished: {end}"
    if not isinstance(end, dict):
        return f"not refused ({case.request}): {seen}"
    return "refused for the want of Host" if end["why"] == "Host is missing" else None


def test_valid_requests(corpus: dict[str, list[Case]], parser: Path) -> None:
    wrong = {case.name: judge_valid(parser, case) for case in corpus["valid"]}
    assert {name: why for name, why in wrong.items() if why} == {}
    unknown = {*WITHOUT_HOST, *REFUSED, *INCOMPLETE} - wrong.keys()
    assert not unknown, "listed, but not in the corpus"


def test_invalid_requests(corpus: dict[str, list[Case]], parser: Path) -> None:
    wrong = {case.name: judge_invalid(parser, case) for case in corpus["invalid"]}
    assert {name: why for name, why in wrong.items() if why} == {}
    unknown = ACCEPTED.keys() - wrong.keys()
    assert not unknown, "listed, but not in the corpus"
