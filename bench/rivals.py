"""The rivals, each started the way its documentation recommends for this number of workers and threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bench import nginx, processes
from bench.places import RIVALS_VENV, STATIC, WORK
from bench.processes import Tree
from bench.stacks import Site, Stack, free_port

Certificate = tuple[Path, Path]
Start = Callable[[Site, Path], Stack]

_BIN = RIVALS_VENV / "bin"


def workdir(scenario: str, name: str) -> Path:
    """A stack's own directory; unix sockets in it stay below the 107 bytes of sun_path."""
    directory = WORK / scenario / name.replace("+", "-")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _gunicorn(site: Site, work: Path, kind: str, *more: str) -> tuple[Tree, str]:
    socket = work / "gunicorn.sock"
    command = [
        _BIN / "gunicorn",
        site.wsgi,
        "--chdir",
        site.directory,
        "--bind",
        f"unix:{socket}",
        "--workers",
        site.workers,
        "--worker-class",
        kind,
        # A heartbeat file on a disk may block a worker (gunicorn's FAQ).
        "--worker-tmp-dir",
        "/dev/shm",
        "--pid",
        work / "gunicorn.pid",
        "--no-control-socket",
        *more,
    ]
    if kind == "gthread":
        # A keep-alive time above nginx's, so that the app never closes a connection that nginx is about to use.
        command += ["--threads", site.threads, "--keep-alive", "7200"]
    return processes.start(
        "gunicorn", _words(command), work / "gunicorn.log", env=site.environment
    ), f"unix:{socket}"


def nginx_gunicorn(site: Site, work: Path, *more: str) -> Stack:
    """The usual nginx in front of gunicorn's sync workers: the set-up of most Django tutorials."""
    app, server = _gunicorn(site, work, "sync", *more)
    return behind_nginx("nginx+gunicorn", site, work, app, nginx.proxy(server, keepalive=False))


def nginx_gunicorn_threads(site: Site, work: Path) -> Stack:
    """The usual nginx in front of gunicorn's gthread workers, with keep-alive between them."""
    app, server = _gunicorn(site, work, "gthread")
    return behind_nginx("nginx+gunicorn", site, work, app, nginx.proxy(server, keepalive=True))


def _granian(site: Site, work: Path, *listen: str) -> Tree:
    command = [
        _BIN / "granian",
        "--interface",
        "wsgi",
        *listen,
        "--workers",
        site.workers,
        "--blocking-threads",
        site.threads,
        # Without HTTP/2 and WebSockets it takes the shortest way; one runtime thread a worker is its default.
        "--http",
        "1",
        "--no-ws",
        "--runtime-mode",
        "st",
        "--backlog",
        "2048",
        "--log-level",
        "warning",
        "--working-dir",
        site.directory,
        site.wsgi,
    ]
    return processes.start("granian", _words(command), work / "granian.log", env=site.environment)


def granian(site: Site, work: Path) -> Stack:
    """Granian alone, clients connect to it."""
    port = free_port()
    return Stack("granian", [_granian(site, work, "--host", "127.0.0.1", "--port", str(port))], port)


def nginx_granian(site: Site, work: Path) -> Stack:
    """The usual nginx in front of Granian, over a unix socket with keep-alive."""
    socket = work / "granian.sock"
    socket.unlink(missing_ok=True)
    app = _granian(site, work, "--uds", str(socket))
    return behind_nginx("nginx+granian", site, work, app, nginx.proxy(f"unix:{socket}", keepalive=True))


def nginx_uwsgi(site: Site, work: Path) -> Stack:
    """The usual nginx in front of uWSGI (built from its source for the project's Python), over its own protocol."""
    socket = work / "uwsgi.sock"
    app = start_uwsgi(site, work, socket, site.workers)
    return behind_nginx("nginx+uwsgi", site, work, app, nginx.uwsgi(f"unix:{socket}"))


def start_uwsgi(
    site: Site, work: Path, socket: Path, processes_max: int, more: Sequence[object] = ()
) -> Tree:
    """uWSGI on a unix socket."""
    command = [
        _BIN / "uwsgi",
        "--master",
        "--strict",
        "--need-app",
        "--die-on-term",
        "--single-interpreter",
        "--vacuum",
        "--socket",
        socket,
        "--listen",
        "1024",
        "--chdir",
        site.directory,
        "--module",
        site.wsgi,
        "--virtualenv",
        RIVALS_VENV,
        "--processes",
        processes_max,
        "--disable-logging",
        "--thunder-lock",
        "--buffer-size",
        "16384",
        *more,
    ]
    if site.threads > 1:
        command += ["--enable-threads", "--threads", site.threads]
    return processes.start("uwsgi", _words(command), work / "uwsgi.log", env=site.environment)


def nginx_alone(
    _site: Site, work: Path, certificate: Certificate | None = None, connections: int = nginx.CONNECTIONS
) -> Stack:
    """Only nginx, for the static files only."""
    port, tls_port = free_port(), free_port() if certificate else None
    tree = nginx.start(work, port, tls_port=tls_port, certificate=certificate, connections=connections)
    return Stack("nginx", [tree], port, tls_port=tls_port)


def haproxy(_site: Site, work: Path, connections: int = 16_000) -> Stack:
    """HAProxy that answers by itself: the idle connections are what is measured."""
    port = free_port()
    # By itself it wants two descriptors for each of maxconn, for a connection behind that never comes here.
    config = work / "haproxy.cfg"
    config.write_text(f"""\
global
  maxconn {connections}
  ulimit-n 19900
  no strict-limits
  nbthread 2
defaults
  mode http
  timeout client 3600s
  timeout server 60s
  timeout connect 5s
  timeout http-request 30s
  timeout http-keep-alive 3600s
frontend web
  bind 127.0.0.1:{port} backlog 2048
  http-request return status 200 content-type text/plain string "Hello, world!"
""")
    tree = processes.start("haproxy", ["haproxy", "-db", "-f", str(config)], work / "haproxy.log")
    return Stack("haproxy", [tree], port)


def behind_nginx(name: str, site: Site, work: Path, app: Tree, joined: dict[str, str]) -> Stack:
    """nginx on the port that clients use, the app behind it."""
    port = free_port()
    front = nginx.start(
        work, port, static_url=site.static_url, static_root=site.static_root or STATIC, **joined
    )
    return Stack(name, [app, front], port)


def _words(command: list[object]) -> list[str | Path]:
    return [str(word) for word in command]
