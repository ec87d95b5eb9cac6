"""The physical limit of a Django page: the same call, in process, with no server at all.

Run as a script by the project's Python: `bare.py SITE_DIR MODULE:CALLABLE PATH REQUESTS`. It builds the environ a
server builds for wrk's request (wrk sends a Host header and nothing else), calls the app, iterates and closes
the response, and prints the CPU microseconds of one call. The garbage collector is left as in a worker: everything that
lives after the import is frozen, collection stays on.
"""

from __future__ import annotations

import gc
import importlib
import io
import sys
import time
from typing import Any

# Enough calls for caches, lazy imports and database connections to be there.
_WARM_UP = 300


def environ(path: str) -> dict[str, Any]:
    """PEP 3333's variables for `GET path` from the loopback."""
    path, _, query = path.partition("?")
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "bare",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "40000",
        "HTTP_HOST": "127.0.0.1:8000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def main() -> None:
    """Prints one number."""
    directory, name, path, requests = sys.argv[1:5]
    sys.path.insert(0, directory)
    module, _, callable_name = name.partition(":")
    app = getattr(importlib.import_module(module), callable_name)
    statuses: list[str] = []

    def start_response(status: str, _headers: list[tuple[str, str]], _exc_info: object = None) -> None:
        statuses.append(status)

    def call() -> int:
        response = app(environ(path), start_response)
        try:
            return sum(len(part) for part in response)
        finally:
            if hasattr(response, "close"):
                response.close()

    for _ in range(_WARM_UP):
        call()
    if statuses[-1] != "200 OK":
        raise SystemExit(f"{path} answers {statuses[-1]}")
    gc.collect()
    gc.freeze()
    statuses.clear()
    count = int(requests)
    begin = time.process_time()
    for _ in range(count):
        call()
    print((time.process_time() - begin) / count * 1e6)


if __name__ == "__main__":
    main()
