"""A newer program takes over while the site is in use; or it does not, and nothing has happened."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from harness import places
from harness.data import deploy
from harness.load import Load
from harness.processes import alive, marked, unshared, wait_until
from harness.site import Site, Start

pytestmark = pytest.mark.any_python

FAILED = "upgrade failed|the upgrade failed"


@pytest.fixture
def site(start: Start, project: Path) -> Site:
    """Two workers."""
    return start(project, workers=2, flags=("--app", "plain:application"))


def upgrade(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`quintet upgrade`, which returns when the new program serves."""
    return site.quintet("upgrade", *arguments)


def supervisors(site: Site) -> list[int]:
    """Process ids of what was started as `quintet run`."""
    return sorted(pid for pid, command in marked(site.mark).items() if " run " in command)


def program(path: Path, script: str) -> Path:
    """A program that is none of ours."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.short
def test_upgrades_under_load_lose_nothing(site: Site, project: Path) -> None:
    seen, version = [site.status()["pid"]], "one"
    with (
        Load(site, "/version", "/hello", "/sleep?seconds=0.05&say=x", clients=6) as busy,
        Load(site, "/version", clients=2, pause=1) as calm,
        Fresh(site, "/hello") as fresh,
    ):
        for number in range(3):
            busy.wait_for(100)
            deploy(project, f'"{version}"', f'"version {number}"')
            version = f"version {number}"
            done = upgrade(site)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "the new program serves" in done.stdout
            seen.append(site.status()["pid"])
            assert site.get("/version").text == version
        busy.wait_for(100)
    for load in (busy, calm, fresh):
        assert load.failures == []
        assert set(load.statuses) == {200}
    assert busy.bodies[b"one"] > 0
    assert busy.bodies[b"version 2"] > 0
    assert len(set(seen)) == 4, seen
    status = site.status()
    assert (status["state"], len(status["workers"])) == ("serving", 2)
    # The first process stays for those who know its id; those in between have gone.
    wait_until(
        lambda: supervisors(site) == sorted({site.process.pid, seen[-1]}), 20, "two supervisors are left"
    )
    assert site.process.pid == seen[0]
    # And it hands signals on: the fixture's end is a SIGTERM to it, and expects exit code 0.


class Fresh(Load):
    """Each request on a connection of its own."""

    def __init__(self, site: Site, *paths: str) -> None:
        super().__init__(site, *paths, clients=2, pause=0.005)

    def _connect(self) -> object:
        connection = super()._connect()
        plain = connection.request

        def request(method: str, path: str) -> None:
            plain(method, path, headers={"Connection": "close"})

        connection.request = request
        return connection


def test_signals_to_the_first_process_reach_the_new_one(site: Site, project: Path) -> None:
    assert upgrade(site).returncode == 0
    deploy(project, '"one"', '"two"')
    site.terminate(signal.SIGHUP)
    wait_until(lambda: site.get("/version").text == "two", 20, "version two")
    wait_until(lambda: site.status()["state"] == "serving", 20, "the reload has ended")
    workers = site.status()["pools"][0]["wanted"]
    site.terminate(signal.SIGTTIN)
    wait_until(lambda: site.status()["pools"][0]["wanted"] == workers + 1, 5, "a worker more")
    with site.raw() as client:
        client.request("GET /sleep?seconds=1.5&say=done")
        wait_until(lambda: site.status()["gateway"]["slots_busy"] == 1, 5, "the request is under way")
        site.terminate(signal.SIGINT)
        assert client.answer().text == "done"
    assert site.wait_exit() == 0
    assert not marked(site.mark)
    assert not site.runtime_dir.exists()


def test_the_first_process_ends_as_the_new_one_does(site: Site) -> None:
    assert upgrade(site).returncode == 0
    os.kill(site.status()["pid"], signal.SIGKILL)
    assert site.wait_exit() == 128 + signal.SIGKILL
    wait_until(lambda: not marked(site.mark), 10, "all processes end")
    site.process.returncode = 0


def test_several_old_programs_finish_their_requests_at_once(site: Site) -> None:
    with site.raw() as first, site.raw() as second:
        assert upgrade(site).returncode == 0
        first.request("GET /stream?lines=20&pause=0.1")
        first.head()
        assert upgrade(site).returncode == 0
        second.request("GET /stream?lines=60&pause=0.1")
        second.head()
        assert upgrade(site).returncode == 0
        newest = site.status()["pid"]
        # The one in the middle ends while its heir, which has handed over, too, still has a request.
        for client in (first, second):
            body = b""
            while not body.endswith(b"0\r\n\r\n"):
                body += client.exactly(1)
    wait_until(lambda: supervisors(site) == sorted({site.process.pid, newest}), 20, "two are left")
    assert site.status()["pid"] == newest
    assert site.get("/hello").text == "hello"


def test_a_request_that_is_under_way_is_finished_by_the_old_program(site: Site) -> None:
    before = set(site.workers())
    with site.raw() as slow, site.raw() as idle:
        assert idle.request("GET /pid").answer().status == 200
        slow.request("GET /stream?lines=30&pause=0.1")
        slow.head()
        assert upgrade(site).returncode == 0
        assert not before & set(site.workers())
        # A connection that is idle may be used once more, and hears of the end with its answer.
        last = idle.request("GET /pid").answer()
        assert int(last.text) in before
        assert (last.get("connection") or "").lower() == "close"
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += slow.exactly(1)
        assert b"line 29\n" in body
    wait_until(lambda: not any(alive(pid) for pid in before), 20, "the old workers go")


@pytest.mark.short
def test_a_program_that_does_not_serve_leaves_the_old_one_alone(site: Site, tmp_path: Path) -> None:
    site.allow_log(FAILED)
    before = (site.status()["pid"], set(site.workers()), site.gateway())
    with Load(site, "/hello", clients=4) as load:
        load.wait_for(50)
        done = upgrade(site, "--program", str(program(tmp_path / "broken", "exit 1")))
        assert done.returncode == 2
        assert "it ended before it served: exit status 1" in done.stderr
        done = upgrade(site, "--program", str(tmp_path / "nowhere"))
        assert done.returncode == 2
        assert "No such file or directory" in done.stderr
        done = upgrade(site, "--program", str(program(tmp_path / "killed", "kill -9 $$")))
        assert "signal SIGKILL" in done.stderr
        load.wait_for(50)
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert (site.status()["pid"], set(site.workers()), site.gateway()) == before
    assert site.status()["state"] == "serving"
    assert upgrade(site).returncode == 0


def test_an_app_that_does_not_import_any_more_leaves_the_old_one_alone(site: Site, project: Path) -> None:
    site.allow_log("deliberately broken")
    before = set(site.workers())
    deploy(project, "from __future__ import annotations", "raise ValueError('deliberately broken')")
    with Load(site, "/version", clients=4) as load:
        load.wait_for(50)
        done = upgrade(site)
        assert done.returncode == 3, done.stderr
        assert "ValueError: deliberately broken" in done.stderr
        load.wait_for(50)
    assert load.failures == []
    assert set(load.bodies) == {b"one"}
    assert set(site.workers()) == before
    # Told once, by the one who was asked.
    assert site.log.count("^ValueError: deliberately broken") == 1
    wait_until(lambda: supervisors(site) == [site.process.pid], 10, "the new program is gone")
    deploy(project, "raise ValueError('deliberately broken')", "from __future__ import annotations")
    deploy(project, '"one"', '"two"')
    assert upgrade(site).returncode == 0
    assert site.get("/version").text == "two"


def test_a_configuration_with_errors_leaves_the_old_one_alone(site: Site, project: Path) -> None:
    site.allow_log("upgrade failed")
    (project / "quintet.toml").write_text("[timeouts]\napp = 'soon'\n")
    # With a file in disorder only the command line says where the instance is.
    done = upgrade(site, "--runtime-dir", str(site.runtime_dir))
    assert done.returncode == 2
    assert "timeouts.app" in done.stderr or "app = 'soon'" in done.stderr
    assert site.get("/hello").text == "hello"
    (project / "quintet.toml").write_text("[timeouts]\napp = '17s'\n")
    assert upgrade(site).returncode == 0
    assert site.get("/hello").text == "hello"


def test_a_program_that_says_nothing_is_given_up(start: Start, project: Path, tmp_path: Path) -> None:
    site = start(
        project,
        workers=1,
        flags=("--app", "plain:application"),
        env={"QUINTET_WORKERS_START_TIMEOUT": "1s"},
    )
    site.allow_log(FAILED)
    done = upgrade(site, "--program", str(program(tmp_path / "silent", "exec sleep 100")))
    assert done.returncode == 2
    assert "did not serve" in done.stderr
    assert "silent" not in " ".join(marked(site.mark).values())
    assert "sleep 100" not in marked(site.mark).values()
    assert site.get("/hello").text == "hello"


def test_one_change_at_a_time(site: Site, tmp_path: Path) -> None:
    site.allow_log("upgrade|reload")
    slow = program(tmp_path / "slow", "sleep 3; exit 1")
    first: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(target=lambda: first.append(upgrade(site, "--program", str(slow))))
    thread.start()
    wait_until(lambda: site.status()["state"] == "upgrading", 5, "the upgrade begins")
    second = upgrade(site)
    assert second.returncode == 2
    assert "an upgrade is under way already" in second.stderr
    reload = site.reload()
    assert reload.returncode == 2
    assert "an upgrade is under way" in reload.stderr
    thread.join(30)
    assert first[0].returncode == 2
    assert site.reload().returncode == 0


def test_a_stop_in_the_middle_ends_both(site: Site, tmp_path: Path) -> None:
    slow = program(tmp_path / "slow", f'sleep 2; exec {places.quintet()} "$@"')
    results: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(target=lambda: results.append(upgrade(site, "--program", str(slow))))
    thread.start()
    wait_until(lambda: site.status()["state"] == "upgrading", 5, "the upgrade begins")
    site.terminate()
    assert site.wait_exit() == 0
    thread.join(30)
    assert results[0].returncode != 0
    assert not marked(site.mark)


def test_the_old_gateway_dies_while_it_hands_over(site: Site) -> None:
    site.allow_log("gateway")
    old = site.gateway()
    with site.raw() as held:
        held.request("GET /stream?lines=50&pause=0.1")
        held.head()
        assert upgrade(site).returncode == 0
        assert alive(old)
        os.kill(old, signal.SIGKILL)
        assert site.get("/hello").text == "hello"
    wait_until(lambda: len(marked(site.mark)) <= 6, 20, "the old instance ends")
    assert site.get("/hello").text == "hello"
    assert site.status()["state"] == "serving"


def test_unix_sockets_keep_their_names(start: Start, project: Path, tmp_path: Path) -> None:
    path = Path("/tmp") / f"upgrade-{os.getpid()}.sock"
    site = start(project, workers=1, flags=("--app", "plain:application", "--bind", f"unix:{path}"))
    for _ in range(2):
        inode = path.stat().st_ino
        assert upgrade(site).returncode == 0
        assert path.stat().st_ino == inode
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            data = b"".join(iter(lambda client=client: client.recv(4096), b""))
        assert data.endswith(b"hello")
    # The one in the middle goes; what is not its own stays.
    time.sleep(1)
    assert path.exists()
    names = sorted(entry.name for entry in site.runtime_dir.iterdir())
    assert {"admin.sock", "control.sock", "lock"} <= set(names), names
    assert site.stop() == 0
    assert not path.exists()
    assert not site.runtime_dir.exists()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """What systemd is told: the path of its socket, and the messages so far, each with the sender's process id."""
    path = str(tmp_path / "notify")
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        over = threading.Event()

        def listen() -> None:
            listener.settimeout(0.2)
            while not over.is_set():
                try:
                    data, ancillary, *_ = listener.recvmsg(4096, socket.CMSG_SPACE(12))
                except TimeoutError:
                    continue
                pid = int.from_bytes(ancillary[0][2][:4], "little")
                heard.append(f"{pid} {data.decode()}")

        thread = threading.Thread(target=listen)
        thread.start()
        yield path, heard
        over.set()
        thread.join()


def test_systemd_is_told_of_the_new_main_process(
    start: Start, project: Path, manager: tuple[str, list[str]]
) -> None:
    path, heard = manager
    site = start(project, workers=1, flags=("--app", "plain:application"), env={"NOTIFY_SOCKET": path})
    old = site.process.pid
    assert upgrade(site).returncode == 0
    new = site.status()["pid"]
    # Nobody waits for the old one here but its own parent.
    assert site.wait_exit() == 0
    wait_until(lambda: any(text.startswith(f"{new} READY=1") for text in heard), 5, "the new one is ready")
    told = [text.partition("\n")[0] for text in heard]
    assert told == [f"{old} READY=1", f"{old} MAINPID={new}", f"{new} READY=1"]
    assert site.get("/hello").text == "hello"
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not marked(site.mark), 20, "it stops")


def test_websockets_and_event_streams_have_a_grace_and_then_1012(start: Start) -> None:
    site = start(
        "sockets",
        workers=1,
        flags=("--app", "sockets:application"),
        env={"QUINTET_WORKERS_LONG_LIVED_GRACE": "2s"},
    )
    old = site.workers()
    plain = socket.create_connection(("127.0.0.1", site.port), 5)
    with connect(f"ws://localhost:{site.port}/echo", sock=plain, proxy=None) as client:
        client.send("before")
        assert client.recv(timeout=10) == "before"
        assert upgrade(site).returncode == 0
        began = time.monotonic()
        client.send("still the old one")
        assert client.recv(timeout=10) == "still the old one"
        again = socket.create_connection(("127.0.0.1", site.port), 5)
        with connect(f"ws://localhost:{site.port}/echo", sock=again, proxy=None) as new:
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=20)
            assert closed.value.rcvd.code == 1012
            assert 0.5 < time.monotonic() - began < 8
            new.send("stays")
            assert new.recv(timeout=10) == "stays"
            wait_until(lambda: not any(alive(pid) for pid in old), 20, "the old worker goes")
            new.send("and stays")
            assert new.recv(timeout=10) == "and stays"


def test_process_1_of_a_container_stays_and_hands_signals_on(start: Start, project: Path) -> None:
    # A manager that could be told: process 1 stays all the same.
    site = start(
        project,
        workers=1,
        flags=("--app", "plain:application"),
        prefix=unshared("--pid", "--fork", "--kill-child", "--mount-proc"),
        env={"NOTIFY_SOCKET": str(project / "nobody")},
        wait=False,
    )
    site.wait_ready()
    first = next(
        pid for pid, command in marked(site.mark).items() if is_process_1(pid) and " run " in command
    )

    def inside(*arguments: str) -> subprocess.CompletedProcess[str]:
        # As `docker exec` would: the supervisor listens to nobody whose process id it cannot see.
        enter = ("nsenter", "--target", str(first), "--user", "--pid", "--mount", str(site.program))
        return subprocess.run(
            [*enter, *arguments, "--runtime-dir", str(site.runtime_dir)],
            env=site.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def pid() -> int:
        done = inside("status", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["pid"]

    seen = [pid()]
    assert seen == [1]
    for _ in range(2):
        done = inside("upgrade")
        assert done.returncode == 0, done.stderr
        assert site.get("/hello").text == "hello"
        seen.append(pid())
    assert len(set(seen)) == 3
    # A signal from outside; `unshare` itself hands none on.
    os.kill(first, signal.SIGTERM)
    assert site.wait_exit() == 0
    assert not marked(site.mark)


def is_process_1(pid: int) -> bool:
    """In its own namespace."""
    status = Path(f"/proc/{pid}/status").read_text()
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
    return len(numbers) > 1 and numbers[-1] == "1"
