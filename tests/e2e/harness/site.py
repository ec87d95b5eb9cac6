"""A running quintet, as its user sees it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from harness import places
from harness.logs import Log
from harness.processes import MARK, alive, kill_all, marked, wait_until
from harness.raw import Raw

# From exec to the first answer: imports of Django and Wagtail on a busy machine.
START_SECONDS_MAX = 45
STOP_SECONDS_MAX = 40
# Variables of the developer's shell that would change a story.
_FOREIGN = ("QUINTET_", "DJANGO_", "PYTHON", "LISTEN_", "VIRTUAL_ENV")


def free_port() -> int:
    """A port of the loopback that nobody uses at the moment, below those that the kernel gives to clients."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Site:
    """One instance: its processes, its log, and ways to talk to it."""

    def __init__(
        self,
        project: Path,
        *,
        flags: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        bind: tuple[str, ...] | None = None,
        tls: ssl.SSLContext | None = None,
        program: Path | None = None,
        prefix: tuple[str, ...] = (),
        command: str = "run",
        address: str = "127.0.0.1",
    ) -> None:
        self.project = project
        self.address = address
        self.program = program or places.quintet()
        self.tls = tls
        self.port = free_port()
        # Unix sockets have about 100 bytes of path.
        self.dir = Path(tempfile.mkdtemp(prefix="story-"))
        self.runtime_dir = self.dir / "run"
        self.mark = uuid.uuid4().hex
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        self.env = kept | {MARK: self.mark, "QUINTET_SERVER_RUNTIME_DIR": str(self.runtime_dir)} | (env or {})
        binds = (f"{address}:{self.port}",) if bind is None else bind
        # A program that starts the program, as systemd would.
        self.command = [*prefix, str(self.program), command, str(project), *flags]
        for address in binds:
            self.command += ["--bind", address]
        self.process: subprocess.Popen[bytes] | None = None
        self.log: Log | None = None

    # -- life

    def start(self, *, wait: bool = True) -> Site:
        """Start it; returns when it is ready."""
        self.process = subprocess.Popen(
            self.command,
            cwd=self.dir,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.log = Log(self.process.stdout)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds: float = START_SECONDS_MAX) -> None:
        """Wait until /readyz says yes."""

        def ready() -> bool:
            if self.process.poll() is not None:
                self.log.finish()
                raise AssertionError(f"quintet ended with {self.process.returncode}:\n{self.log}")
            try:
                return self.get("/readyz", timeout=5).status_code == 200
            except (OSError, httpx.TransportError):
                return False

        try:
            wait_until(ready, seconds, "ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def wait_exit(self, seconds: float = STOP_SECONDS_MAX) -> int:
        """Wait until it has ended; its exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            left = "\n".join(marked(self.mark).values())
            raise AssertionError(f"it did not end within {seconds} s; running:\n{left}\n{self.log}") from None
        self.log.finish()
        return code

    def terminate(self, number: int = signal.SIGTERM) -> None:
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Stop it as an operator does; its exit code."""
        if self.process.poll() is None:
            self.terminate()
        return self.wait_exit()

    def close(self) -> list[str]:
        """End it whatever it takes; what was wrong with its end and its log."""
        wrong = []
        if self.process is not None:
            try:
                if self.process.poll() is None and self.stop() != 0:
                    wrong.append(f"it ended with exit code {self.process.returncode}")
            except AssertionError as error:
                wrong.append(str(error))
            deadline = time.monotonic() + 5
            while (left := marked(self.mark)) and time.monotonic() < deadline:
                time.sleep(0.02)
            wrong += [f"left behind: {pid} {command}" for pid, command in left.items()]
            kill_all(self.mark)
            self.process.wait()
            self.log.finish()
            wrong += [f"unexpected in the log:\n{incident}" for incident in self.log.incidents()]
        shutil.rmtree(self.dir, ignore_errors=True)
        return wrong

    # -- talking to it

    @property
    def url(self) -> str:
        """Its address."""
        name = "localhost" if self.address == "127.0.0.1" else self.address
        return f"{'https' if self.tls else 'http'}://{name}:{self.port}"

    def client(self, **options: Any) -> httpx.Client:
        """A client with cookies and kept connections; HTTP/2 with `http2=True`."""
        # Without TLS there is nothing to verify, and reading all authorities of the world takes its time.
        options.setdefault("verify", self.tls or False)
        # `localhost` may mean ::1 first; the sites of the stories listen on 127.0.0.1.
        transport = httpx.HTTPTransport(
            local_address="127.0.0.1" if self.address == "127.0.0.1" else None,
            **{key: options.pop(key) for key in ("verify", "http2", "http1") if key in options},
        )
        return httpx.Client(base_url=self.url, timeout=30, transport=transport, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """One GET on a connection of its own."""
        return self.fetch("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """One POST on a connection of its own."""
        return self.fetch("POST", path, **options)

    def fetch(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request on a connection of its own."""
        with self.client() as client:
            return client.request(method, path, **options)

    def raw(self, source: str | None = None) -> Raw:
        """A connection to do by hand."""
        return Raw.tcp(self.address, self.port, self.tls, source)

    # -- its commands

    def quintet(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run another quintet command for this instance."""
        return subprocess.run(
            [str(self.program), *arguments],
            cwd=self.project,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        """`quintet status --json`."""
        done = self.quintet("status", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def metrics(self) -> dict[str, float]:
        """`/metrics` of the admin socket: each sample's value by its name with labels."""
        transport = httpx.HTTPTransport(uds=str(self.runtime_dir / "admin.sock"))
        with httpx.Client(transport=transport, base_url="http://admin") as admin:
            lines = admin.get("/metrics").text.splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def reload(self) -> subprocess.CompletedProcess[str]:
        """`quintet reload`, which returns when the new workers serve."""
        return self.quintet("reload")

    # -- its processes

    def workers(self) -> list[int]:
        """Process ids of the workers that are ready."""
        return [worker["pid"] for worker in self.status()["workers"] if worker["state"] == "ready"]

    def gateway(self) -> int:
        """The gateway's process id."""
        return self.status()["gateway_pid"]

    def kill_worker(self, pid: int | None = None) -> int:
        """kill -9 of one worker, a random one by default; its process id."""
        victim = pid or random.choice(self.workers())
        os.kill(victim, signal.SIGKILL)
        return victim

    def kill_gateway(self) -> int:
        """kill -9 of the gateway; its process id."""
        victim = self.gateway()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not alive(victim), 5, "the gateway dies")
        return victim

    def wait_workers(self, count: int, seconds: float = START_SECONDS_MAX) -> None:
        """Wait until this many workers are ready."""
        wait_until(lambda: len(self.workers()) == count, seconds, f"{count} workers ready")

    def allow_log(self, pattern: str) -> None:
        """The story is about this warning or error."""
        self.log.allow(pattern)


# What the fixture `start` gives.
Start = Callable[..., Site]
