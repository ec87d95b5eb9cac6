"""Quintet for the shims: one site for each app and settings, started when first asked for, ended with the run."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from harness.site import Site

_sites: dict[Any, Site] = {}


def site(project: Path, *flags: str, env: dict[str, str] | None = None, **options: Any) -> Site:
    """A site that is ready. The same arguments give the same one."""
    key = (project, flags, tuple(sorted((env or {}).items())), tuple(sorted(options.items())))
    if key not in _sites:
        found = Site(project, flags=flags, env=env, **options)
        found.start()
        _sites[key] = found
    return _sites[key]


def stop(found: Site) -> None:
    """Ends one of them now."""
    for key in [key for key, one in _sites.items() if one is found]:
        del _sites[key]
    found.close()


def stop_all() -> None:
    """Their logs are full of what the suites provoke; only processes left behind would be wrong."""
    left = [line for one in _sites.values() for line in one.close() if line.startswith("left behind")]
    _sites.clear()
    assert not left, left


def unverified() -> ssl.SSLContext:
    """For sites whose certificate the suite made for itself."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
