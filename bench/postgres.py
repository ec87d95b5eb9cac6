"""A private PostgreSQL for the shop: its own data directory and unix socket, nothing listens on TCP."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import processes, setup
from bench.errors import BenchError
from bench.places import PROJECT_PYTHON, SHOP, WORK
from bench.processes import Tree
from bench.rivals import Start
from bench.stacks import Site, Stack

PRODUCTS = 5_000
# Ports name the socket files only.
_PORT, _POOLER_PORT = 5432, 6432
# A socket's name ends at 107 bytes (unix(7)); `/.s.PGSQL.5432.lock` is added.
_PATH_MAX = 85
# Enough for every worker of every stack of a scenario, with room: they are all connected at once.
_CONNECTIONS = 200


@dataclass
class Database:
    """A running server."""

    tree: Tree
    sockets: Path

    def url(self, port: int = _PORT) -> str:
        """For the shop's DATABASE_URL."""
        return f"postgres://shop@/shop?host={self.sockets}&port={port}"


def start() -> Database:
    """Makes the data directory once, then starts the server. initdb refuses root: another user owns it."""
    user = _user()
    home = _home(user)
    server = setup.find("postgres")
    assert server
    tree = processes.start(
        "postgres",
        [
            server,
            "-D",
            home / "data",
            "-k",
            home,
            "-p",
            str(_PORT),
            "-c",
            "listen_addresses=",
            "-c",
            f"max_connections={_CONNECTIONS}",
            "-c",
            "shared_buffers=256MB",
            "-c",
            "autovacuum=off",
            "-c",
            "checkpoint_timeout=1h",
        ],
        WORK / "postgres.log",
        user=user,
        cwd=home,
    )
    database = Database(tree, home)
    processes.wait_until(
        tree,
        lambda: (home / f".s.PGSQL.{_PORT}").exists() and _psql(home, "postgres", "select 1"),
        30,
        "no connection",
    )
    return database


def site(database: Database, workers: int, threads: int) -> Site:
    """The shop on this database, its tables, products and static files made when missing."""
    directory = WORK / "shop"
    env = {
        "DATABASE_URL": database.url(),
        "STATIC_ROOT": str(directory / "static"),
        "MEDIA_ROOT": str(directory / "media"),
        "ALLOWED_HOSTS": "127.0.0.1",
    }
    if not _psql(database.sockets, "shop", "select 1"):
        _psql(database.sockets, "postgres", "create role shop login superuser")
        _psql(database.sockets, "postgres", "create database shop owner shop")
    print(f"preparing the shop: {PRODUCTS} products …", flush=True)
    for command in (
        ["migrate", "--no-input", "-v", "0"],
        ["seed", "--products", str(PRODUCTS)],
        ["collectstatic", "--no-input", "-v", "0"],
    ):
        done = subprocess.run(
            [PROJECT_PYTHON, "manage.py", *command],
            cwd=SHOP,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BenchError(f"manage.py {command[0]} failed", (done.stderr or done.stdout).strip()[-1500:])
    _psql(database.sockets, "shop", "vacuum analyze")
    return Site(
        SHOP,
        "shop.settings",
        "shop.wsgi:application",
        workers,
        threads,
        env=env,
        static_root=directory / "static",
    )


def pooled(start: Start, database: Database) -> Callable[[Site, Path], Stack]:
    """The same rival with PgBouncer (transaction mode) between the app and PostgreSQL; its CPU counts."""

    def started(site: Site, work: Path) -> Stack:
        pooler = _pgbouncer(database, work)
        env = {
            **site.env,
            "DATABASE_URL": f"postgres://shop@/shop?host={database.sockets}&port={_POOLER_PORT}",
        }
        stack = start(
            Site(
                site.directory,
                site.settings,
                site.wsgi,
                site.workers,
                site.threads,
                env,
                site.static_url,
                site.static_root,
            ),
            work,
        )
        stack.trees.insert(1, pooler)
        return stack

    return started


def _pgbouncer(database: Database, work: Path) -> Tree:
    user = _user()
    config = database.sockets / "pgbouncer.ini"
    config.write_text(f"""\
[databases]
shop = host={database.sockets} port={_PORT} user=shop dbname=shop
[pgbouncer]
listen_addr =
unix_socket_dir = {database.sockets}
listen_port = {_POOLER_PORT}
auth_type = any
pool_mode = transaction
max_client_conn = {_CONNECTIONS}
default_pool_size = 20
""")
    pgbouncer = setup.find("pgbouncer")
    assert pgbouncer
    tree = processes.start("pgbouncer", [pgbouncer, str(config)], work / "pgbouncer.log", user=user)
    processes.wait_until(tree, (database.sockets / f".s.PGSQL.{_POOLER_PORT}").exists, 10, "no socket")
    return tree


def _home(user: str | None) -> Path:
    """The data directory of the last run, or a new one where that user may go."""
    marker = WORK / "postgres.home"
    if marker.exists() and Path(marker.read_text(), "data").exists():
        return Path(marker.read_text())
    home = WORK / "postgres"
    open_to_all = all(parent.stat().st_mode & 0o001 for parent in WORK.parents)
    if len(str(home)) > _PATH_MAX or (user and not open_to_all):
        home = Path(tempfile.mkdtemp(prefix="quintet-bench-"))
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700, parents=True)
    if user:
        owner = pwd.getpwnam(user)
        os.chown(home, owner.pw_uid, owner.pw_gid)
    initdb = Path(setup.find("postgres") or "").parent / "initdb"
    done = subprocess.run(
        [
            initdb,
            "-D",
            home / "data",
            "-U",
            "postgres",
            "--auth",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale",
            "C.UTF-8",
        ],
        capture_output=True,
        text=True,
        user=user,
        group=processes.group_of(user),
        extra_groups=[] if user else None,
        cwd=home,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError("initdb failed", (done.stderr or done.stdout).strip()[-1500:])
    marker.write_text(str(home))
    return home


def _psql(sockets: Path, database: str, statement: str) -> bool:
    role = "shop" if database == "shop" else "postgres"
    done = subprocess.run(
        ["psql", "-q", "-h", sockets, "-p", str(_PORT), "-U", role, "-d", database, "-c", statement],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def _user() -> str | None:
    """As root: Debian's postgres, or nobody."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
