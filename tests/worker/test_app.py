"""Finding the app, what it reports, and what is said when it cannot be imported."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from link import Worker
from workers import Serve, django_dir, pythons

SETTINGS = """
    SECRET_KEY = "not secret"
    DEBUG = {debug}
    ALLOWED_HOSTS = ["*"]
    ROOT_URLCONF = "site_urls"
    INSTALLED_APPS = ["django.contrib.staticfiles", "blog"]
    MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
    STATIC_URL = "static/"
    STATIC_ROOT = "collected"
    STATICFILES_DIRS = ["assets", ("docs", "manual")]
    MEDIA_URL = "/media/"
    MEDIA_ROOT = "uploads"
    USE_TZ = True
    {more}
"""

URLS = """
    from django.http import FileResponse, HttpResponse, StreamingHttpResponse
    from django.conf import settings
    from django.conf.urls.static import static
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt
    def fail(request): raise KeyError("lost")
    def stream(request): return StreamingHttpResponse(b"%d," % n for n in range(3))
    def upload(request): return HttpResponse(b"|".join(f.read() for f in request.FILES.values()))
    def echo(request): return HttpResponse(request.body, content_type="text/plain")
    def read(request): return HttpResponse(request.read(3) + b"+" + request.readline())
    urlpatterns = [
        path("", lambda request: HttpResponse("Guten Tag, " + request.GET.get("name", "Welt"))),
        path("fail", fail), path("stream", stream), path("upload", upload), path("echo", echo), path("read", read),
        path("file", lambda request: FileResponse(open("manage.py", "rb"))),
        path("where", lambda request: HttpResponse(request.build_absolute_uri())),
    ] + static(settings.MEDIA_URL, document_root=settings.MEDIA_ROOT)
"""

WSGI = """
    import os
    from django.core.wsgi import get_wsgi_application
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
    application = get_wsgi_application()
"""


def write_site(directory: Path, debug: bool = False, more: str = "") -> None:
    files = {
        "site_settings.py": SETTINGS.format(debug=debug, more=more),
        "site_urls.py": URLS,
        "site_wsgi.py": WSGI,
        "manage.py": "# manage\n",
        "blog/__init__.py": "",
        "blog/static/blog.css": "body {}\n",
        "assets/site.css": "p {}\n",
        "manual/help.txt": "help\n",
    }
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(content))


def series_for(python: str, newest: bool = True) -> str:
    """The Django to test on this Python: the newest it takes, or the older LTS."""
    minor = int(python_version(python).partition(".")[2])
    if minor >= 12:
        return "6" if newest else "5.2"
    return "5.2" if newest else "4.2"


def python_version(python: str) -> str:
    return next(version for version, program in pythons().items() if program == python)


@pytest.mark.every_python
@pytest.mark.parametrize("newest", [True, False], ids=["newest", "older"])
def test_a_django_site(serve: Serve, tmp_path: Path, python: str, newest: bool) -> None:
    write_site(tmp_path)
    series = series_for(python, newest)
    worker = serve(path=[django_dir(series, python)], app=None, settings="site_settings")
    assert worker.report["django"].startswith(series + ".")
    assert worker.report["app"] == "django.core.wsgi:get_wsgi_application"
    assert worker.report["python"].startswith(python_version(python) + ".")
    slot = worker.slot
    hello = slot.get("/?name=%C3%84")
    assert (hello.body.decode(), hello.frames) == ("Guten Tag, Ä", 1)
    assert hello.header("content-length") == "13"
    headers = [("host", "shop.example"), ("content-type", "application/x-www-form-urlencoded")]
    assert slot.exchange(method="POST", target="/echo", headers=headers, body=b"a=1").body == b"a=1"
    assert slot.exchange(method="POST", target="/read", headers=headers, body=b"abcde\nf").body == b"abc+de\n"
    form = (
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        + b"u" * 200_000
        + b"\r\n--x--\r\n"
    )
    multipart = [("host", "shop.example"), ("content-type", "multipart/form-data; boundary=x")]
    assert slot.exchange(method="POST", target="/upload", headers=multipart, body=form).body == b"u" * 200_000
    slot.send(method="POST", target="/upload", headers=multipart, stream=True, stream_bytes=len(form))
    slot.send_body(form[:100_000])
    slot.send_body(form[100_000:], end=True)
    assert slot.response().body == b"u" * 200_000
    assert slot.get("/stream").pieces == [b"0,", b"1,", b"2,"]
    assert slot.get("/file").files[0].read() == b"# manage\n"
    where = slot.get("/where", scheme="https", server=("shop.example", 443))
    assert where.body == b"https://shop.example/where"
    failed = slot.get("/fail")
    assert failed.status == 500
    assert slot.get("/nothing-here").status == 404
    slot.retire()
    assert worker.wait() == 0
    logged = worker.stderr()
    assert logged.count("the app raised") == 1, "Django answers, but with DEBUG off it only mails"


def test_with_debug_everything_is_reported(serve: Serve, tmp_path: Path, python: str) -> None:
    write_site(tmp_path, debug=True)
    worker = serve(path=[django_dir(series_for(python), python)], app="site_wsgi:application", settings=None)
    report = worker.report
    assert report["app"] == "site_wsgi:application"
    assert report["debug"] is True
    assert report["session_cookie"] == "sessionid"
    assert (report["static_url"], report["static_root"]) == ("/static/", str(tmp_path / "collected"))
    assert report["static_hashed"] is False
    assert report["static_finders"] == [
        ["", str(tmp_path / "assets")],
        ["docs", str(tmp_path / "manual")],
        ["", str(tmp_path / "blog" / "static")],
    ]
    assert (report["media_url"], report["media_root"]) == ("/media/", str(tmp_path / "uploads"))
    assert report["media_in_urlconf"] is True
    # As runserver: found without collectstatic.
    for path, content in (("site.css", b"p {}\n"), ("docs/help.txt", b"help\n"), ("blog.css", b"body {}\n")):
        response = worker.slot.get(f"/static/{path}")
        assert b"".join(file.read() for file in response.files) + response.body == content
    assert worker.slot.get("/static/../site_settings.py").status >= 400


def test_without_debug_less_is_reported(serve: Serve, tmp_path: Path, python: str) -> None:
    hashed = (
        "STORAGES = {'default': {'BACKEND': 'django.core.files.storage.FileSystemStorage'}, 'staticfiles': "
    )
    hashed += "{'BACKEND': 'django.contrib.staticfiles.storage.ManifestStaticFilesStorage'}}"
    write_site(tmp_path, more=hashed)
    worker = serve(path=[django_dir(series_for(python), python)], app=None, settings="site_settings")
    assert worker.report["static_hashed"] is True
    assert "static_finders" not in worker.report
    assert worker.report["media_in_urlconf"] is False
    assert worker.slot.get("/static/site.css").status == 404


def test_a_cloud_storage_and_a_finder_of_its_own(serve: Serve, tmp_path: Path, python: str) -> None:
    (tmp_path / "own.py").write_text(
        "from django.contrib.staticfiles.finders import FileSystemFinder\nclass Finder(FileSystemFinder): pass\n"
    )
    more = "STORAGES = {'staticfiles': {'BACKEND': 'no.such.cloud'}}\n    MEDIA_URL = ''\n    STATICFILES_FINDERS = ["
    more += "'django.contrib.staticfiles.finders.AppDirectoriesFinder', 'own.Finder', "
    more += "'django.contrib.staticfiles.finders.FileSystemFinder']"
    write_site(tmp_path, debug=True, more=more)
    worker = serve(path=[django_dir("5.2")], app=None, settings="site_settings")
    assert worker.report["static_finders"] == [["", str(tmp_path / "blog" / "static")]]
    assert worker.report["static_hashed"] is False
    assert "media_url" not in worker.report


def test_the_settings_name_the_app(serve: Serve, tmp_path: Path) -> None:
    write_site(tmp_path, more="WSGI_APPLICATION = 'site_wsgi.application'")
    worker = serve(path=[django_dir("5.2")], app=None, settings="site_settings", debug_static=False)
    assert worker.report["app"] == "site_wsgi:application"


def test_a_plain_app_reports_no_django(serve: Serve) -> None:
    worker = serve(
        "class Site:\n    @staticmethod\n    def app(environ, start_response): ...\n", app="app:Site.app"
    )
    assert set(worker.report) == {"app", "interface", "python"}
    assert (worker.report["app"], worker.report["interface"]) == ("app:Site.app", "wsgi")


def failed(worker: Worker) -> dict[str, str]:
    word = worker.word()
    assert word["type"] == "failed", word
    assert worker.wait() == 78
    assert worker.stderr() == "", "the supervisor shows it, not the worker"
    # No frame of ours; the word alone may stand in the path of anybody's directory.
    assert re.search(r"quintet/(_\w+|worker)\.py", word["traceback"]) is None
    assert "importlib/__init__" not in word["traceback"]
    assert "<frozen importlib" not in word["traceback"]
    return word


# Source of app.py, how it is asked for, a word of the message, of the traceback, of the hint.
PLAIN_FAILURES = {
    "missing module": (
        "import no_such_thing",
        {},
        "No module named 'no_such_thing'",
        "app.py",
        "has no module",
    ),
    "syntax": ("def app(:", {}, "SyntaxError", "def app(:", ""),
    "raises": ("def f(): raise ValueError('two\\nlines')\nf()", {}, "ValueError: two", "in f", ""),
    "no such callable": ("def aap(e, s): ...", {}, "app has no 'app'", "", "did you mean aap?"),
    "another callable": (
        "def application(e, s): ...",
        {"app": "app:site"},
        "app has no 'site'",
        "",
        "did you mean app:application?",
    ),
    "no callable at all": (
        "pass",
        {},
        "app has no 'app'",
        "",
        "which name in app is the app? --app app:NAME",
    ),
    "not callable": ("app = 3", {}, "app:app is no WSGI or ASGI app", "", ""),
    "no such app": ("", {"app": "wsgi:application"}, "No module named 'wsgi'", "", "did you mean my_wsgi?"),
    "environment": ("import os\nos.environ['DATABASE']", {}, "KeyError", "app.py", "DATABASE=…"),
    "exits": ("raise SystemExit('no')", {}, "SystemExit: no", "app.py", ""),
    "cause": (
        "try:\n    import x_x\nexcept Exception as e:\n    raise ValueError from e",
        {},
        "ValueError",
        "x_x",
        "",
    ),
}


@pytest.mark.parametrize("name", PLAIN_FAILURES)
def test_failed_imports(start_worker: Serve, tmp_path: Path, name: str) -> None:
    source, start, message, trace, hint = PLAIN_FAILURES[name]
    (tmp_path / "my_wsgi.py").touch()
    word = failed(start_worker(source, **start))
    assert message in word["message"]
    assert "\n" not in word["message"]
    assert trace in word["traceback"]
    assert hint in word["hint"]
    assert bool(hint) == bool(word["hint"])


def test_no_django_in_this_environment(start_worker: Serve, tmp_path: Path, python: str) -> None:
    # The environment of the tests may have one.
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text("import sys\nsys.modules['django'] = None\n")
    word = failed(start_worker("", path=[tmp_path / "without"], app=None, settings="site_settings"))
    assert "django" in word["message"]
    assert python in word["hint"]


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ("site_setings", "No module named 'site_setings'", "did you mean site_settings?"),
        ("nothing.like.it", "No module named 'nothing'", "settings found here: site_settings"),
        (None, "ImproperlyConfigured", "settings found here: site_settings"),
        ("empty_secret", "SECRET_KEY", "need a SECRET_KEY"),
    ],
)
def test_failed_settings(
    start_worker: Serve, tmp_path: Path, settings: str | None, message: str, hint: str
) -> None:
    write_site(tmp_path)
    (tmp_path / "empty_secret.py").write_text("ROOT_URLCONF = 'use_secret'\nSECRET_KEY = ''\n")
    (tmp_path / "use_secret.py").write_text("from django.conf import settings\nkey = settings.SECRET_KEY\n")
    word = failed(start_worker(path=[django_dir("5.2")], app=None, settings=settings))
    assert message in word["message"]
    assert hint in word["hint"]


def test_a_broken_urlconf_is_found_at_the_start(start_worker: Serve, tmp_path: Path) -> None:
    write_site(tmp_path)
    (tmp_path / "site_urls.py").write_text("from blog import no_such_view\nurlpatterns = []\n")
    word = failed(start_worker(path=[django_dir("5.2")], app=None, settings="site_settings"))
    assert "no_such_view" in word["message"]
    assert "site_urls.py" in word["traceback"]
