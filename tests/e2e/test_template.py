"""The app is imported once, and workers are forked from what came of it: ready at once, sharing nothing that must not be shared."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from private_postgres import PrivatePostgres

from harness import places
from harness.load import Load
from harness.processes import alive, wait_until
from harness.site import Site, Start


def write_app(directory: Path, source: str) -> None:
    """`own.py` with `application`: the plain app, and more of it."""
    shutil.copy(places.APPS / "plain" / "plain.py", directory / "plain.py")
    (directory / "own.py").write_text(
        "import os\nfrom plain import *\nfrom plain import application\n" + source
    )


def start_own(start: Start, directory: Path, source: str, **options: object) -> Site:
    write_app(directory, source)
    return start(directory, flags=("--app", "own:application", *options.pop("flags", ())), **options)


def template(site: Site) -> int | None:
    return site.status()["template_pid"]


@pytest.mark.short
def test_the_app_is_imported_once(start: Start, tmp_path: Path) -> None:
    imports = tmp_path / "imports"
    site = start_own(start, tmp_path, f"open({str(imports)!r}, 'a').write('x')\n", workers=3)
    assert imports.read_text() == "x"
    with Load(site, "/sleep?seconds=0.05", clients=12) as load:
        load.wait_for(40)
    served = {int(body.decode().rpartition(" ")[2]) for body in load.bodies}
    assert served == set(site.workers())
    # A worker that dies is made of the same import.
    site.allow_log("worker.*died")
    site.kill_worker()
    site.wait_workers(3)
    assert imports.read_text() == "x"
    # And a reload imports it again.
    assert site.reload().returncode == 0
    assert imports.read_text() == "xx"


@pytest.mark.short
def test_the_template_is_killed_under_load_and_nobody_notices(plain: Start) -> None:
    site = plain(workers=2, threads=2)
    site.allow_log("template.*died")
    workers = set(site.workers())
    with Load(site, "/sleep?seconds=0.02&say=x", "/hello", clients=8) as load:
        for _ in range(2):
            load.wait_for(100)
            before = template(site)
            os.kill(before, signal.SIGKILL)
            wait_until(lambda before=before: template(site) not in {None, before}, 10, "another template")
            load.wait_for(50)
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert set(site.workers()) == workers
    # The next one forks, too.
    site.allow_log("worker.*died")
    site.kill_worker()
    site.wait_workers(2)


def test_workers_and_template_die_at_once_and_all_come_back(plain: Start) -> None:
    site = plain(workers=3)
    site.allow_log("(template|worker).*died")
    for _ in range(3):
        victims = [pid for pid in (template(site), *site.workers()) if pid]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda victims=victims: not any(map(alive, victims)), 5, "all are dead")
        # A request waits for the first worker.
        assert site.get("/hello").text == "hello"
        site.wait_workers(3)
    numbers = [worker["worker"] for worker in site.status()["workers"]]
    assert len(set(numbers)) == 3
    assert site.log.count("an orphan was reaped") == 0


def test_a_fork_storm(plain: Start) -> None:
    site = plain(workers=4, threads=1)
    site.allow_log("worker.*died")
    with Load(site, "/hello", clients=4) as load:
        for _ in range(5):
            load.wait_for(20)
            for pid in site.workers():
                os.kill(pid, signal.SIGKILL)
            site.wait_workers(4)
    # GETs are repeated once; a client whose second worker died, too, is told so.
    assert load.failures == []
    assert set(load.statuses) <= {200, 502}
    assert load.statuses[200] > load.statuses[502]


def test_a_template_that_does_not_fork_is_replaced_and_then_done_without(
    start: Start, tmp_path: Path
) -> None:
    site = start_own(start, tmp_path, "", workers=1)
    site.allow_log("(template|worker)")
    before = template(site)
    # It is there and does not react.
    os.kill(before, signal.SIGSTOP)
    site.kill_worker()
    assert site.get("/hello").text == "hello", "after 5 s the supervisor has had enough of it"
    assert not alive(before)
    assert template(site) not in {None, before}


@pytest.mark.short
def test_an_app_with_threads_is_imported_by_each_worker_and_that_is_said_once(
    start: Start, tmp_path: Path
) -> None:
    imports = tmp_path / "imports"
    source = (
        "import threading, time\n"
        f"open({str(imports)!r}, 'a').write('x')\n"
        "ticks = []\n"
        "def tick():\n"
        "    while True:\n"
        "        ticks.append(1)\n"
        "        time.sleep(0.01)\n"
        "threading.Thread(target=tick, name='ticker', daemon=True).start()\n"
        "import plain\n"
        "def page_ticks(_environ, start, _query):\n"
        "    return answer(start, str(len(ticks)))\n"
        "plain.page_ticks = page_ticks\n"
    )
    site = start_own(start, tmp_path, source, workers=3)
    assert imports.read_text() == "xxx", "the template has become a worker: nothing was imported in vain"
    assert template(site) is None
    said = r"the app starts threads when it is imported \(ticker\), so each worker imports it by itself"
    assert site.log.count(said) == 1
    first = int(site.get("/ticks").text)
    wait_until(lambda: int(site.get("/ticks").text) > first, 5, "its thread runs in the workers")
    assert site.reload().returncode == 0
    site.wait_workers(3)
    assert site.log.count(said) == 1
    site.allow_log("worker.*died")
    site.kill_worker()
    site.wait_workers(3)


def test_the_postfork_hook_runs_in_each_worker(start: Start, tmp_path: Path) -> None:
    source = (
        "import plain\n"
        "from quintet import postfork\n"
        "made_in = []\n"
        "@postfork\n"
        "def make():\n"
        "    made_in.append(os.getpid())\n"
        "def page_made(_environ, start, _query):\n"
        "    return answer(start, f'{os.getpid()} {made_in}')\n"
        "plain.page_made = page_made\n"
    )
    for flags in ((), ("--preload", "false")):
        site = start_own(start, tmp_path, source, workers=2, flags=flags)
        for _ in range(10):
            pid, made = site.get("/made").text.split(" ", 1)
            assert made == f"[{pid}]"
        assert (template(site) is None) == bool(flags)


def test_a_hook_that_fails_is_shown_like_a_failed_import(start: Start, tmp_path: Path) -> None:
    source = (
        "from quintet import postfork\n@postfork\ndef connect():\n    raise LookupError('no such exchange')\n"
    )
    site = start_own(start, tmp_path, source, workers=2, wait=False)
    site.allow_log("LookupError|Traceback|postfork")
    assert site.wait_exit() == 3
    assert "error: a postfork hook failed: LookupError: no such exchange" in site.log
    assert site.log.count("LookupError: no such exchange") == 2, "the traceback, once, and the message"
    site.process.returncode = 0


def test_random_numbers_differ_between_workers(start: Start, tmp_path: Path) -> None:
    source = (
        "import plain, random\n"
        "random.seed(7)\n"
        "def page_random(_environ, start, _query):\n"
        "    time.sleep(0.05)\n"
        "    return answer(start, f'{os.getpid()} {random.random()}')\n"
        "plain.page_random = page_random\n"
    )
    site = start_own(start, tmp_path, source, workers=3, threads=1)
    with Load(site, "/random", clients=6) as load:
        load.wait_for(30)
    pids, numbers = zip(*(body.split() for body in load.bodies), strict=True)
    assert len(set(pids)) == 3
    # Three times the same series would be many numbers twice.
    assert set(load.bodies.values()) == {1}
    assert len(set(numbers)) == len(numbers)


def test_new_code_that_is_broken_leaves_the_old_template_and_its_workers(
    start: Start, tmp_path: Path
) -> None:
    site = start_own(start, tmp_path, "", workers=2)
    site.allow_log("reload failed|worker.*died")
    before = template(site), set(site.workers())
    (tmp_path / "own.py").write_text("import nowhere_to_be_found\n")
    done = site.reload()
    assert done.returncode == 3
    assert "nowhere_to_be_found" in done.stdout + done.stderr
    assert (template(site), set(site.workers())) == before
    # It still forks the old code, whatever lies on disk now.
    site.kill_worker()
    site.wait_workers(2)
    assert site.get("/hello").text == "hello"
    assert template(site) == before[0]


def test_an_import_that_takes_too_long_is_given_up(start: Start, tmp_path: Path) -> None:
    site = start_own(
        start,
        tmp_path,
        "import time\ntime.sleep(600)\n",
        wait=False,
        env={"QUINTET_WORKERS_START_TIMEOUT": "1s"},
    )
    site.allow_log("was not imported")
    assert site.wait_exit() == 3
    assert "was not imported after 1 s" in site.log
    site.process.returncode = 0


DJANGO_URLS = """
import os
from django.db import connection
from django.http import HttpResponse
from django.urls import path

def backend():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]

# What many projects do without knowing: a query while they are imported.
at_import = backend()

def view(request):
    return HttpResponse(f"{os.getpid()} {backend()} {at_import}")

urlpatterns = [path("", view)]
"""


def test_a_connection_of_the_import_is_not_shared(
    start: Start, tmp_path: Path, postgres: PrivatePostgres
) -> None:
    url = postgres.create_database("template_story")
    (tmp_path / "site_settings.py").write_text(
        "SECRET_KEY = 'x'\nALLOWED_HOSTS = ['*']\nROOT_URLCONF = 'site_urls'\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql', 'NAME': 'template_story',\n"
        f"    'USER': {postgres.user!r}, 'HOST': {url.partition('host=')[2]!r}, 'CONN_MAX_AGE': None}}}}\n"
    )
    (tmp_path / "site_urls.py").write_text(DJANGO_URLS)
    site = start(tmp_path, workers=2, threads=1, flags=("--settings", "site_settings"))
    seen: dict[str, set[str]] = {}
    deadline = time.monotonic() + 20
    with Load(site, "/", clients=4) as load:
        load.wait_for(40)
    assert set(load.statuses) == {200}
    while len(seen) < 2 and time.monotonic() < deadline:
        for body in load.bodies:
            pid, backend, at_import = body.decode().split()
            seen.setdefault(pid, set()).add(backend)
            assert backend != at_import
    backends = [next(iter(found)) for found in seen.values()]
    assert all(len(found) == 1 for found in seen.values())
    assert len(backends) == 2
    assert len(set(backends)) == 2, "each worker has a connection of its own"
    assert template(site) is not None, "the one of the import was closed: the app can be forked"
