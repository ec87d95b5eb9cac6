"""What a request costs the worker process beyond the bare call of the app: CPU microseconds, side by side.

    python bench/worker_overhead.py [--requests 5000] [--pairs 5] [--app django|plain] [--browser] [--threads 1]

The bare call runs in a process of its own, with the environ the worker would build and the garbage collector as in the
worker: app called, response iterated and closed. The worker is driven over the link by the fake gateway of tests/worker,
one request after the other. Both are measured in turn; medians with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "worker"))

from link import END, HEADER_BYTES, RESPONSE_BODY, Gateway, Worker, encode_frame, encode_request  # noqa: E402

SITE = """
from django.conf import settings
settings.configured or settings.configure(
    SECRET_KEY="bench", ALLOWED_HOSTS=["*"], ROOT_URLCONF="app", DEBUG=False,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
)
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("", lambda request: HttpResponse("Hello, world"))]
django = get_wsgi_application()

def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "12")])
    return [b"Hello, world"]
"""

BARE = """
import gc, json, sys, time, importlib
name, count = sys.argv[1], int(sys.argv[2])
import app as module
app = getattr(module, name)
template = json.loads(sys.argv[3])
template.update({"wsgi.version": (1, 0), "wsgi.errors": sys.stderr, "wsgi.input": __import__("io").BytesIO(b"")})
def start_response(status, headers, exc_info=None): return None
def run(count):
    for _ in range(count):
        response = app(template.copy(), start_response)
        b"".join(response)
        if hasattr(response, "close"): response.close()
run(300)
gc.collect(); gc.freeze()
begin = time.process_time_ns()
run(count)
print((time.process_time_ns() - begin) / count / 1000)
"""

MINIMAL = [("host", "127.0.0.1:8000")]
BROWSER = [
    ("host", "shop.example"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("connection", "keep-alive"),
    ("referer", "https://shop.example/catalogue/?page=2"),
    ("cookie", "csrftoken=wz0rQ2K1v7XWmB5Jc8hYt3nE6uLd9aGf; sessionid=k3j4h5g6f7d8s9a0q1w2e3r4t5y6u7i8"),
    ("upgrade-insecure-requests", "1"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-user", "?1"),
    ("priority", "u=0, i"),
]


LAST = encode_frame(RESPONSE_BODY, b"", END)


def cpu_us(pid: int) -> float:
    """What all threads of a process have run, in microseconds."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1000


def bare_us(name: str, directory: Path, environ: dict[str, str], requests: int) -> float:
    """The bare call, in a process of its own."""
    command = [sys.executable, "-c", BARE, name, str(requests), json.dumps(environ)]
    return float(subprocess.check_output(command, cwd=directory, text=True))


def worker_us(worker: Worker, request: bytes, requests: int) -> float:
    """A request on each slot at a time, again and again."""
    streams = [slot.stream for slot in worker.slots]
    for stream in streams:
        stream.settimeout(None)

    def run(count: int) -> None:
        for _ in range(count // len(streams)):
            for stream in streams:
                stream.sendall(request)
            for stream in streams:
                answer = stream.recv(65536)
                # One frame, or the end a moment later when the machine was busy: see exchange.rs.
                while answer[-HEADER_BYTES:] != LAST and answer[5] != END:
                    answer += stream.recv(65536)

    run(300)
    before = cpu_us(worker.process.pid)
    run(requests)
    return (cpu_us(worker.process.pid) - before) / requests


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--app", choices=["django", "plain"], default="django")
    parser.add_argument("--browser", action="store_true", help="send the headers that a browser sends")
    parser.add_argument("--threads", type=int, default=1, help="slots that are busy at the same time")
    options = parser.parse_args()
    headers = BROWSER if options.browser else MINIMAL
    request = encode_request(headers=headers)
    version = subprocess.check_output(
        [sys.executable, "-c", "import quintet; print(quintet.__version__)"],
        text=True,
        cwd=ROOT / "python",
    ).strip()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "app.py").write_text(SITE)
        gateway = Gateway(directory / "link.sock")
        start = {"version": version, "wsgi": f"app:{options.app}", "threads": options.threads}
        worker = Worker(gateway, directory, sys.executable, [ROOT / "python"], start)
        worker.ready()
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "RAW_URI": "/",
            "REQUEST_URI": "/",
            "SERVER_NAME": "shop.example",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.7",
            "REMOTE_PORT": "50123",
            "wsgi.url_scheme": "http",
            **{"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers},
        }
        bare, ours = [], []
        for _ in range(options.pairs):
            bare.append(bare_us(options.app, directory, environ, options.requests))
            ours.append(worker_us(worker, request, options.requests))
        worker.stop()
        gateway.close()
    show("bare call", bare)
    show("worker", ours)
    overhead = [b - a for a, b in zip(bare, ours, strict=True)]
    show("overhead", overhead)
    ratio = statistics.median(b / a for a, b in zip(bare, ours, strict=True))
    print(f"worker / bare call: {ratio:.3f} (median of {options.pairs} pairs)")


def show(name: str, figures: list[float]) -> None:
    """One line."""
    median, low, high = statistics.median(figures), min(figures), max(figures)
    print(f"{name:<10} {median:7.1f} us/request  ({low:.1f} to {high:.1f})")


if __name__ == "__main__":
    main()
