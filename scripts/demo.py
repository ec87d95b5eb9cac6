"""`make demo`: seeds the shop once, then runs it with quintet in the foreground until Ctrl-C.

Started by make with the Python of .venv.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from private_postgres import PostgresError, PrivatePostgres

ROOT = Path(__file__).resolve().parent.parent
SHOP = ROOT / "examples" / "shop"
BIN = Path(sys.executable).parent
# How often we look whether make still wants us.
WATCH_SECONDS = 0.5
PR_SET_PDEATHSIG = 1


def arguments() -> argparse.Namespace:
    """--bind, --db, --products, --data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bind", default="127.0.0.1:8000")
    parser.add_argument("--db", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--products", type=int, default=5000)
    parser.add_argument("--data", type=Path, default=ROOT / ".cache" / "postgres", help="PostgreSQL's files")
    return parser.parse_args()


def database(kind: str, data: Path, stack: contextlib.ExitStack) -> str:
    """The DATABASE_URL; starts PostgreSQL for it when asked to."""
    if kind == "sqlite":
        return os.environ.get("DATABASE_URL", f"sqlite:///{SHOP}/db.sqlite3")
    if os.geteuid() == 0 and not _others_may_enter(data.parent):
        # The server runs as another user, who cannot reach a directory below, say, /root.
        data = Path(tempfile.gettempdir()) / f"quintet-demo-postgres-{ROOT.stat().st_ino}"
    print("==> PostgreSQL", flush=True)
    return stack.enter_context(PrivatePostgres(data)).create_database("shop")


def _others_may_enter(directory: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (directory, *directory.parents))


def manage(environment: dict[str, str], *command: str) -> None:
    """Run a management command of the shop."""
    subprocess.run([sys.executable, "manage.py", *command], cwd=SHOP, env=environment, check=True)


def prepare(environment: dict[str, str], products: int) -> None:
    """Tables, data, static files: all of it is quick when it is there already."""
    print("==> the shop: tables, products, static files", flush=True)
    manage(environment, "migrate", "--verbosity", "0")
    manage(environment, "seed", "--products", str(products))
    manage(environment, "collectstatic", "--noinput", "--verbosity", "0")


def announce(bind: str) -> None:
    """Say where to click."""
    host, _, port = bind.rpartition(":")
    base = f"http://{'127.0.0.1' if host in {'', '0.0.0.0', '[::]', '*'} else host}:{port}"
    rows = [
        ("the shop", "/", "catalogue, search, basket, orders"),
        ("log in", "/accounts/login/", "customer / demo"),
        ("behind the counter", "/admin/", "admin / demo"),
        ("slow on purpose", "/slow/?seconds=2", "the others stay quick meanwhile"),
        ("fails on purpose", "/fail/", "see the traceback here"),
        ("JSON", "/api/products/?q=guitar", ""),
        ("CSV", "/export/products.csv", "streamed"),
    ]
    print("\n  Where to click:\n")
    for what, path, note in rows:
        print(f"    {what:<19} {base + path:<47} {note}")
    print("\n  Ctrl-C ends it.\n", flush=True)


def hosts(bind: str) -> str:
    """ALLOWED_HOSTS: the loopback names, and the host that was asked for; any for a wildcard address."""
    host = bind.rpartition(":")[0]
    return "*" if host in {"", "0.0.0.0", "[::]", "*"} else f"localhost,127.0.0.1,[::1],{host}"


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _abandoned(make: int) -> bool:
    """Tell whether make, our parent, has died or been interrupted alone.

    Ctrl-C reaches everyone in the terminal. A signal sent to make's process id alone does not reach us; but
    make then waits for us with its own handler taken off, which /proc shows (Linux).
    """
    if os.getppid() != make:
        return True
    try:
        status = Path(f"/proc/{make}/status").read_text()
        name = Path(f"/proc/{make}/comm").read_text().strip()
    except OSError:
        return False
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    heard = int(fields["SigCgt"], 16) | int(fields["SigIgn"], 16)
    interrupt = 1 << (signal.SIGINT - 1)
    return "make" in name and not heard & interrupt


def run(environment: dict[str, str], bind: str) -> int:
    """Run quintet until it ends; hand signals on, each of them once."""
    make = os.getppid()
    command = [str(BIN / "quintet"), "run", str(SHOP), "--bind", bind]
    # A process group of its own: what Ctrl-C sends to ours reaches it through us, not twice.
    site = subprocess.Popen(
        command, env=environment, cwd=SHOP, start_new_session=True, preexec_fn=_die_with_parent
    )

    told = False

    def hand_on(number: int, _frame: object) -> None:
        nonlocal told
        told = True
        site.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, hand_on)
    while True:
        try:
            return site.wait(WATCH_SECONDS)
        except subprocess.TimeoutExpired:
            if not told and _abandoned(make):
                told = True
                site.send_signal(signal.SIGINT)


def main() -> int:
    """Prepare, announce, run."""
    asked = arguments()
    if shutil.which("quintet", path=str(BIN)) is None:
        print("quintet is not installed in .venv\nhint: make build", file=sys.stderr)
        return 1
    with contextlib.ExitStack() as stack:
        try:
            url = database(asked.db, asked.data, stack)
        except PostgresError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        # Product pictures are media, and public; quintet takes uploads for private unless told otherwise.
        environment = {"ALLOWED_HOSTS": hosts(asked.bind), "QUINTET_FILES_MEDIA": "public"} | os.environ
        environment["DATABASE_URL"] = url
        prepare(environment, asked.products)
        announce(asked.bind)
        return run(environment, asked.bind)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
