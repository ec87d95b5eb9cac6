"""`python -m quintet.worker`: a worker process, started by `quintet run`; or the template that workers are forked from.

Imports the app, tells the supervisor what it found, and serves until it is told to stop. What happens for each request
is in the compiled half (`quintet._core`); nothing here runs then.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quintet import _app, _collect, _connections, _core, _django, _hooks, _stacks, _template
from quintet._control import EXIT_CONFIG, EXIT_SOFTWARE, Control
from quintet._log import Log


def main() -> int:
    """The whole life of the process; the result is its exit status."""
    signal.signal(signal.SIGINT, let_pass)
    start_json = os.environ.pop("QUINTET_WORKER", None)
    control_fd = os.environ.pop("QUINTET_CONTROL_FD", None)
    if start_json is None or control_fd is None:
        print(
            "error: a worker is started by `quintet run`, not by hand\n"
            "hint: quintet run [PROJECT_DIR], or quintet check to see whether the project would run",
            file=sys.stderr,
        )
        return EXIT_CONFIG
    start = json.loads(start_json)
    control = Control(int(control_fd))
    control.leave_with_supervisor()
    if start["version"] != _core.__version__:
        return fail(control, version_mismatch(start["version"]))
    faulthandler.enable()
    # What a view prints is seen at once, also when a file or a pipe takes it.
    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    enter(start["dir"])
    try:
        app, report = _app.load(start)
    except BaseException as error:  # noqa: BLE001 (SystemExit at import is a failed import, too)
        return fail(control, _app.explain(error, start))
    unfit = _template.calm() if start.get("template") else ""
    # What lives by now lives for ever: the garbage collector need not look at it again, and the pages that it would
    # write to stay shared with the other workers.
    gc.collect()
    gc.freeze()
    if start.get("template"):
        control.tell({"type": "ready", "app": report, "unfit": unfit})
        # From here on this is a worker, in a process of its own or in this one.
        start, control = _template.wait(control)
        control.leave_with_supervisor()
    return work(start, control, app, report)


def work(start: dict[str, Any], control: Control, app: Any, report: dict[str, Any]) -> int:
    """A worker with its app imported: says that it is ready, and serves."""
    try:
        _hooks.run()
    except BaseException as error:  # noqa: BLE001 (as for the import)
        return fail(control, _app.explain(error, start, "a postfork hook failed"))
    log = Log(start["worker"], start["log_json"])
    if _django.is_used():
        _django.log_unheard_exceptions(log.exchange)
    worker = _core.Worker(
        control_fd=control.release(),
        link=start["link"],
        token=start["token"],
        worker=start["worker"],
        generation=start["generation"],
        slots=start["threads"],
        pool=start.get("pool", 0),
    )

    def stop(*_: object) -> None:
        worker.stop()

    signal.signal(signal.SIGTERM, stop)
    watch_forks(worker, stop)
    _stacks.install(worker, log)
    is_asgi = report["interface"] == "asgi"
    slots = max(1, start.get("concurrency") or 1) if is_asgi else start["threads"]
    if _django.is_used():
        _connections.watch(slots, lambda most: worker.tell(json.dumps({"type": "connections", "most": most})))
    if is_asgi:
        from quintet import _asgi

        return _asgi.serve(worker, app, report, log, start, slots)
    worker.tell(json.dumps({"type": "ready", "app": report}))
    after = _collect.Between(worker.somebody_waits) if start.get("gc_between") else None
    return serve(worker, app, log, slots, after)


def enter(directory: str) -> None:
    """Makes the project the current directory and the first place to import from."""
    before = str(Path.cwd())
    os.chdir(directory)
    # `python -m` has put the directory it was started in there, unless it was told not to (-P).
    if sys.path and sys.path[0] in ("", before):
        sys.path[0] = directory
    else:
        sys.path.insert(0, directory)


def serve(
    worker: _core.Worker, app: Any, log: Log, slots: int, after: Callable[[], None] | None = None
) -> int:
    """One thread a slot, until all are retired or told to stop."""
    failures = []

    def slot(index: int) -> None:
        try:
            worker.slot(index, app, log.exchange, after)
        except BaseException as error:  # noqa: BLE001 (it must not end without a word)
            log.write("ERROR", "a slot of the worker failed", {"slot": str(index)}, error)
            failures.append(index)
            worker.stop()

    threads = [
        threading.Thread(target=slot, args=(index,), name=f"quintet-slot-{index}", daemon=True)
        for index in range(slots)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if worker.refusal is not None:
        log.write("ERROR", "the gateway refused this worker", {"detail": worker.refusal})
        return EXIT_SOFTWARE
    return EXIT_SOFTWARE if failures else 0


def let_pass(*_: object) -> None:
    """Ctrl-C is the supervisor's business.

    A handler that does nothing instead of "ignore": programs that the app starts would inherit that, and could not be interrupted.
    """


def watch_forks(worker: _core.Worker, stop: Callable[..., None]) -> None:
    """A child that the app forks is no worker.

    It must not hold the worker's sockets, or nobody would see the worker die. And it can be ended and interrupted like any
    process: `Process.terminate()` and the pools of `multiprocessing` wait until it is.
    """
    ours = {signal.SIGTERM: (stop, signal.SIG_DFL), signal.SIGINT: (let_pass, signal.default_int_handler)}
    # Held back while the child still has our handlers: it would forget a signal that comes then.
    masks = threading.local()

    def before() -> None:
        masks.was = signal.pthread_sigmask(signal.SIG_BLOCK, ours)

    def after() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.was)

    def in_child() -> None:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for number in worker.forked():
            os.dup2(nothing, number, inheritable=False)
        os.close(nothing)
        for number, (handler, default) in ours.items():
            # The app may have one of its own by now.
            if signal.getsignal(number) is handler:
                signal.signal(number, default)
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=in_child)


def version_mismatch(binary: str) -> dict[str, str]:
    """The binary and this package must be of one build."""
    return {
        "message": f"the quintet program is {binary}, the Python package is {_core.__version__}",
        "traceback": "",
        "hint": f"install both together: {sys.executable} -m pip install --force-reinstall quintet=={binary}",
    }


def fail(control: Control, failure: dict[str, str]) -> int:
    """Tells the supervisor why this worker cannot serve."""
    control.tell({"type": "failed", **failure})
    return EXIT_CONFIG


if __name__ == "__main__":
    sys.exit(main())
