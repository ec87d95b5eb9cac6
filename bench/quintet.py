"""quintet as a user starts it: `quintet run PROJECT`, with the numbers of workers and threads the rivals get."""

from __future__ import annotations

from pathlib import Path

from bench import places, processes
from bench.load import CONNECTIONS
from bench.rivals import Certificate
from bench.stacks import Site, Stack, free_port


def start(
    site: Site, work: Path, certificate: Certificate | None = None, config: Path | None = None
) -> Stack:
    """Plain on one port; with a certificate the port speaks TLS. `config`: another file than the site's own."""
    port = free_port()
    env = {
        "QUINTET_SERVER_RUNTIME_DIR": str(work / "run"),
        # As nginx is told: a run's keep-alive connections live longer than the run.
        "QUINTET_TIMEOUTS_KEEP_ALIVE": "3600s",
        # A closed loop that never pauses is overload, of which quintet would refuse a part to serve the rest in time.
        # The rivals let everybody wait; so does quintet where throughput is measured. The scenario `overload` is about
        # the other way.
        "QUINTET_QUEUE_DISCIPLINE": "fifo",
        **site.environment,
        "QUINTET_APP_PYTHON": str(places.PROJECT_PYTHON),
    }
    if certificate:
        env |= {"QUINTET_TLS_CERTIFICATE": str(certificate[0]), "QUINTET_TLS_KEY": str(certificate[1])}
    command = [
        places.quintet(),
        "run",
        site.directory,
        "--bind",
        f"127.0.0.1:{port}",
        "--workers",
        str(site.workers),
    ]
    if config:
        command += ["--config", str(config)]
    if site.asgi:
        # As many as wrk has connections: the rivals know no limit.
        command += ["--app", site.wsgi, "--interface", "asgi", "--concurrency", str(CONNECTIONS)]
        # Idle WebSockets of the scenario, all on one worker if it comes to that.
        env["QUINTET_WORKERS_LONG_LIVED_MAX"] = "8192"
    else:
        command += ["--threads", str(site.threads)]
    tree = processes.start("quintet", command, work / "quintet.log", env=env)
    return Stack("quintet", [tree], port, tls_port=port if certificate else None)
