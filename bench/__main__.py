"""`python -m bench [--scenario NAME] [--quick]`; without a scenario all of them, then charts and table."""

from __future__ import annotations

import argparse
import importlib
import signal
import subprocess
import sys
import time

from bench import places, report, results, setup
from bench.context import Context
from bench.errors import BenchError
from bench.scenarios import NAMES


def main() -> int:
    """Exit code 0: every stack ran and answered correctly. A missed goal is printed, it is no failure of the run."""
    parser = argparse.ArgumentParser(
        prog="make bench", description="quintet and its rivals side by side, in turn, on this machine."
    )
    parser.add_argument(
        "--scenario", action="append", choices=NAMES, help="only this one (may be given several times)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="under a minute a scenario; shows that it works, is not quoted"
    )
    parser.add_argument("--rivals-only", action="store_true", help="leave quintet out")
    parser.add_argument("--render", action="store_true", help="only draw charts and table from bench/results")
    options = parser.parse_args()
    # An interrupt or a SIGTERM takes the way of an exception: every stack is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if not options.render:
            _run(options.scenario or list(NAMES), quick=options.quick, rivals_only=options.rivals_only)
        for file in report.write():
            print(f"written: {file.relative_to(places.ROOT)}")
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run(names: list[str], *, quick: bool, rivals_only: bool) -> None:
    modules = {name: importlib.import_module(f"bench.scenarios.{name.replace('-', '_')}") for name in names}
    setup.tools(
        sorted(
            {tool for module in modules.values() for tool in module.TOOLS}
            | {"gcc", "Python.h", "wrk", "nginx"}
        )
    )
    setup.rivals()
    setup.load_generator()
    setup.static_files()
    if not rivals_only and not places.quintet().exists():
        raise BenchError(
            "quintet is not built",
            f"{places.quintet()} does not exist",
            "`make bench` builds it; or name a binary in QUINTET_BENCH_BINARY",
        )
    versions = _versions()
    for name, module in modules.items():
        begin = time.monotonic()
        context = Context(name, quick, rivals_only)
        result = results.write(context, module.TITLE, module.run(context), versions)
        results.show(result)
        print(f"  {time.monotonic() - begin:.0f} s", flush=True)


def _versions() -> dict[str, str]:
    """What was measured."""
    script = "import django, sys; print(sys.version.split()[0], django.__version__)"
    python, django = subprocess.run(
        [places.PROJECT_PYTHON, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    found = {"python": python, "django": django}
    for line in (places.BENCH / "requirements.txt").read_text().splitlines():
        if "==" in line:
            name, _, version = line.partition("==")
            found[name.lower().partition("[")[0]] = version
    nginx = subprocess.run(
        [setup.find("nginx") or "nginx", "-v"], capture_output=True, text=True, check=False
    ).stderr
    found["nginx"] = nginx.rpartition("/")[2].split()[0] if "/" in nginx else "?"
    return found


if __name__ == "__main__":
    sys.exit(main())
