"""waitress' functional tests start a server process for each test; here it is quintet, one for each app and settings."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from shims import serving

# waitress' settings in quintet's words, and the least that quintet takes.
_SETTINGS = {
    "max_request_header_size": ("QUINTET_LIMITS_HEADERS_MAX", 1024),
    "max_request_body_size": ("QUINTET_LIMITS_BODY_MAX", 1),
}
# Some tests read until the server closes; where quintet keeps a connection or waits for the rest of a request, that is soon.
_SOON = {f"QUINTET_TIMEOUTS_{name}": "1s" for name in ("HEADER", "BODY", "KEEP_ALIVE")}
# Those that have no counterpart, because quintet does so anyway or never.
_WITHOUT = {
    "trusted_proxy_count",
    "trusted_proxy_headers",
    "clear_untrusted_proxy_headers",
    "expose_tracebacks",
}

# Unix sockets have about 100 bytes of path.
_SOCKETS = Path(tempfile.mkdtemp(prefix="waitress-"))


def _settings(options: dict[str, Any]) -> dict[str, str]:
    env = dict(_SOON)
    for name, value in options.items():
        if name == "trusted_proxy":
            env["QUINTET_PROXY_TRUSTED"] = "127.0.0.0/8,unix" if value == "*" else value
        elif name in _SETTINGS:
            setting, least = _SETTINGS[name]
            env[setting] = str(max(value, least))
        else:
            assert name in _WITHOUT, f"waitress' setting {name} is not known here"
    return env


def _start(self: Any, target: Any, **options: Any) -> None:
    # `target` is a function of tests/fixtureapps: quintet imports it by its name. The site listens on both kinds of sockets.
    name, env = f"{target.__module__}:{target.__name__}", _settings(options)
    path = _SOCKETS / f"{name.replace(':', '.')}.{len(env)}"
    flags = ("--app", name, "--workers", "1", "--threads", "2", "--bind", f"unix:{path}")
    site = serving.site(Path.cwd(), *flags, env=env)
    self.bound_to = str(path) if self.server.family == socket.AF_UNIX else ("127.0.0.1", site.port)
    self.sock = self.create_socket()


def _stop(self: Any) -> None:
    self.sock.close()


def pytest_collection_finish() -> None:
    """The module is imported: its methods that start and stop a server are exchanged."""
    tests = sys.modules["tests.test_functional"]
    tests.SubprocessTests.start_subprocess = _start
    tests.SubprocessTests.stop_subprocess = tests.UnixTests.stop_subprocess = _stop


def pytest_sessionfinish() -> None:
    """The sites end with the run."""
    serving.stop_all()
    shutil.rmtree(_SOCKETS)
