"""Instructions of the gateway, counted by valgrind's callgrind: costs of a few percent drown in the noise of every clock here.

`quintet run` is started as always. Only the gateway process goes below valgrind: a library that is loaded before (`LD_PRELOAD`)
puts it in front of the command when the supervisor starts it. Nothing of quintet knows of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench import places, quintet, rivals
from bench.errors import BenchError
from bench.stacks import Site, Stack

# The same exec, below valgrind; its own children are not its concern.
_SHIM = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int execvp(const char *file, char *const argv[]) {
    const char *valgrind = getenv("BENCH_VALGRIND"), *out = getenv("BENCH_VALGRIND_OUT");
    if (valgrind && out && argv[0] && argv[1] && strcmp(argv[1], "internal-gateway") == 0) {
        char option[4096];
        snprintf(option, sizeof option, "--callgrind-out-file=%s", out);
        char *command[] = {"valgrind", "-q", "--tool=callgrind", option, (char *)file, argv[1], NULL};
        unsetenv("LD_PRELOAD");
        execv(valgrind, command);
        return -1;
    }
    return execvpe(file, argv, environ);
}
"""
# What is counted begins when caches are warm and lazy things are made.
_WARM_REQUESTS = 500
_DUMP_SECONDS = 10.0


@contextlib.contextmanager
def started(scenario: str, name: str, site: Site, config: str) -> Iterator[Stack]:
    """quintet with this configuration, its gateway counted."""
    work = rivals.workdir(scenario, name)
    for old in work.glob("callgrind.*"):
        old.unlink()
    file = work / "quintet.toml"
    file.write_text(config)
    env = {
        "LD_PRELOAD": str(_shim()),
        "BENCH_VALGRIND": shutil.which("valgrind") or "valgrind",
        "BENCH_VALGRIND_OUT": str(work / "callgrind.%p"),
    }
    stack = quintet.start(dataclasses.replace(site, env={**site.env, **env}), work, config=file)
    try:
        yield stack
    finally:
        stack.stop()


def per_request(stack: Stack, path: str, requests: int, *headers: str) -> float:
    """Instructions of the gateway for one of `requests`, one after another on one connection: nothing is left to chance."""
    gateway = _gateway(stack)
    lines = "".join(f"{header}\r\n" for header in headers)
    request = f"GET {path} HTTP/1.1\r\nHost: {stack.address}\r\n{lines}\r\n".encode()
    with socket.create_connection((stack.host, stack.port), timeout=30) as connection:
        _ask(connection, request, _WARM_REQUESTS)
        _control("--zero", gateway)
        _ask(connection, request, requests)
        _control("--dump", gateway)
    return _dumped(stack, gateway) / requests


def _ask(connection: socket.socket, request: bytes, count: int) -> None:
    for _ in range(count):
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += _more(connection)
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
        got = len(body)
        while got < length:
            got += len(_more(connection))
        if not lines[0].startswith(b"http/1.1 200"):
            raise BenchError("a request that is counted was not answered", lines[0].decode(errors="replace"))


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise BenchError("the gateway closed the connection on which requests are counted")
    return data


def _gateway(stack: Stack) -> int:
    for pid in stack.pids():
        with contextlib.suppress(OSError):
            if b"internal-gateway" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
    raise BenchError("no gateway runs below valgrind", stack.log_tails())


def _control(what: str, pid: int) -> None:
    done = subprocess.run(
        ["callgrind_control", what, str(pid)], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        raise BenchError(f"callgrind_control {what} failed", (done.stderr or done.stdout)[-500:])


def _dumped(stack: Stack, pid: int) -> int:
    """The sum of the newest dump."""
    deadline = time.monotonic() + _DUMP_SECONDS
    directory = stack.trees[0].log.parent
    while time.monotonic() < deadline:
        parts = sorted(
            directory.glob(f"callgrind.{pid}.*"), key=lambda file: int(file.suffix.removeprefix("."))
        )
        for line in parts[-1].read_text().splitlines()[-5:] if parts else ():
            if line.startswith("totals:"):
                # Each dump is taken once.
                parts[-1].rename(parts[-1].with_name(f"taken.{pid}"))
                return int(line.split()[1])
        time.sleep(0.1)
    raise BenchError("callgrind wrote no sum", f"nothing whole in {directory}")


def _shim() -> Path:
    """Compiles it, once."""
    source, library = places.WORK / "valgrind-shim.c", places.WORK / "valgrind-shim.so"
    if not library.exists() or not source.exists() or source.read_text() != _SHIM:
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(_SHIM)
        done = subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O1", "-o", library, source],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BenchError("gcc could not compile the library that calls valgrind", done.stderr[-800:])
    return library
