"""`workers.user`: whatever runs the app's code is another user, from its first line on; supervisor and gateway stay root."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import places, venvs
from harness.processes import alive
from harness.site import Site, Start

USER = "nobody"

# Who imported the app, and who answers: user ids, group ids, further groups, the environment's word for it.
SOURCE = """
import json
import os
import socket

import plain
from plain import *
from plain import application


def who():
    named = {name: os.environ.get(name) for name in ("USER", "LOGNAME", "HOME")}
    return {"pid": os.getpid(), "uid": os.getresuid(), "gid": os.getresgid(), "groups": sorted(os.getgroups()), **named}


IMPORTED = who()


def page_who(_environ, start, _query):
    return answer(start, json.dumps([IMPORTED, who()]))


def page_connect(_environ, start, query):
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(query["path"])
    except OSError as error:
        return answer(start, type(error).__name__)
    return answer(start, "connected")


plain.page_who, plain.page_connect = page_who, page_connect
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may enter, with the app and the package: those of pytest and of environments may be private."""
    if os.geteuid() != 0:
        pytest.skip(
            "only root can start processes as another user: run these as root, `sudo make e2e ARGS='-k user'`"
        )
    directory = Path(tempfile.mkdtemp(prefix="user-"))
    try:
        directory.chmod(0o755)
        shutil.copy(places.APPS / "plain" / "plain.py", directory / "plain.py")
        (directory / "own.py").write_text(SOURCE)
        where = "import os, quintet; print(os.path.dirname(quintet.__file__))"
        package = subprocess.run([places.python(), "-c", where], capture_output=True, text=True, check=True)
        shutil.copytree(package.stdout.strip(), directory / "package" / "quintet")
        yield directory
    finally:
        shutil.rmtree(directory)


def python_of_everybody(place: Path) -> Path:
    """A Python that the other user may run, too; the one that runs the tests may lie in root's home."""
    installed = [places.python(), *(interpreter.path for interpreter in venvs.interpreters())]
    for candidate in [*installed, Path("/usr/bin/python3")]:
        with contextlib.suppress(OSError):
            done = subprocess.run(
                [candidate, "-c", "import quintet._core"],
                env={"PYTHONPATH": str(place / "package")},
                cwd=place,
                user=USER,
                group=pwd.getpwnam(USER).pw_gid,
                extra_groups=[],
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                return candidate
    return pytest.skip(f"there is no Python on this machine that {USER} may run")


def begin(start: Start, place: Path, group: str | None = None, **settings: str) -> Site:
    env = {
        "PYTHONPATH": str(place / "package"),
        "QUINTET_APP_PYTHON": str(python_of_everybody(place)),
        "QUINTET_WORKERS_USER": USER,
        "QUINTET_SERVER_RUNTIME_DIR": str(place / "run"),
        **({"QUINTET_WORKERS_GROUP": group} if group else {}),
        **settings,
    }
    return start(place, workers=2, flags=("--app", "own:application"), env=env)


def expected(group: str | None = None) -> dict[str, Any]:
    account = pwd.getpwnam(USER)
    gid = grp.getgrnam(group).gr_gid if group else account.pw_gid
    return {
        "uid": [account.pw_uid] * 3,
        "gid": [gid] * 3,
        "groups": sorted(set(os.getgrouplist(USER, gid))),
        "USER": USER,
        "LOGNAME": USER,
        "HOME": account.pw_dir,
    }


def owner(pid: int) -> tuple[list[int], list[int], list[int]]:
    """User ids, group ids and further groups of a process, as the kernel has them: real, effective, saved."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    uid, gid, groups = ([int(number) for number in fields[name].split()] for name in ("Uid", "Gid", "Groups"))
    return uid[:3], gid[:3], sorted(groups)


def see_that_the_app_is_theirs(site: Site, wanted: dict[str, Any], *, preload: bool) -> None:
    """Of the template, of every worker, and from inside the app."""
    template = site.status()["template_pid"]
    processes = [*site.workers(), *([template] if preload else [])]
    for pid in processes:
        assert owner(pid) == (wanted["uid"], wanted["gid"], wanted["groups"])
    imported, now = site.get("/who").json()
    assert imported == wanted | {"pid": template if preload else now["pid"]}
    assert now == wanted | {"pid": now["pid"]}
    assert now["pid"] in site.workers()


@pytest.mark.parametrize("preload", [True, False], ids=["forked", "alone"])
@pytest.mark.parametrize("group", [None, "daemon"])
def test_template_and_workers_are_the_other_user(
    start: Start, place: Path, group: str | None, *, preload: bool
) -> None:
    site = begin(start, place, group, QUINTET_WORKERS_PRELOAD=str(preload).lower())
    wanted = expected(group)
    see_that_the_app_is_theirs(site, wanted, preload=preload)
    for pid in (site.process.pid, site.gateway()):
        assert owner(pid)[0] == [0, 0, 0]
    # Workers that come later are made in the same way: after a death, at a reload, and when the program is replaced.
    site.allow_log("worker.*died")
    site.kill_worker()
    site.wait_workers(2)
    see_that_the_app_is_theirs(site, wanted, preload=preload)
    before = site.workers()
    done = site.reload()
    assert done.returncode == 0, done.stderr
    assert not set(before) & set(site.workers())
    see_that_the_app_is_theirs(site, wanted, preload=preload)
    done = site.quintet("upgrade")
    assert done.returncode == 0, done.stderr
    site.wait_workers(2)
    see_that_the_app_is_theirs(site, wanted, preload=preload)


def test_the_runtime_directory_serves_both_and_keeps_workers_out_of_what_is_not_theirs(
    start: Start, place: Path
) -> None:
    site = begin(start, place)
    runtime = place / "run"
    account = pwd.getpwnam(USER)
    assert (runtime.stat().st_uid, runtime.stat().st_mode & 0o777) == (0, 0o711)
    for path in runtime.iterdir():
        of_workers = path.name.startswith("link")
        assert path.stat().st_uid == (account.pw_uid if of_workers else 0), path
        assert path.stat().st_mode & 0o077 == 0, path
    for name in ("control.sock", "admin.sock"):
        assert (runtime / name).exists()
        assert site.get(f"/connect?path={runtime / name}").text == "PermissionError"
    # Long bodies go through files of the gateway, which workers read by their descriptor.
    body = os.urandom(4 << 20)
    assert site.post("/echo", content=body).content == body
    template = site.status()["template_pid"]
    assert site.stop() == 0
    assert not alive(template)
    assert not runtime.exists()
