"""Other people's test suites: taken from their source distributions at test time, run against quintet, judged.

A suite says which of its files apply, and why each of the others does not. Where an assertion is about another server's name
or habit, the test stands in a table with the reason; an entry whose test passes fails, too, and so does a run
with fewer tests than were counted when the suite was taken in: a suite that runs nothing proves nothing.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from harness import places

HERE = Path(__file__).resolve().parent
CACHE = places.CACHE / "contract"

# For one test of theirs: an exchange or two on the loopback. The whole of a suite is bounded by the outer test.
TEST_SECONDS_MAX = 15
SUITE_SECONDS_MAX = 300


def archive(name: str, version: str) -> Path:
    """The source distribution as it came; it is kept in .cache."""
    kept = CACHE / f"{name}-{version}.tar.gz"
    with places.one_at_a_time(kept):
        if not kept.exists():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            command += ["--no-binary", name, "--no-deps", "--dest", str(CACHE), f"{name}=={version}"]
            subprocess.run([places.ROOT / "scripts" / "retry", *command], check=True)
    return kept


@dataclass
class Suite:
    """Test files of one source distribution, and how they are pointed at quintet."""

    name: str
    version: str
    # The pytest plugin in shims/ that starts quintet where the suite would start its own server.
    shim: str
    # What runs, and where pytest stands, relative to the distribution.
    files: list[str]
    directory: str = "."
    # On the path of the tests, relative to the distribution.
    paths: tuple[str, ...] = (".",)
    # (file, pattern, replacement): assertions about a server's name, requests without the Host that HTTP/1.1 wants.
    rewritten: list[tuple[str, str, str]] = field(default_factory=list)
    options: tuple[str, ...] = ()
    # Where their files with tests lie (a glob), all of which must be named as running or as not applicable.
    all_files: str = "tests/**/test_*.py"
    # Files that do not apply, with the reason.
    left_out: dict[str, str] = field(default_factory=dict)

    def unpacked(self, label: str) -> Path:
        """The distribution, afresh: shims may change it, and two suites of one distribution run at the same time.

        Every file of its tests is named here.
        """
        directory = CACHE / f"{self.name}-{label}"
        shutil.rmtree(directory, ignore_errors=True)
        with tarfile.open(archive(self.name, self.version)) as tar:
            tar.extractall(directory, filter="data")
        root = directory / f"{self.name}-{self.version}"
        assert root.is_dir(), f"the archive of {self.name} does not hold {root.name}"
        self._account_for_files(root)
        return root

    def run(self) -> dict[str, str]:
        """What became of each test: "passed", "skipped: …" or the end of its failure."""
        label = Path(self.directory).name or self.shim
        root = self.unpacked(label)
        for file, pattern, replacement in self.rewritten:
            source = root / file
            text, count = re.subn(pattern, replacement, source.read_text())
            assert count, f"{file}: {pattern!r} is not found any more"
            source.write_text(text)
        base = root / self.directory
        files = [str(path.relative_to(base)) for known in self.files for path in sorted(base.glob(known))]
        report = CACHE / f"{self.name}-{label}.jsonl"
        report.unlink(missing_ok=True)
        paths = [str(root / path) for path in self.paths]
        # The suite's own modules first, then the shims and the harness of our stories.
        paths += [str(HERE), str(places.ROOT / "tests" / "e2e")]
        kept = {
            name: value for name, value in os.environ.items() if name not in {"PYTEST_ADDOPTS", "PYTHONPATH"}
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", f"shims.{self.shim}", "-p", "shims.report"]
        command += [
            "--timeout",
            str(TEST_SECONDS_MAX),
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
            "--rootdir",
            ".",
        ]
        done = subprocess.run(
            [*command, *self.options, *files],
            cwd=base,
            env=kept | {"PYTHONPATH": os.pathsep.join(paths), "SUITE_REPORT": str(report)},
            capture_output=True,
            text=True,
            timeout=SUITE_SECONDS_MAX,
            check=False,
        )
        # 0: all passed, 1: some failed. Anything else is a suite that did not run.
        assert done.returncode in {0, 1}, done.stdout[-8000:] + done.stderr[-4000:]
        return reported(report)

    def _account_for_files(self, root: Path) -> None:
        base = root / self.directory
        existing = {str(path.relative_to(base)) for path in base.glob(self.all_files)}
        named = {
            file
            for file in existing
            for known in (*self.files, *self.left_out)
            if fnmatch.fnmatch(file, known)
        }
        assert existing == named, f"neither run nor left out: {sorted(existing - named)}"
        unknown = [known for known in (*self.files, *self.left_out) if not fnmatch.filter(existing, known)]
        assert not unknown, f"named, but not in {self.name} {self.version}: {unknown}"


def reported(report: Path) -> dict[str, str]:
    """What shims/report.py has written."""
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    return {line["test"]: line["outcome"] for line in lines}


def judge(
    outcomes: dict[str, str], deviations: dict[str, str], count: int, unsteady: dict[str, str] | None = None
) -> None:
    """Every test passes, or stands in `deviations` (patterns of test ids) with the reason; `count` tests ran.

    `unsteady` ones may pass or not: what they want is a matter of moments between processes.
    """
    wrong = {test: outcome for test, outcome in outcomes.items() if outcome != "passed"}
    unexpected = {
        test: outcome
        for test, outcome in wrong.items()
        if not any(fnmatch.fnmatchcase(test, pattern) for pattern in (*deviations, *(unsteady or {})))
    }
    told = "\n\n".join(f"{test}\n{outcome}" for test, outcome in unexpected.items())
    assert not unexpected, f"{len(unexpected)} of {len(outcomes)} tests do not pass:\n\n{told}"
    agreeing = [
        pattern for pattern in deviations if not any(fnmatch.fnmatchcase(test, pattern) for test in wrong)
    ]
    assert not agreeing, f"listed as deviations, but they pass or do not exist: {agreeing}"
    assert len(outcomes) == count, f"{len(outcomes)} tests ran; {count} did when the suite was taken in"
