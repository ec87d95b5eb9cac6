"""How a worker begins and ends, and what it does without a gateway or a supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from workers import Serve, eventually

HELLO = """
    import atexit, os, pathlib, time, threading
    atexit.register(lambda: pathlib.Path("atexit").touch())
    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/slow":
            pathlib.Path("begun").touch()
            time.sleep(0.3)
        if path == "/stuck":
            pathlib.Path("begun").touch()
            time.sleep(600)
        start_response("200 OK", [])
        return [b"hello from " + threading.current_thread().name.encode()]
"""


@pytest.mark.every_python
def test_hello_names_worker_and_slot(serve: Serve, package_version: str) -> None:
    worker = serve(HELLO, threads=3, worker=7, generation=4, token="a secret")
    for number, slot in enumerate(worker.slots):
        assert slot.hello == {
            "version": package_version,
            "worker": 7,
            "generation": 4,
            "channel": "slot",
            "pool": 0,
            "slot": number,
            "slots": 3,
            "pid": worker.process.pid,
            "token": "a secret",
        }
        assert slot.get().body.startswith(b"hello from quintet-slot-")


@pytest.mark.every_python
def test_retired_slots_end_the_worker_in_order(serve: Serve, tmp_path: Path) -> None:
    worker = serve(HELLO, threads=2)
    worker.slots[0].retire()
    assert worker.slots[0].is_closed()
    assert worker.slots[1].get().status == 200
    assert worker.process.poll() is None
    worker.slots[1].retire()
    assert worker.wait() == 0
    assert (tmp_path / "atexit").exists()
    assert worker.stderr() == ""


def test_slots_serve_at_the_same_time(serve: Serve) -> None:
    worker = serve(
        """
        import threading
        meeting = threading.Barrier(3)
        def app(environ, start_response):
            # Nobody leaves before all three are here.
            meeting.wait(60)
            start_response("200 OK", [])
            return [b"met"]
        """,
        threads=3,
    )
    for slot in worker.slots:
        slot.send()
    for slot in worker.slots:
        assert slot.response().body == b"met"


def test_the_worker_leaves_with_its_supervisor_even_when_it_is_stuck(serve: Serve, tmp_path: Path) -> None:
    worker = serve(
        """
        import pathlib, re
        def app(environ, start_response):
            pathlib.Path("begun").touch()
            # Holds the GIL all the time.
            re.match("(a+)+$", "a" * 50 + "b")
        """
    )
    worker.slot.send()
    eventually((tmp_path / "begun").exists)
    worker.lines.close()
    worker.control.close()
    assert worker.wait() == 70


@pytest.mark.parametrize("how", ["exit", "sigterm"])
def test_told_to_stop_it_finishes_what_it_has(serve: Serve, tmp_path: Path, how: str) -> None:
    worker = serve(HELLO, threads=2)
    busy, idle = worker.slots
    busy.send(target="/slow")
    eventually((tmp_path / "begun").exists)
    if how == "exit":
        worker.tell({"type": "exit"})
    else:
        worker.process.send_signal(signal.SIGTERM)
    assert idle.is_closed()
    assert busy.response().body.startswith(b"hello from")
    assert busy.is_closed()
    assert worker.wait() == 0
    assert (tmp_path / "atexit").exists()
    assert worker.stderr() == ""


def test_a_request_that_was_sent_before_the_stop_is_served(serve: Serve, tmp_path: Path) -> None:
    worker = serve(HELLO)
    worker.slot.send(target="/slow")
    eventually((tmp_path / "begun").exists)
    worker.slot.send(target="/queued")
    worker.tell({"type": "exit"})
    assert worker.slot.response().status == 200
    assert worker.slot.response().status == 200
    assert worker.slot.is_closed()
    assert worker.wait() == 0


def test_control_c_is_not_for_workers(serve: Serve) -> None:
    worker = serve(HELLO)
    worker.process.send_signal(signal.SIGINT)
    assert worker.slot.get().status == 200


def test_what_the_app_starts_can_be_interrupted(serve: Serve) -> None:
    """A signal that is ignored stays so in programs that are executed: Python and shells then never hear of it."""
    worker = serve(
        """
        import subprocess, sys
        def app(environ, start_response):
            start_response("200 OK", [])
            code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
            return [subprocess.check_output([sys.executable, "-c", code])]
        """
    )
    assert worker.slot.get().body == b"True\n"


@pytest.mark.every_python
def test_a_gateway_that_died_is_met_again(serve: Serve) -> None:
    worker = serve(HELLO, threads=2)
    for _ in range(3):
        for slot in worker.slots:
            slot.close()
        worker.slots = [worker.gateway.accept().welcome() for _ in range(2)]
        assert sorted(slot.hello["slot"] for slot in worker.slots) == [0, 1]
        for slot in worker.slots:
            assert slot.get().status == 200
    assert worker.stderr() == ""


def test_a_gateway_that_dies_in_an_exchange(serve: Serve, tmp_path: Path) -> None:
    worker = serve(
        """
        import pathlib, time
        class Body:
            def __iter__(self):
                yield b"first"
                for _ in range(50):
                    time.sleep(0.01)
                    yield b"x"
                pathlib.Path("went on for nobody").touch()
            def close(self):
                pathlib.Path("closed").touch()
        def app(environ, start_response):
            start_response("200 OK", [])
            return Body()
        """
    )
    worker.slot.send()
    worker.slot.frame()
    worker.slot.close()
    worker.slots = [worker.gateway.accept().welcome()]
    assert (tmp_path / "closed").exists()
    assert not (tmp_path / "went on for nobody").exists()
    assert worker.stderr() == ""


def test_no_gateway_for_a_while(serve: Serve, tmp_path: Path) -> None:
    worker = serve(HELLO)
    worker.gateway.close()
    (tmp_path / "link.sock").unlink()
    worker.slot.close()
    time.sleep(0.3)
    worker.gateway.__init__(tmp_path / "link.sock")  # type: ignore[misc]
    worker.slots = [worker.gateway.accept().welcome()]
    assert worker.slot.get().status == 200


def test_stopped_while_there_is_no_gateway(serve: Serve, tmp_path: Path) -> None:
    worker = serve(HELLO, threads=2)
    worker.slots[0].close()
    # Nobody answers this one's hello.
    unanswered = worker.gateway.accept()
    worker.gateway.close()
    (tmp_path / "link.sock").unlink()
    worker.slots[1].close()
    worker.tell({"type": "exit"})
    assert worker.wait() == 0
    unanswered.close()


def test_a_refused_worker_says_why_and_exits(start_worker: Serve) -> None:
    worker = start_worker(HELLO, threads=2)
    assert worker.word()["type"] == "ready"
    worker.gateway.accept().refuse("this token is not mine")
    assert worker.wait() == 70
    assert 'detail="this token is not mine"' in worker.stderr()


def test_another_version_is_refused(start_worker: Serve) -> None:
    worker = start_worker(HELLO, version="9.9.9")
    word = worker.word()
    assert word["type"] == "failed"
    assert word["message"].startswith("the quintet program is 9.9.9, the Python package is ")
    assert "quintet==9.9.9" in word["hint"]
    assert worker.wait() == 78


def test_by_hand_it_says_who_starts_it(python: str, package_dir: Path) -> None:
    environment = {"PYTHONPATH": str(package_dir), "PATH": os.environ["PATH"]}
    command = [python, "-m", "quintet.worker"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 78
    assert "quintet run" in told.stderr


def test_the_app_sees_no_secrets_in_its_environment(serve: Serve) -> None:
    worker = serve(
        """
        import json, os, sys
        def app(environ, start_response):
            start_response("200 OK", [])
            return [json.dumps([[k for k in os.environ if k.startswith("QUINTET")], os.getcwd(), sys.path[0]]).encode()]
        """
    )
    names, cwd, first = json.loads(worker.slot.get().body)
    assert names == []
    assert cwd == first
    assert Path(cwd, "app.py").exists()


@pytest.mark.every_python
def test_a_child_of_the_app_does_not_hold_the_link(serve: Serve, tmp_path: Path) -> None:
    worker = serve(
        """
        import os, subprocess, time
        def app(environ, start_response):
            if environ["PATH_INFO"] == "/fork":
                child = os.fork()
                if child == 0:
                    time.sleep(600)
            elif environ["PATH_INFO"] == "/come-back":
                child = os.fork()
            else:
                child = subprocess.Popen(["sleep", "600"]).pid
            start_response("200 OK", [])
            return [str(child).encode()]
        """
    )
    children = [int(worker.slot.get(path).body) for path in ("/fork", "/spawn", "/come-back")]
    try:
        # The child that came back out of the app has left without a word.
        assert worker.slot.get("/come-back").body.isdigit()
        worker.process.kill()
        assert worker.slot.is_closed()
        assert worker.lines.readline() == ""
    finally:
        for child in children[:2]:
            os.kill(child, signal.SIGKILL)


@pytest.mark.every_python
def test_children_of_forks_end_like_any_process(serve: Serve) -> None:
    worker = serve(
        """
        import multiprocessing, os, signal, time
        fork = multiprocessing.get_context("fork")
        def wait(pipe):
            pipe.send(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
            time.sleep(600)
        def app(environ, start_response):
            ours, theirs = fork.Pipe()
            child = fork.Process(target=wait, args=(theirs,), daemon=True)
            child.start()
            # At once, or when it has settled.
            settled = environ["PATH_INFO"] == "/settled"
            interruptible = ours.recv() if settled else None
            child.terminate()
            child.join(5)
            ended = child.exitcode
            if ended is None: child.kill()
            start_response("200 OK", [])
            return [f"{ended} {interruptible}".encode()]
        """
    )
    # Only asked for: a SIGINT may go unheard in what CPython 3.13.0 forks in a thread, without us as well.
    assert worker.slot.get("/settled").body == b"-15 True"
    for _ in range(20):
        assert worker.slot.get("/at-once").body == b"-15 None"
    # The worker itself is told in the same way as before.
    worker.process.send_signal(signal.SIGTERM)
    assert worker.slot.is_closed()
    assert worker.wait() == 0


def test_one_slow_close_does_not_stop_the_other_slots(serve: Serve) -> None:
    worker = serve(HELLO, threads=2)
    worker.slots[0].send(target="/slow")
    done = threading.Event()

    def ask() -> None:
        for _ in range(50):
            worker.slots[1].get()
        done.set()

    threading.Thread(target=ask, daemon=True).start()
    assert done.wait(5)
    assert worker.slots[0].response().status == 200
