"""Several apps in one instance: a Django site, an ASGI app and an old Django project beside each other, each with its own workers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import websockets

import quintet
from harness.load import Load
from harness.processes import wait_until
from harness.site import Site, Start

CONFIG = """
[workers]
count = 1

[[module]]
name = "api"
dir = "api"
callable = "main:app"
environment = ["GREETING=hello from the api"]

[[module]]
name = "old"
dir = "old"

[[worker_pool]]
name = "uploads"
module = "api"

[[route]]
path = "/api/upload/*"
app = "uploads"
strip_prefix = "/api"

[[route]]
path = "/api/*"
app = "api"
strip_prefix = "/api"

[[route]]
path = ["/old", "/old/*"]
app = "old"
mount = "/old"
"""

SETTINGS = """
from pathlib import Path
HERE = Path(__file__).parent
DEBUG = False
SECRET_KEY = "for nobody"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["django.contrib.staticfiles"]
STATIC_URL = "static/"
STATIC_ROOT = HERE / "collected"
"""

MANAGE = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'settings')\n"

URLS = """
import os, sys
from django.http import HttpResponse, JsonResponse
from django.urls import path, reverse

def page(request):
    return HttpResponse("NAME, version one")

def about(request):
    return JsonResponse({
        "link": reverse("page"), "prefix": sys.prefix, "pid": os.getpid(), "greeting": os.environ.get("GREETING"),
    })

urlpatterns = [path("", page, name="page"), path("about", about)]
"""

API = """
import json, os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": os.environ["GREETING"]})
        return
    body = json.dumps({"version": "one", "path": scope["path"], "pid": os.getpid(), "greeting": os.environ["GREETING"],
                       "settings": os.environ.get("DJANGO_SETTINGS_MODULE")})
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
"""

WORKERS = 4


def write_django(directory: Path, name: str) -> None:
    """A project of one page and one static file."""
    (directory / "collected").mkdir(parents=True)
    (directory / "collected" / "style.css").write_text(f"/* of {name} */")
    (directory / "settings.py").write_text(SETTINGS)
    (directory / "manage.py").write_text(MANAGE)
    (directory / "urls.py").write_text(URLS.replace("NAME", name))


def write_environment(directory: Path) -> None:
    """A virtual environment of its own, which finds the packages of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
    (packages,) = directory.glob("lib/python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    here.append(str(Path(quintet.__file__).parent.parent))
    (packages / "those.pth").write_text("\n".join(here))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The three apps."""
    top = tmp_path / "shop"
    write_django(top, "the site")
    write_django(top / "old", "the old one")
    write_environment(top / "old" / ".venv")
    (top / "api").mkdir()
    (top / "api" / "main.py").write_text(API)
    (top / "quintet.toml").write_text(CONFIG)
    return top


def change(file: Path, old: str, new: str) -> None:
    """Save another version of a file."""
    text = file.read_text()
    assert old in text
    # Python trusts a .pyc whose source has the same second and size.
    shutil.rmtree(file.parent / "__pycache__", ignore_errors=True)
    file.write_text(text.replace(old, new))


def started(start: Start, project: Path, **options: object) -> Site:
    """All apps serve."""
    site = start(project, workers=1, wait=False, **options)
    site.wait_ready()
    return site


@pytest.fixture
def site(start: Start, project: Path) -> Site:
    """Serving, with a worker for each pool."""
    site = started(start, project)
    site.wait_workers(WORKERS)
    return site


def workers_of(site: Site, pool: str) -> set[int]:
    """Process ids of a pool's workers that are ready."""
    rows = site.status()["workers"]
    return {row["pid"] for row in rows if row["pool"] == pool and row["state"] == "ready"}


def modules(site: Site) -> dict[str, dict[str, object]]:
    """What status says of each app."""
    return {module["name"]: module for module in site.status()["modules"]}


@pytest.mark.short
def test_each_app_answers_its_routes_in_its_own_way(site: Site) -> None:
    assert site.get("/").text == "the site, version one"
    assert site.get("/old/").text == "the old one, version one"
    api = site.get("/api/items").json()
    assert (api["path"], api["greeting"], api["settings"]) == ("/items", "hello from the api", None)
    assert api["pid"] in workers_of(site, "api")
    assert site.get("/api/upload/x").json()["pid"] in workers_of(site, "uploads")

    async def greeting() -> str | bytes:
        async with websockets.connect(f"ws://localhost:{site.port}/api/socket") as socket:
            return await socket.recv()

    assert asyncio.run(greeting()) == "hello from the api"
    own, old = site.get("/about").json(), site.get("/old/about").json()
    assert (own["link"], old["link"]) == ("/", "/old/")
    assert own["greeting"] is None
    assert own["prefix"] != old["prefix"]
    assert old["prefix"].endswith("old/.venv")


def test_the_same_static_url_is_each_apps_own(site: Site) -> None:
    assert site.get("/static/style.css").text == "/* of the site */"
    assert site.get("/old/static/style.css").text == "/* of the old one */"
    assert site.get("/old/static/none.css").status_code == 404


def test_one_is_reloaded_under_load_and_the_others_are_not_touched(site: Site, project: Path) -> None:
    before = {pool: workers_of(site, pool) for pool in ("default", "old", "api", "uploads")}
    with Load(site, "/", "/old/", "/api/items", clients=6) as load:
        load.wait_for(50)
        change(project / "api/main.py", '"version": "one"', '"version": "two"')
        change(project / "urls.py", "version one", "version two")
        done = site.quintet("reload", "--module", "api")
        assert done.returncode == 0, done.stdout + done.stderr
        load.wait_for(50)
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert site.get("/api/items").json()["version"] == "two"
    assert site.get("/").text == "the site, version one"
    after = {pool: workers_of(site, pool) for pool in before}
    assert (after["default"], after["old"]) == (before["default"], before["old"])
    assert after["api"].isdisjoint(before["api"])
    assert after["uploads"].isdisjoint(before["uploads"])
    assert {name: module["generation"] for name, module in modules(site).items()} == {
        "default": 1,
        "api": 2,
        "old": 1,
    }
    refused = site.quintet("reload", "--module", "apo")
    assert refused.returncode == 2
    assert "the modules are default, api, old" in refused.stderr


def test_where_one_does_not_import_the_others_are_reloaded(site: Site, project: Path) -> None:
    site.allow_log("deliberately broken")
    change(project / "api/main.py", "import json, os", "raise ValueError('deliberately broken')")
    change(project / "urls.py", "version one", "version two")
    change(project / "old/urls.py", "version one", "version two")
    old = workers_of(site, "api")
    with Load(site, "/api/items", "/", clients=4) as load:
        load.wait_for(30)
        done = site.reload()
        load.wait_for(30)
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert done.returncode == 3
    said = done.stdout + done.stderr
    assert "error: module api: " in said
    assert "ValueError: deliberately broken" in said
    assert "the new code of default, old serves" in said
    assert site.get("/api/items").json()["version"] == "one"
    assert workers_of(site, "api") == old
    assert (site.get("/").text, site.get("/old/").text) == (
        "the site, version two",
        "the old one, version two",
    )
    # Mended, it comes with the next one.
    change(project / "api/main.py", "raise ValueError('deliberately broken')", "import json, os")
    change(project / "api/main.py", '"version": "one"', '"version": "two"')
    assert site.quintet("reload", "--module", "api").returncode == 0
    assert site.get("/api/items").json()["version"] == "two"


def test_an_app_that_does_not_import_ends_the_start(start: Start, project: Path) -> None:
    change(project / "api/main.py", "import json, os", "raise ValueError('deliberately broken')")
    site = start(project, workers=1, wait=False)
    site.allow_log("deliberately broken")
    assert site.wait_exit() == 3
    assert "error: module api: " in site.log
    checked = site.quintet("check")
    assert checked.returncode == 1
    assert "api: " in checked.stdout
    assert "ValueError: deliberately broken" in checked.stdout


def test_processes_of_one_that_are_killed_are_replaced_and_nobody_else_notices(site: Site) -> None:
    site.allow_log("worker .* died")
    site.allow_log("the template .* died")
    before = {pool: workers_of(site, pool) for pool in ("default", "old")}
    template = modules(site)["api"]["template_pid"]
    with Load(site, "/", "/old/", clients=4) as load:
        for pid in [*workers_of(site, "api"), template]:
            os.kill(pid, signal.SIGKILL)
        load.wait_for(50)
        wait_until(lambda: site.get("/api/items").status_code == 200, 20, "the api serves again")
        wait_until(lambda: modules(site)["api"]["template_pid"] not in (None, template), 20, "a new template")
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert {pool: workers_of(site, pool) for pool in before} == before
    # The next gateway is told what serves, of each.
    site.allow_log("the gateway .* died")
    site.kill_gateway()
    wait_until(lambda: ready(site), 20, "ready again")
    assert site.get("/api/items").status_code == 200
    assert site.get("/old/static/style.css").text == "/* of the old one */"


def ready(site: Site) -> bool:
    """Whether /readyz says yes; a gateway that is just being replaced says nothing."""
    try:
        return site.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_scaling_status_and_routes_know_them(site: Site) -> None:
    done = site.quintet("scale", "2", "--pool", "api")
    assert done.returncode == 0, done.stderr
    site.wait_workers(WORKERS + 1)
    assert len(workers_of(site, "api")) == 2
    text = site.quintet("status").stdout
    assert "api: main:app, generation 1, template " in text
    assert any('pool="old"' in name for name in site.metrics())
    shown = site.quintet("routes", "/api/upload/x").stdout
    assert "module api, pool uploads" in shown
    checked = site.quintet("check").stdout
    assert "api: main:app imports: ASGI" in checked


def test_an_upgrade_takes_all_of_them_over(site: Site) -> None:
    with Load(site, "/", "/old/", "/api/items", clients=6) as load:
        load.wait_for(30)
        done = site.quintet("upgrade")
        assert done.returncode == 0, done.stdout + done.stderr
        load.wait_for(30)
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert set(modules(site)) == {"default", "api", "old"}


def test_in_development_only_the_broken_one_is_shown_broken(start: Start, project: Path) -> None:
    site = started(start, project, command="dev")
    site.allow_log("deliberately broken")
    site.allow_log("Traceback")
    assert site.get("/api/items").json()["version"] == "one"
    pid = site.get("/old/about").json()["pid"]
    change(project / "api/main.py", "import json, os", "raise ValueError('deliberately broken')")
    wait_until(lambda: site.get("/api/items").status_code == 500, 20, "the traceback")
    assert "ValueError: deliberately broken" in site.get("/api/items").text
    assert "the site" in site.get("/").text
    assert site.get("/old/about").json()["pid"] == pid
    change(project / "api/main.py", "raise ValueError('deliberately broken')", "import json, os")
    wait_until(lambda: site.get("/api/items").status_code == 200, 20, "mended")
    change(project / "old/urls.py", "version one", "version two")
    wait_until(lambda: site.get("/old/").text == "the old one, version two", 20, "the new code")
