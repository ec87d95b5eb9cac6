"""`quintet dev`: what is seen is what was saved."""

from __future__ import annotations

import concurrent.futures
import time
from pathlib import Path

import httpx
import pytest

from harness.processes import wait_until
from harness.site import Site, Start

SETTINGS = """
from pathlib import Path
HERE = Path(__file__).parent
DEBUG = True
SECRET_KEY = "for nobody"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = []
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": HERE / "db.sqlite3"}}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [HERE / "templates"]}]
"""

URLS = """
from django.urls import path
import views
urlpatterns = [path(name, getattr(views, name or "home")) for name in ("", "page", "queries", "boom", "slow")]
"""

VIEWS = """
import time
from django.db import connection
from django.http import HttpResponse
from django.shortcuts import render

def home(request):
    return HttpResponse("first")

def page(request):
    return render(request, "page.html")

def queries(request):
    with connection.cursor() as cursor:
        for number in range(21):
            cursor.execute("select %s", [number])
        cursor.execute("select 1 + 1")
    return HttpResponse("ok")

def boom(request):
    raise RuntimeError("a view that fails")

def slow(request):
    time.sleep(0.6)
    return HttpResponse("first, slowly")
"""


class Project:
    """A small Django project that is being written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "templates").mkdir()
        self.write(
            "manage.py", 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "project_settings")\n'
        )
        self.write("project_settings.py", SETTINGS)
        self.write("urls.py", URLS)
        self.write("views.py", VIEWS)
        self.write("templates/page.html", "an old page")

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def says(self, word: str) -> None:
        """Saves a view that answers with another word."""
        self.write("views.py", VIEWS.replace("first", word))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def site(start: Start, project: Project) -> Site:
    return start(project.directory, command="dev")


def seen(site: Site, text: str) -> None:
    """Soon: when a save is noticed depends on how busy the machine is."""
    wait_until(lambda: site.get("/").text == text, 10, f"{text!r} to be seen")


def restarts(site: Site) -> int:
    return site.log.count("has changed: restarting")


def test_the_next_request_after_a_save_is_answered_by_the_new_code(site: Site, project: Project) -> None:
    assert site.get("/").text == "first"
    # As long as before and within the same second, which is all that Python's compiled files know of their source.
    for number in range(8):
        before = restarts(site)
        project.says(f"word {number}")
        wait_until(lambda before=before: restarts(site) > before, 10, "a restart")
        assert site.get("/").text == f"word {number}"
    # An editor that writes a new file and gives it the name of the old one.
    project.write("views.py.new", VIEWS.replace("first", "renamed"))
    (project.directory / "views.py.new").rename(project.directory / "views.py")
    seen(site, "renamed")


@pytest.mark.alone
def test_a_restart_begins_soon_and_ends_soon(site: Site, project: Project) -> None:
    """100 ms until it begins, and what the import takes until it ends; the machine of the tests may be busy."""
    times = []
    for count, word in enumerate(("second", "third", "fourth"), 1):
        began = time.monotonic()
        project.says(word)
        wait_until(lambda count=count: restarts(site) >= count, 2, "a restart")
        times.append(time.monotonic() - began)
        seen(site, word)
    assert min(times) < 0.15, times


def test_many_files_at_once_are_one_restart(site: Site, project: Project) -> None:
    for number in range(300):
        project.write(f"module{number}.py", "")
    project.says("second")
    seen(site, "second")
    assert restarts(site) <= 4


def test_requests_in_flight_are_finished_by_the_old_code(site: Site, project: Project) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(site.get, "/slow")
        wait_until(lambda: site.status()["gateway"]["slots_busy"] == 1, 10, "the view to sleep")
        project.says("second")
        seen(site, "second")
        assert slow.result(10).text == "first, slowly"


def test_code_that_does_not_import_is_shown_until_it_does(site: Site, project: Project) -> None:
    site.log.allow("could not be imported")
    project.write("views.py", VIEWS + "\ndef broken(:\n    '<script>alert(1)</script>'\n")
    wait_until(lambda: site.get("/").status_code == 500, 10, "the failure")
    shown = site.fetch("GET", "/", headers={"accept": "text/html"})
    assert shown.status_code == 500
    assert shown.headers["content-type"].startswith("text/html")
    assert "SyntaxError" in shown.text
    assert "views.py" in shown.text
    assert "<script" not in shown.text
    assert site.get("/readyz").status_code == 503
    # For programs as text, and for as long as nothing changes.
    assert "SyntaxError" in site.get("/").text
    project.says("mended")
    seen(site, "mended")
    # The same when the settings are wrong, and when the first attempt at mending them is.
    project.write("project_settings.py", "import nothing_of_the_kind")
    wait_until(lambda: "nothing_of_the_kind" in site.get("/").text, 10, "nothing_of_the_kind")
    project.write("project_settings.py", "1 / 0")
    wait_until(lambda: "ZeroDivisionError" in site.get("/").text, 10, "ZeroDivisionError")
    project.write("project_settings.py", SETTINGS)
    seen(site, "mended")


def test_it_starts_with_broken_code_and_waits(start: Start, project: Project) -> None:
    project.write("views.py", "import nothing_of_the_kind")
    site = start(project.directory, command="dev", wait=False)
    site.log.allow("could not be imported")

    def shown() -> bool:
        try:
            return "nothing_of_the_kind" in site.get("/").text
        except (OSError, httpx.TransportError):
            return False

    wait_until(shown, 30, "the traceback")
    site.log.wait_for(f"http://127.0.0.1:{site.port} shows it until the next change")
    project.says("mended")
    seen(site, "mended")


def test_a_template_needs_no_restart(site: Site, project: Project) -> None:
    assert site.get("/page").text == "an old page"
    project.write("templates/page.html", "a new page")
    assert site.get("/page").text == "a new page"
    assert restarts(site) == 0


def test_djangos_debug_page_is_shown(site: Site) -> None:
    shown = site.fetch("GET", "/boom", headers={"accept": "text/html"})
    assert shown.status_code == 500
    assert "a view that fails" in shown.text
    assert "You’re seeing this error because you have" in shown.text
    site.log.allow("a view that fails")


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_each_request_is_a_line_with_its_queries(start: Start, project: Project, interface: str) -> None:
    site = start(project.directory, command="dev", flags=("--interface", interface))
    answer = site.get("/queries?x=1")
    assert "x-quintet-queries" not in answer.headers
    line = r"GET  /queries\?x=1 +200 +\d+(\.\d)? ms +22 queries +\d+(\.\d)? ms +2 B  ×21 the same query"
    site.log.wait_for(line, 5)
    site.get("/")
    site.log.wait_for(r"GET  / +200 .* 0 queries", 5)


def test_imported_code_elsewhere_is_watched_too(
    start: Start, project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A checkout beside the project, on the path but not installed."""
    beside = tmp_path_factory.mktemp("beside")
    (beside / "helpers").mkdir()
    (beside / "helpers" / "__init__.py").write_text('WORD = "first"\n')
    project.write("project_settings.py", f"import sys\nsys.path.append({str(beside)!r})\n" + SETTINGS)
    project.write(
        "views.py",
        VIEWS.replace('HttpResponse("first")', "HttpResponse(WORD)") + "\nfrom helpers import WORD\n",
    )
    site = start(project.directory, command="dev")
    assert site.get("/").text == "first"
    (beside / "helpers" / "__init__.py").write_text('WORD = "second"\n')
    seen(site, "second")


def test_ctrl_c_ends_it_at_once(site: Site) -> None:
    with site.client() as client:
        client.get("/")
        began = time.monotonic()
        site.terminate(2)
        assert site.wait_exit() == 0
        assert time.monotonic() - began < 2


def test_a_wrong_configuration_is_shown_too(site: Site, project: Project) -> None:
    site.log.allow("the configuration is wrong")
    project.write("quintet.toml", "[workers]\nthreads = 0\n")
    wait_until(lambda: "threads" in site.get("/").text, 10, "threads")
    project.write("quintet.toml", "[workers]\nthreads = 2\n")
    seen(site, "first")
