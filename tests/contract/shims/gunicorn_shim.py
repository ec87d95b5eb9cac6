"""gunicorn's suites for ASGI speak to containers; here quintet serves the same apps on loopback ports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from shims import serving

# What the containers are called with.
_FRAMEWORKS = {
    "django": "asgi:application",
    "fastapi": "app:app",
    "starlette": "app:app",
    "quart": "app:app",
    "litestar": "app:app",
    "blacksheep": "app:app",
}


def _compliance(here: Path) -> dict[str, str]:
    """One app over clear text and over TLS: the names of their proxy mean quintet itself, which speaks HTTP/2."""
    flags = ("--app", "apps.main_app:app", "--workers", "1", "--concurrency", "64")
    plain = serving.site(here, *flags)
    env = {
        "QUINTET_TLS_CERTIFICATE": str(here / "certs" / "server.crt"),
        "QUINTET_TLS_KEY": str(here / "certs" / "server.key"),
    }
    secure = serving.site(here, *flags, env=env, tls=serving.unverified())
    clear, encrypted = f"http://127.0.0.1:{plain.port}", f"https://127.0.0.1:{secure.port}"
    return {
        "gunicorn_http": clear,
        "gunicorn_https": encrypted,
        "nginx_http": clear,
        "nginx_https": encrypted,
    }


def _frameworks(here: Path, table: dict[str, dict[str, Any]]) -> None:
    for name, options in table.items():
        flags = ("--app", _FRAMEWORKS[name], "--workers", "1", "--concurrency", "100")
        env = {"DJANGO_SETTINGS_MODULE": "settings"} if name == "django" else {}
        options["port"] = serving.site(here / "frameworks" / f"{name}_app", *flags, env=env).port


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Any:
    """Takes the place of the fixtures that start containers."""
    if fixturedef.argname != "docker_services":
        return None
    here = Path.cwd()
    value = None
    if (here / "frameworks").is_dir():
        _frameworks(here, fixturedef.func.__globals__["FRAMEWORKS"])
    else:
        value = _compliance(here)
    fixturedef.cached_result = (value, fixturedef.cache_key(request), None)
    # A first result ends the asking; None would not.
    return value or os.curdir


def pytest_sessionfinish() -> None:
    """The sites end with the run."""
    serving.stop_all()
