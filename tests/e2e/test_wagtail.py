"""A site that we did not write: `wagtail start`, unmodified, from PyPI."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness import venvs
from harness.data import PNG
from harness.load import Load
from harness.site import Start
from harness.visitor import Visitor

pytestmark = [pytest.mark.network, pytest.mark.timeout(900)]

# Wagtail asks for Django itself; this pair supports each other for years.
REQUIREMENT = "wagtail~=7.0"


@pytest.fixture(scope="session")
def wagtail_python() -> Path:
    """An environment with Wagtail and quintet."""
    return venvs.venv(venvs.interpreters()[-1], REQUIREMENT)


@pytest.fixture
def project(wagtail_python: Path, tmp_path: Path) -> Path:
    """A new site with its database, its static files, and somebody to log in as."""
    directory = tmp_path / "site"
    directory.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    env |= {"DJANGO_SUPERUSER_PASSWORD": "nuages-1940"}

    def run(*command: str, cwd: Path = directory) -> None:
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    python = str(wagtail_python)
    run(str(wagtail_python.parent / "wagtail"), "start", "mysite", ".")
    run(python, "manage.py", "migrate", "-v0")
    run(python, "manage.py", "collectstatic", "--noinput", "-v0")
    run(
        python, "manage.py", "createsuperuser", "--noinput", "--username", "admin", "--email", "a@example.org"
    )
    return directory


def test_a_new_wagtail_site(start: Start, wagtail_python: Path, project: Path) -> None:
    site = start(project, workers=2, program=wagtail_python.parent / "quintet")
    with Visitor(site) as editor:
        assert "Welcome to your new Wagtail site" in editor.open("/").text

        editor.submit("", {"username": "admin", "password": "nuages-1940"}, on="/admin/login/?next=/admin/")
        assert editor.page.status_code == 200
        assert "Welcome" in editor.page.text or "Dashboard" in editor.page.text
        styles = [
            link
            for link in editor.links()
            if link.endswith((".css", ".js")) or ".css?" in link or ".js?" in link
        ]
        assert styles
        for style in styles:
            assert editor.open(style).status_code == 200, style

        editor.submit(
            "/admin/images/add/",
            {"title": "A red one"},
            files={"file": ("red.png", PNG, "image/png")},
            on="/admin/images/add/",
        )
        assert editor.page.status_code == 200
        assert "A red one" in editor.page.text
        shown = [link for link in editor.links() if link.startswith("/media/")]
        assert shown
        assert editor.open(shown[0]).headers["content-type"] == "image/png"

    with Load(site, "/", clients=4) as load:
        load.wait_for(20)
        done = site.reload()
        assert done.returncode == 0, done.stdout + done.stderr
        load.wait_for(20)
    assert load.failures == []
    assert set(load.statuses) == {200}
