"""A quintet in front of other servers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from harness import places
from harness.site import Site, Start


def front(start: Start, directory: Path, upstreams: dict[str, tuple[list[str], str]], **options: Any) -> Site:
    """The plain app, and below /NAME/ each upstream: its servers and further lines of its table."""
    project = directory / "front"
    project.mkdir()
    shutil.copy(places.APPS / "plain" / "plain.py", project)
    tables = [
        f"""
[[upstream]]
name = "{name}"
servers = {json.dumps(servers)}
{more}

[[route]]
path = "/{name}/*"
strip_prefix = "/{name}"
upstream = "{name}"
"""
        for name, (servers, more) in upstreams.items()
    ]
    (project / "quintet.toml").write_text("\n".join(tables))
    return start(project, flags=("--app", "plain:application"), **options)
