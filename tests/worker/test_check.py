"""`quintet check` inside the project's Python: what it finds in small Django projects."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SETTINGS = """
SECRET_KEY = "a" * 10 + "bcdefghijklmnopqrstuvwxyz" * 3
ALLOWED_HOSTS = ["shop.example"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.staticfiles"]
STATIC_URL = "/static/"
STATIC_ROOT = "static-root"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
"""

Check = Callable[..., dict[str, Any]]


@pytest.fixture
def check(tmp_path: Path, package_dir: Path, django_5_2: Path) -> Check:
    """`check(settings)`: what quintet._check says of a project with these lines after the common ones."""

    def run(more: str = "", **asked: Any) -> dict[str, Any]:
        (tmp_path / "settings.py").write_text(SETTINGS + more)
        (tmp_path / "urls.py").write_text("urlpatterns = []\n")
        start = {
            "dir": str(tmp_path),
            "app": None,
            "settings": "settings",
            "workers": 2,
            "threads": 4,
            "connections": {"wsgi": 8, "asgi": 32},
            **asked,
        }
        path = os.pathsep.join([str(package_dir), str(django_5_2)])
        environment = {**os.environ, "PYTHONPATH": path, "QUINTET_CHECK": json.dumps(start)}
        command = [sys.executable, "-m", "quintet._check"]
        done = subprocess.run(
            command, env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=True
        )
        return json.loads(done.stdout)

    return run


def about(answer: dict[str, Any], subject: str) -> list[tuple[str, str]]:
    """Level and text of the findings about something."""
    return [(found["level"], found["text"]) for found in answer["findings"] if found["about"] == subject]


def test_a_project_that_is_ready(check: Check, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "db.sqlite3")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    (tmp_path / "static-root").mkdir()
    (tmp_path / "static-root" / "site.css").write_text("")
    answer = check("INSTALLED_APPS = ['django.contrib.staticfiles']\n")
    assert answer["app"]["app"] == "django.core.wsgi:get_wsgi_application"
    assert {found["level"] for found in answer["findings"]} == {"ok"}, answer["findings"]


def test_what_the_app_prints_is_not_the_answer(check: Check) -> None:
    assert "app" in check("print('hello from settings')\nimport os\nos.system('echo hello from a child')\n")


def test_an_app_that_cannot_be_imported(check: Check) -> None:
    answer = check("import nowhere\n")
    assert "nowhere" in answer["failure"]["message"]
    assert "import nowhere" in answer["failure"]["traceback"]
    assert "_check.py" not in answer["failure"]["traceback"]


def test_settings_that_answer_nobody_or_trust_everybody(check: Check) -> None:
    assert about(check("ALLOWED_HOSTS = []\n"), "settings")[0][0] == "fail"
    assert about(check("ALLOWED_HOSTS = ['*']\n"), "settings")[0][0] == "warn"
    assert about(check("DEBUG = True\n"), "settings") == [
        ("warn", "DEBUG is on: errors show visitors your code and settings")
    ]
    levels = [level for level, _ in about(check("SECRET_KEY = 'django-insecure-x'\n"), "settings")]
    assert levels == ["ok", "warn"]


def test_static_files_that_were_not_collected(check: Check) -> None:
    assert about(check(), "static")[0][0] == "fail"
    assert about(check("STATIC_ROOT = None\n"), "static")[0][0] == "fail"
    assert about(check("DEBUG = True\n"), "static")[0][0] == "ok"


def test_sessions_in_a_cache_that_is_not_shared(check: Check) -> None:
    lines = "SESSION_ENGINE = 'django.contrib.sessions.backends.cache'\n"
    assert about(check(lines), "cache")[0][0] == "fail"
    assert about(check(lines, workers=1), "cache") == []


def test_a_database_file_that_is_not_there_is_not_made(check: Check, tmp_path: Path) -> None:
    ((level, text),) = about(check(), "database")
    assert (level, "does not exist" in text) == ("fail", True)
    assert not (tmp_path / "db.sqlite3").exists()


def test_migrations_that_are_not_applied(check: Check, tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "db.sqlite3").execute("CREATE TABLE t (x)")
    findings = about(check(), "database")
    assert [level for level, _ in findings] == ["ok", "warn", "warn"]
    assert "migrations are not applied: contenttypes.0001_initial" in findings[1][1]
    assert "8 requests may write at once" in findings[2][1]


def test_a_database_that_does_not_answer(check: Check) -> None:
    database = "{'default': {'ENGINE': 'silent', 'NAME': 'x'}}"
    answer = check(
        f"""
import sys, threading, types
from django.db.backends.dummy import base

class DatabaseWrapper(base.DatabaseWrapper):
    def ensure_connection(self):
        threading.Event().wait()

sys.modules["silent"] = types.ModuleType("silent")
sys.modules["silent.base"] = types.ModuleType("silent.base")
sys.modules["silent.base"].DatabaseWrapper = DatabaseWrapper
sys.modules["silent"].base = sys.modules["silent.base"]
DATABASES = {database}
from quintet import _check_database
_check_database.DATABASE_PATIENCE_S = 0.2
"""
    )
    assert about(answer, "database") == [("fail", "default: no answer within 0 s")]
