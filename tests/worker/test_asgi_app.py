"""Which interface an app is called by, its lifespan, and Django under ASGI."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from link import LongStream, Worker
from test_app import failed, series_for, write_site
from workers import Serve, django_dir, eventually

SHAPES = """
    import functools
    async def answer(scope, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"asgi"})
    async def function(scope, receive, send): await answer(scope, send)
    def returns(scope, receive, send): return answer(scope, send)
    partial = functools.partial(function)
    class Callable:
        async def __call__(self, scope, receive, send): await answer(scope, send)
        async def method(self, scope, receive, send): await answer(scope, send)
    instance = Callable()
    class Middleware:
        __slots__ = ("__call__",)
        def __init__(self): self.__call__ = self.run
        async def run(self, scope, receive, send): await answer(scope, send)
    middleware = Middleware()
    def passes_on(function):
        @functools.wraps(function)
        def wrapper(*arguments, **options): return function(*arguments, **options)
        return wrapper
    decorated = passes_on(function)
    method = instance.method
    class Double:
        def __init__(self, scope): self.scope = scope
        async def __call__(self, receive, send): await answer(self.scope, send)
    def closure(scope):
        async def called(receive, send): await answer(scope, send)
        return called
    def wsgi(environ, start_response):
        start_response("200 OK", [])
        return [b"wsgi"]
    class Wsgi:
        def __call__(self, environ, start_response): return wsgi(environ, start_response)
    wsgi_instance = Wsgi()
    class WsgiClass:
        def __init__(self, environ, start_response):
            start_response("200 OK", [])
        def __iter__(self): return iter([b"wsgi"])
    anything = lambda *arguments: wsgi(*arguments)
    wsgi_partial = functools.partial(lambda extra, environ, start_response: wsgi(environ, start_response), 1)
"""
ASGI3 = ["function", "returns", "partial", "instance", "method", "middleware", "decorated"]
ASGI2 = ["Double", "closure"]
WSGI = ["wsgi", "wsgi_instance", "WsgiClass", "anything", "wsgi_partial"]


@pytest.mark.every_python
@pytest.mark.parametrize("name", [*ASGI3, *ASGI2, *WSGI])
def test_an_interface_is_seen_from_the_app(serve: Serve, name: str) -> None:
    wanted = "wsgi" if name in WSGI else "asgi"
    path = [django_dir("5.2")] if name in ASGI2 else []  # asgiref comes with it
    worker = serve(SHAPES, app=f"app:{name}", path=path, event_loop="asyncio")
    assert worker.report["interface"] == wanted
    assert ("event_loop" in worker.report) == (wanted == "asgi")
    assert worker.slot.get().body == wanted.encode()
    assert worker.stderr() == ""


def test_an_interface_that_was_asked_for(serve: Serve) -> None:
    worker = serve(SHAPES, app="app:function", interface="asgi")
    assert worker.slot.get().body == b"asgi"
    worker = serve(SHAPES, app="app:anything", interface="wsgi")
    assert worker.slot.get().body == b"wsgi"


def test_an_interface_that_does_not_fit(start_worker: Serve) -> None:
    word = failed(start_worker(SHAPES, app="app:wsgi", interface="asgi"))
    assert word["message"] == "app:wsgi is no ASGI app: it is called with two arguments, as WSGI apps are"
    assert "wsgi" in word["hint"]
    word = failed(start_worker(SHAPES, app="app:instance", interface="wsgi"))
    assert word["message"] == "app:instance is no WSGI app: it looks like an ASGI app"
    word = failed(
        start_worker(
            "import sys; sys.modules['asgiref'] = None\n" + textwrap.dedent(SHAPES), app="app:Double"
        )
    )
    assert "asgiref is not installed" in word["message"]


def test_an_event_loop_that_is_not_there(start_worker: Serve) -> None:
    source = "import sys; sys.modules['uvloop'] = None\n" + textwrap.dedent(SHAPES)
    word = failed(start_worker(source, app="app:function", event_loop="uvloop"))
    assert "workers.event_loop is uvloop" in word["message"]
    assert "leave the setting out" in word["hint"]


LIFESPAN = """
    import asyncio, contextvars, pathlib
    def note(what): print(what, file=open("noted", "a"), flush=True)
    seen = contextvars.ContextVar("seen", default=0)
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
            if pathlib.Path("unsupported").exists(): raise RuntimeError
            assert (await receive()) == {"type": "lifespan.startup"}
            seen.set(1)
            scope["state"]["shared"] = []
            if pathlib.Path("fails").exists():
                await send({"type": "lifespan.startup.failed", "message": "no database"})
                raise RuntimeError("no database")
            await send({"type": "lifespan.startup.complete"})
            assert (await receive()) == {"type": "lifespan.shutdown"}
            note(f"shutdown {scope['state']['shared']}")
            if pathlib.Path("stuck").exists(): await asyncio.sleep(600)
            if pathlib.Path("bad-end").exists(): raise ValueError("at the end")
            return await send({"type": "lifespan.shutdown.complete"})
        state = scope.get("state")
        if state is not None:
            state["shared"].append(scope["path"])
            assert "own" not in state
            state["own"] = 1
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": repr((state is not None, seen.get())).encode()})
        while (await receive())["type"] != "http.disconnect": pass
        await asyncio.sleep(0.05)
        note("done")
"""


@pytest.mark.every_python
def test_a_lifespan(serve_asgi: Serve, tmp_path: Path) -> None:
    worker = serve_asgi(LIFESPAN)
    for path in ["/a", "/b"]:
        assert worker.slot.get(path).body == b"(True, 0)"
    worker.slot.retire()
    worker.link.retire()
    assert worker.wait() == 0
    # It ends behind the last exchange.
    assert (tmp_path / "noted").read_text() == "done\ndone\nshutdown ['/a', '/b']\n"
    assert worker.stderr() == ""


def test_a_lifespan_that_the_app_does_not_have(serve_asgi: Serve, tmp_path: Path) -> None:
    (tmp_path / "unsupported").touch()
    worker = serve_asgi(LIFESPAN)
    assert worker.slot.get().body == b"(False, 0)"
    worker.tell({"type": "exit"})
    assert worker.wait() == 0
    assert worker.stderr() == ""


STARTUPS = """
    import asyncio, os, sys
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            how = open("how").read()
            if how == "raises": raise ConnectionError("no database")
            if how == "exits": sys.exit("DATABASE_URL is missing")
            if how == "odd": await send({"type": "lifespan.nonsense"})
            if how == "cancelled": raise asyncio.CancelledError
            return
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": repr("state" in scope).encode()})
"""


@pytest.mark.parametrize("how", ["raises", "odd", "cancelled", "returns"])
def test_a_startup_that_raises_is_told_and_no_lifespan(serve_asgi: Serve, tmp_path: Path, how: str) -> None:
    (tmp_path / "how").write_text(how)
    worker = serve_asgi(STARTUPS)
    assert worker.slot.get().body == b"False"
    wanted = {
        "raises": "ConnectionError: no database",
        "odd": "'lifespan.nonsense'",
        "cancelled": "CancelledError",
    }
    told = int(how in wanted)
    assert worker.stderr().count("WARN the app's lifespan startup raised an exception") == told
    assert wanted.get(how, "") in worker.stderr()
    worker.tell({"type": "exit"})
    assert worker.wait() == 0


def test_a_startup_that_exits_is_a_failed_import(start_worker: Serve, tmp_path: Path) -> None:
    (tmp_path / "how").write_text("exits")
    worker = start_worker(STARTUPS, event_loop="asyncio")
    word = failed(worker)
    assert word["message"] == "the app's lifespan startup failed: SystemExit: DATABASE_URL is missing"
    assert worker.stderr() == ""


@pytest.mark.every_python
def test_a_startup_that_fails_is_a_failed_import(start_worker: Serve, tmp_path: Path) -> None:
    (tmp_path / "fails").touch()
    worker = start_worker(LIFESPAN, event_loop="asyncio")
    word = failed(worker)
    assert word["message"] == "the app's lifespan startup failed: no database"
    assert worker.stderr() == ""


def test_a_shutdown_that_fails_is_told(serve_asgi: Serve, tmp_path: Path) -> None:
    (tmp_path / "bad-end").touch()
    worker = serve_asgi(LIFESPAN)
    worker.tell({"type": "exit"})
    assert worker.wait() == 0
    assert 'the app\'s lifespan shutdown failed detail="ValueError: at the end"' in worker.stderr()


def test_a_lifespan_that_fails_while_the_app_serves_is_told(serve_asgi: Serve) -> None:
    worker = serve_asgi(
        """
        import asyncio
        fail = asyncio.Event()
        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await fail.wait()
                raise ValueError("the consumer of the queue is gone")
            fail.set()
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"served"})
        """
    )
    assert worker.slot.get().body == b"served"
    # Who looks at the log need not wait for the end of the worker.
    eventually(lambda: "ValueError: the consumer of the queue is gone" in worker.stderr())
    assert worker.slot.get().body == b"served"
    worker.tell({"type": "exit"})
    assert worker.wait() == 0
    assert worker.stderr().count("the app's lifespan ended with an exception") == 1


ASGI = """
    import os
    from django.core.asgi import get_asgi_application
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
    application = get_asgi_application()
"""
VIEWS = """
    import asyncio, threading, time
    from django.db import connection
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path
    threads, most, lock = set(), [0], threading.Lock()
    def sleep(request):
        with lock:
            threads.add(threading.get_ident())
            most[0] = max(most[0], len(threads))
        with connection.cursor() as cursor: cursor.execute("SELECT 1")
        time.sleep(0.3)
        with lock: threads.discard(threading.get_ident())
        return HttpResponse("slept")
    async def asleep(request):
        await asyncio.sleep(0.05)
        return HttpResponse("async")
    async def events(request):
        async def stream():
            for number in range(3):
                yield f"data: {number}\\n\\n"
                await asyncio.sleep(0.002)
        return StreamingHttpResponse(stream(), content_type="text/event-stream")
    async def cancelled(request):
        try: await asyncio.sleep(60)
        except asyncio.CancelledError:
            open("cancelled", "w").close()
            raise
    urlpatterns = [
        path("sleep", sleep), path("asleep", asleep), path("events", events), path("cancelled", cancelled),
        path("most", lambda request: HttpResponse(str(most[0]))),
    ]
"""


def write_asgi_site(directory: Path, engine: str = "django.db.backends.sqlite3") -> None:
    database = f"DATABASES = {{'default': {{'ENGINE': '{engine}', 'NAME': 'db.sqlite3'}}}}"
    write_site(directory, more=f"ASGI_APPLICATION = 'site_asgi.application'\n    {database}")
    (directory / "site_asgi.py").write_text(textwrap.dedent(ASGI))


@pytest.mark.every_python
@pytest.mark.parametrize("newest", [True, False], ids=["newest", "older"])
def test_a_django_site(serve_asgi: Serve, tmp_path: Path, python: str, newest: bool) -> None:
    write_asgi_site(tmp_path)
    series = series_for(python, newest)
    worker = serve_asgi(path=[django_dir(series, python)], app=None, settings="site_settings")
    assert worker.report["django"].startswith(series + ".")
    assert worker.report["app"] == "site_asgi:application"
    slot = worker.slot
    hello = slot.get("/?name=%C3%84")
    assert (hello.body.decode(), hello.frames) == ("Guten Tag, Ä", 1)
    headers = [("host", "shop.example"), ("content-type", "application/x-www-form-urlencoded")]
    assert slot.exchange(method="POST", target="/echo", headers=headers, body=b"a=1").body == b"a=1"
    form = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    form += b"u" * 200_000 + b"\r\n--x--\r\n"
    multipart = [("host", "shop.example"), ("content-type", "multipart/form-data; boundary=x")]
    multipart.append(("content-length", str(len(form))))
    slot.send(method="POST", target="/upload", headers=multipart, stream=True)
    slot.send_body(form[:100_000])
    slot.send_body(form[100_000:], end=True)
    assert slot.response().body == b"u" * 200_000
    assert slot.get("/stream").body == b"0,1,2,"
    assert slot.get("/file").body == b"# manage\n"
    where = slot.get("/where", scheme="https", server=("shop.example", 443))
    assert where.body == b"https://shop.example/where"
    assert slot.get("/below/where", mount="/below").body == b"http://shop.example/below/where"
    assert slot.get("/nothing-here").status == 404
    assert slot.get("/fail", request_id="the-id").status == 500
    slot.retire()
    worker.link.retire()
    assert worker.wait() == 0
    logged = worker.stderr()
    assert logged.count('the app raised an exception request_id="the-id" method="GET" path="/fail"') == 1
    assert "KeyError: 'lost'" in logged


@pytest.mark.every_python
def test_sync_views_run_side_by_side(serve_asgi: Serve, tmp_path: Path, python: str) -> None:
    write_asgi_site(tmp_path)
    (tmp_path / "site_urls.py").write_text(textwrap.dedent(VIEWS))
    worker = serve_asgi(
        path=[django_dir(series_for(python), python)], app=None, settings="site_settings", concurrency=8
    )
    worker.slot.get("/most")
    begun = time.monotonic()
    for _ in range(2):
        for slot in worker.slots:
            slot.send(target="/sleep")
        for slot in worker.slots:
            assert slot.response().body == b"slept"
    took = time.monotonic() - begun
    # Two sleeps, not sixteen; and no more threads, each with its database connection, than slots.
    assert 0.6 <= took < 1.5
    assert worker.slot.get("/most").body == b"8"
    threads = len(list(Path(f"/proc/{worker.process.pid}/task").iterdir()))
    assert threads < 8 + 8, "each context's thread ends with its request"


COUNTED = """
    from django.db.backends.sqlite3 import base
    class DatabaseWrapper(base.DatabaseWrapper):
        vendor = "counted"  # a server, unlike a file
"""
MORE_THREADS = """
    import asyncio, gc, threading
    from asgiref.sync import sync_to_async
    from django.db import connection
    from django.http import HttpResponse
    from django.urls import path
    def query():
        with connection.cursor() as cursor: cursor.execute("SELECT 1")
    async def three(request):
        together = threading.Barrier(2)
        def meet():
            query()
            together.wait(10)
        await sync_to_async(query)()
        await asyncio.gather(asyncio.to_thread(meet), sync_to_async(meet, thread_sensitive=False)())
        # Django does it when the answer has gone: the next request may be quicker.
        await sync_to_async(lambda: connection.close())()
        return HttpResponse("three")
    def own(request):
        thread = threading.Thread(target=query)
        thread.start()
        thread.join()
        del thread
        gc.collect()
        query()
        return HttpResponse("own")
    urlpatterns = [path("three", three), path("own", own)]
"""


def write_counted_site(directory: Path) -> None:
    write_asgi_site(directory, engine="counted")
    (directory / "site_urls.py").write_text(textwrap.dedent(MORE_THREADS))
    (directory / "counted").mkdir()
    (directory / "counted" / "__init__.py").touch()
    (directory / "counted" / "base.py").write_text(textwrap.dedent(COUNTED))


@pytest.mark.every_python
def test_connections_beyond_the_slots_are_told(serve_asgi: Serve, tmp_path: Path, python: str) -> None:
    write_counted_site(tmp_path)
    path = [django_dir(series_for(python), python)]
    worker = serve_asgi(path=path, app=None, settings="site_settings", concurrency=2)
    # The request's own thread, and two of the executor, which stay.
    assert worker.slot.get("/three").body == b"three"
    assert worker.word() == {"type": "connections", "most": 3}
    # As many again are no news, and what a thread has held goes with it.
    assert worker.slot.get("/three").body == b"three"
    assert worker.slot.get("/own").body == b"own"
    worker.tell({"type": "exit"})
    assert worker.wait() == 0
    assert worker.lines.read() == ""


def test_connections_of_as_many_threads_as_slots_are_not(serve: Serve, tmp_path: Path, python: str) -> None:
    write_counted_site(tmp_path)
    path = [django_dir(series_for(python), python)]
    options = {"path": path, "app": None, "settings": "site_settings", "interface": "wsgi"}
    worker = serve(**options, threads=1)
    # One after the other, they are one.
    assert worker.slot.get("/own").body == b"own"
    worker.slot.retire()
    assert worker.wait() == 0
    assert worker.lines.read() == ""


# What the garbage collector may run at any moment: a finalizer that opens a connection.
FINALIZER = """
    from django.conf import settings
    settings.configure()
    from django.db.backends.signals import connection_created
    from quintet import _connections

    class Connection:
        vendor, settings_dict, connection = "counted", {}, True

    class Looked(Connection):
        @property
        def connection(self):
            connection_created.send(Connection, connection=other)
            return True

    other, told = Connection(), []
    _connections.watch(0, told.append)
    connection_created.send(Connection, connection=Looked())
    print(told)
"""


def test_a_connection_that_a_finalizer_opens_meanwhile_is_not_waited_for(
    package_dir: Path, django_5_2: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{package_dir}:{django_5_2}"}
    command = [sys.executable, "-c", textwrap.dedent(FINALIZER)]
    assert subprocess.check_output(command, env=environment, text=True, timeout=20) == "[1]\n"


@pytest.mark.every_python
def test_async_views(serve_asgi: Serve, tmp_path: Path, python: str) -> None:
    write_asgi_site(tmp_path)
    (tmp_path / "site_urls.py").write_text(textwrap.dedent(VIEWS))
    worker = serve_asgi(path=[django_dir(series_for(python), python)], app=None, settings="site_settings")
    assert worker.slot.get("/asleep").body == b"async"
    if series_for(python) != "4.2":
        response = worker.slot.get("/events")
        assert response.detached is not None
        stream = LongStream(worker.link, response.detached)
        assert stream.response(response).body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    worker.slot.send(target="/cancelled")
    time.sleep(0.1)
    worker.slot.cancel()
    assert worker.slot.response().aborted
    eventually((tmp_path / "cancelled").exists)
    assert worker.slot.get("/asleep").body == b"async"
    assert worker.stderr() == ""


def test_static_files_with_debug(serve_asgi: Serve, tmp_path: Path, python: str) -> None:
    write_site(tmp_path, debug=True, more="ASGI_APPLICATION = 'site_asgi.application'")
    (tmp_path / "site_asgi.py").write_text(textwrap.dedent(ASGI))
    worker = serve_asgi(path=[django_dir(series_for(python), python)], app=None, settings="site_settings")
    for path, content in (("site.css", b"p {}\n"), ("docs/help.txt", b"help\n"), ("blog.css", b"body {}\n")):
        assert worker.slot.get(f"/static/{path}").body == content
    assert worker.slot.get("/static/../site_settings.py").status >= 400


def test_what_the_settings_say_and_what_was_asked_for(serve: Serve, tmp_path: Path) -> None:
    write_asgi_site(tmp_path)

    def report(**options: str) -> tuple[str, str]:
        worker: Worker = serve(path=[django_dir("5.2")], app=None, settings="site_settings", **options)
        return worker.report["interface"], worker.report["app"]

    assert report() == ("asgi", "site_asgi:application")
    assert report(interface="wsgi") == ("wsgi", "django.core.wsgi:get_wsgi_application")
    write_site(tmp_path)
    assert report() == ("wsgi", "django.core.wsgi:get_wsgi_application")
    assert report(interface="asgi") == ("asgi", "django.core.asgi:get_asgi_application")


def test_an_asgi_worker_out_of_a_template(start_worker: Serve) -> None:
    template = start_worker(LIFESPAN, template=True, worker=0, event_loop="asyncio", concurrency=2)
    word = template.word()
    assert (word["type"], word["unfit"], word["app"]["interface"]) == ("ready", "", "asgi")
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    order = {**template.start, "type": "fork", "worker": 5}
    order.pop("template")
    socket.send_fds(template.control, [json.dumps(order).encode() + b"\n"], [theirs.fileno()])
    theirs.close()
    with ours, ours.makefile("r") as lines:
        assert json.loads(lines.readline())["type"] == "ready"
        streams = [template.gateway.accept().welcome() for _ in range(3)]
        slot = next(stream for stream in streams if stream.hello["channel"] == "slot")
        assert slot.hello["worker"] == 5
        assert slot.get().body == b"(True, 0)"
        for stream in streams:
            stream.retire()
        assert lines.readline() == ""
    for stream in streams:
        stream.close()
