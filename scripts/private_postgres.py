"""A PostgreSQL server of our own: no TCP, a socket in a private directory, gone when we are done.

PostgreSQL refuses to run as root; then it runs as the user `postgres`, or `nobody` where there is none.
The demo and the tests use this.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

# Start-up takes well under a second; recovery after a crash a few.
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 20
PR_SET_PDEATHSIG = 1


class PostgresError(Exception):
    """PostgreSQL is missing or did not start; the text says what to do."""


def program(name: str) -> str:
    """Where one of PostgreSQL's programs is; Debian keeps them out of PATH, one directory a version."""
    if found := shutil.which(name):
        return found
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    if newest := max(versions, key=lambda path: int(path.parts[-3]), default=None):
        return str(newest)
    raise PostgresError(f"{name} was not found\nhint: on Debian, apt-get install postgresql")


def _owner() -> pwd.struct_passwd | None:
    """Whom the server runs as, when that is not us."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresError("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _die_with_parent() -> None:
    """A server must not outlive us, not even when we are killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


class PrivatePostgres:
    """A server, as a context manager.

    `data` keeps the cluster from one run to the next; without it everything is temporary and nothing is
    written with fsync.
    """

    def __init__(self, data: Path | None = None) -> None:
        self._owner = _owner()
        self._home = Path(tempfile.mkdtemp(prefix="quintet-pg-"))
        self._durable = data is not None
        self._data = data or self._home / "data"
        self._log = self._home / "log"
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def user(self) -> str:
        """The superuser of the cluster; no password is asked on the socket."""
        return "postgres"

    def url(self, database: str = "postgres") -> str:
        """A DATABASE_URL."""
        return f"postgres://{self.user}@/{database}?host={self._home}"

    def __enter__(self) -> PrivatePostgres:
        """Start, and wait until it answers."""
        self._hand_over(self._home)
        try:
            if not (self._data / "PG_VERSION").exists():
                self._initialise()
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Stop in order; in haste when that takes too long."""
        if self._server and self._server.poll() is None:
            # Clients are cut off, transactions rolled back, then it ends ("fast shutdown").
            self._server.send_signal(signal.SIGINT)
            try:
                self._server.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self._server.send_signal(signal.SIGQUIT)
                self._server.wait(STOP_SECONDS_MAX)
        shutil.rmtree(self._home, ignore_errors=True)

    def create_database(self, name: str, template: str = "template1") -> str:
        """Make a database, a copy of `template`, unless it exists; returns its URL."""
        exists = self.sql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'")
        if not exists.strip():
            self.sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement; returns psql's unaligned output."""
        command = [
            program("psql"),
            "-h",
            str(self._home),
            "-U",
            self.user,
            "-d",
            database,
            "-XAtqc",
            statement,
        ]
        return subprocess.run(
            command, capture_output=True, check=True, text=True, timeout=START_SECONDS_MAX
        ).stdout

    def _hand_over(self, directory: Path) -> None:
        directory.chmod(0o755)
        if self._owner:
            os.chown(directory, self._owner.pw_uid, self._owner.pw_gid)

    def _initialise(self) -> None:
        self._data.mkdir(parents=True, exist_ok=True)
        self._hand_over(self._data)
        command = [program("initdb"), "-D", str(self._data), "-U", self.user, "-A", "trust", "-E", "UTF8"]
        command += ["--locale=C.UTF-8"] + ([] if self._durable else ["--no-sync"])
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd="/", **self._identity()
        )
        if done.returncode:
            raise PostgresError(f"initdb failed\n{done.stderr.strip()}")

    def _identity(self) -> dict[str, object]:
        if not self._owner:
            return {}
        return {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []}

    def _start(self) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._home),
            "max_connections": "200",
        }
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        command = [program("postgres"), "-D", str(self._data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C in the terminal is for the site; it still needs its database.
            self._server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                preexec_fn=_die_with_parent,
                **self._identity(),
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            if self._server.poll() is not None:
                raise PostgresError(
                    f"PostgreSQL did not start\n{self._log.read_text(errors='replace').strip()}"
                )
            ready = [program("pg_isready"), "-q", "-h", str(self._home)]
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise PostgresError(f"PostgreSQL did not answer within {START_SECONDS_MAX} s")
