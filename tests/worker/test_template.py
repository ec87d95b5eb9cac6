"""The template: imports once, lets go of what must not be shared, and forks workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from link import Slot, Worker
from workers import Serve, django_dir, eventually

APP = """
    import os, random, sys
    from quintet import postfork
    imported_in = os.getpid()
    hooked_in = []

    @postfork
    def hook():
        hooked_in.append(os.getpid())

    def app(environ, start_response):
        start_response("200 OK", [])
        words = [imported_in, os.getpid(), os.getpgid(0), hooked_in, random.random()]
        return [repr(words).encode()]
"""


class Forked:
    """A worker that came out of a template."""

    def __init__(self, template: Worker, number: int, kind: str = "fork") -> None:
        self.control, theirs = socket.socketpair()
        self.control.settimeout(30)
        order = {**template.start, "type": kind, "worker": number}
        order.pop("template")
        socket.send_fds(template.control, [json.dumps(order).encode() + b"\n"], [theirs.fileno()])
        theirs.close()
        self.lines = self.control.makefile("r")
        self.slot: Slot | None = None

    def word(self) -> dict[str, Any]:
        return json.loads(self.lines.readline())

    def serve(self, template: Worker) -> Slot:
        assert self.word()["type"] == "ready"
        self.slot = template.gateway.accept().welcome()
        return self.slot

    def close(self) -> None:
        self.lines.close()
        self.control.close()
        if self.slot:
            self.slot.close()


def template_of(start_worker: Serve, source: str, **options: Any) -> tuple[Worker, dict[str, Any]]:
    template = start_worker(source, template=True, worker=0, **options)
    word = template.word()
    assert word["type"] == "ready", word
    return template, word


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.every_python
def test_workers_share_the_import_and_nothing_else(start_worker: Serve) -> None:
    template, word = template_of(start_worker, APP)
    assert word["unfit"] == ""
    assert word["app"]["app"] == "app:app"
    seen = []
    for number in (1, 2):
        worker = Forked(template, number)
        told = template.word()
        assert (told["type"], told["worker"]) == ("forked", number)
        slot = worker.serve(template)
        assert slot.hello["worker"] == number
        assert slot.hello["pid"] == told["pid"]
        imported_in, pid, group, hooked_in, chance = eval(slot.get().body)
        assert (imported_in, pid, group) == (template.process.pid, told["pid"], told["pid"])
        assert hooked_in == [pid], "once, and in the worker"
        seen.append((pid, chance))
        # The worker is nobody's child here, so that only its end can be seen.
        worker.close()
        eventually(lambda pid=pid: not is_alive(pid))
    assert len({chance for _, chance in seen}) == 2, "each has random numbers of its own"
    assert template.process.poll() is None, "it does not end with its workers"
    assert template.stderr() == ""


@pytest.mark.every_python
def test_an_app_with_threads_becomes_a_worker_instead(start_worker: Serve) -> None:
    threads = APP + (
        "\n    import threading, time\n"
        "    threading.Thread(target=time.sleep, args=(600,), name='poller', daemon=True).start()\n"
    )
    template, word = template_of(start_worker, threads)
    assert word["unfit"] == "starts threads when it is imported (poller)"
    worker = Forked(template, 5, "become")
    slot = worker.serve(template)
    assert slot.hello["worker"] == 5
    assert eval(slot.get().body)[1] == template.process.pid
    slot.retire()
    assert template.wait() == 0
    worker.close()


def test_a_thread_that_ends_by_itself_is_no_reason(start_worker: Serve) -> None:
    source = APP + (
        "\n    import threading, time\n    threading.Thread(target=time.sleep, args=(0.05,)).start()\n"
    )
    _, word = template_of(start_worker, source)
    assert word["unfit"] == ""


def test_a_connection_that_is_kept_is_a_reason_and_a_datagram_socket_is_none(start_worker: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        source = APP + (
            "\n    import socket\n"
            f"    kept = socket.create_connection(('127.0.0.1', {port}))\n"
            "    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            f"    other.connect(('127.0.0.1', {port}))\n"
        )
        _, word = template_of(start_worker, source)
        assert word["unfit"] == f"keeps connections that it opens when it is imported (to 127.0.0.1:{port})"


def test_database_and_cache_are_closed(start_worker: Serve, tmp_path: Path) -> None:
    (tmp_path / "site_settings.py").write_text(
        "SECRET_KEY = 'x'\nALLOWED_HOSTS = ['*']\nROOT_URLCONF = 'site_urls'\n"
        f"DATABASES = {{'default': {{'ENGINE': 'django.db.backends.sqlite3', 'NAME': {str(tmp_path / 'db')!r}}}}}\n"
        "CACHES = {'default': {'BACKEND': 'own_cache.Cache'}}\n"
    )
    (tmp_path / "own_cache.py").write_text(
        "from django.core.cache.backends.locmem import LocMemCache\n"
        "class Cache(LocMemCache):\n    closed = 0\n"
        "    def close(self, **_):\n        Cache.closed += 1\n"
    )
    (tmp_path / "site_urls.py").write_text(
        "from django.core.cache import cache\nfrom django.db import connection\n"
        "from django.http import JsonResponse\nfrom django.urls import path\n"
        "import own_cache\n"
        "connection.ensure_connection()\nopened = connection.connection\ncache.set('a', 1)\n"
        "def view(request):\n"
        "    return JsonResponse({'was': repr(opened), 'is': repr(connection.connection), 'closed': own_cache.Cache.closed})\n"
        "urlpatterns = [path('', view)]\n"
    )
    template, word = template_of(
        start_worker, "", path=[django_dir("5.2")], app=None, settings="site_settings"
    )
    assert word["unfit"] == ""
    worker = Forked(template, 1)
    assert template.word()["type"] == "forked"
    told = worker.serve(template).get().json
    assert told == {"was": told["was"], "is": "None", "closed": 1}
    assert told["was"] != "None", "it was open while the app was imported"
    worker.close()


def test_a_hook_that_fails_is_a_worker_that_fails(start_worker: Serve) -> None:
    source = """
        from quintet import postfork
        @postfork
        def connect():
            raise LookupError("no such exchange")
        def app(environ, start_response): ...
    """
    template, _ = template_of(start_worker, source)
    worker = Forked(template, 1)
    assert template.word()["type"] == "forked"
    word = worker.word()
    assert word["type"] == "failed"
    assert word["message"] == "a postfork hook failed: LookupError: no such exchange"
    assert "in connect" in word["traceback"]
    assert "_hooks.py" not in word["traceback"]
    worker.close()
    # In a worker that imports by itself, too.
    alone = start_worker()
    assert alone.word()["message"] == "a postfork hook failed: LookupError: no such exchange"
    assert alone.wait() == 78


def test_a_failed_import_is_told(start_worker: Serve) -> None:
    template = start_worker("import no_such_module", template=True)
    word = template.word()
    assert word["type"] == "failed"
    assert "no_such_module" in word["message"]
    assert template.wait() == 78


def test_it_leaves_with_its_supervisor_while_it_imports_and_while_it_waits(
    start_worker: Serve, tmp_path: Path
) -> None:
    importing = start_worker(
        "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(600)", template=True
    )
    eventually(lambda: (tmp_path / "begun").exists())
    importing.lines.close()
    importing.control.close()
    assert importing.wait() == -signal.SIGIO
    template, _ = template_of(start_worker, APP)
    template.lines.close()
    template.control.close()
    assert template.wait() == 0


def test_many_forks_in_a_row(start_worker: Serve) -> None:
    template, _ = template_of(start_worker, APP)
    began = time.monotonic()
    workers = [Forked(template, number) for number in range(1, 9)]
    words = [template.word() for _ in workers]
    assert [word["worker"] for word in words] == list(range(1, 9))
    assert len({word["pid"] for word in words}) == 8
    for worker in workers:
        assert worker.word()["type"] == "ready"
    print(f"8 workers are ready after {time.monotonic() - began:.3f} s")
    for worker in workers:
        worker.close()


def test_a_very_long_traceback_arrives_whole(start_worker: Serve) -> None:
    # More than a socket holds, told by a process that the kernel ends when something happens on it.
    source = "raise LookupError('far too long\\n' + 'x' * 600_000)"
    for template in (True, False):
        worker = start_worker(source, template=template)
        time.sleep(0.3)
        word = worker.word()
        assert word["message"] == "the app could not be imported: LookupError: far too long"
        assert "x" * 600_000 in word["traceback"]
        assert worker.wait() == 78
