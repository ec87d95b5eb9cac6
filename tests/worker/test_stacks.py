"""A worker tells what its threads do: by Python while Python runs, by faulthandler while it hangs in C."""

from __future__ import annotations

import json
import time

import pytest
from link import Worker
from workers import Serve, eventually

APP = """
    import ctypes, time
    def wait(environ):
        if environ["PATH_INFO"] == "/sleep":
            time.sleep(1.5)
        elif environ["PATH_INFO"] == "/hang":
            ctypes.PyDLL(None).usleep(1_500_000)
    def app(environ, start_response):
        wait(environ)
        start_response("200 OK", [])
        return [b"done"]
"""


def ask(worker: Worker, path: str) -> str:
    """What is logged about a request that is under way."""
    worker.slots[1].send(target=path, request_id="the-one")
    time.sleep(0.3)
    worker.tell({"type": "dump_stacks", "request_id": "the-one"})
    eventually(lambda: "thread " in worker.stderr())
    return worker.stderr()


@pytest.mark.every_python
@pytest.mark.parametrize("path", ["/sleep", "/hang"])
def test_the_thread_of_the_request_comes_first_and_is_marked(serve: Serve, path: str) -> None:
    worker = serve(APP, threads=2)
    entry = ask(worker, path)
    assert 'request_id="the-one"' in entry
    assert ("hangs in a call into C" in entry) == (path == "/hang")
    first = entry.partition("\n")[2].split("\nthread ")[0]
    assert first.startswith("thread quintet-slot-1, which has the request:\n")
    assert 'app.py", line' in first
    assert first.index("in app") < first.index("in wait")
    assert "MainThread" in entry
    # It goes on as if nobody had looked.
    assert worker.slots[1].response().body == b"done"
    assert worker.slots[0].get().status == 200


@pytest.mark.every_python
def test_the_supervisor_hears_of_a_process_that_runs_no_python(serve: Serve) -> None:
    worker = serve(APP, threads=2)
    ask(worker, "/hang")
    assert worker.word() == {"type": "hung"}


@pytest.mark.every_python
def test_the_entry_is_one_json_object(serve: Serve) -> None:
    for path in ("/sleep", "/hang"):
        worker = serve(APP, threads=2, log_json=True)
        worker.slots[1].send(target=path, request_id="the-one")
        time.sleep(0.3)
        worker.tell({"type": "dump_stacks", "request_id": "the-one"})
        eventually(lambda worker=worker: worker.stderr().endswith("}\n"))
        entry = json.loads(worker.stderr())
        assert (entry["level"], entry["request_id"]) == ("WARN", "the-one")
        assert entry["stacks"].startswith("thread quintet-slot-1, which has the request:\n")
