"""The commands: what a newcomer reads, and what a script can rely on."""

from __future__ import annotations

import json
import socket
import sqlite3
import stat
from pathlib import Path

import httpx
import pytest

from harness.data import ShopData
from harness.site import Site, Start

pytestmark = pytest.mark.any_python


@pytest.mark.short
def test_run_says_what_it_decided_and_where_it_is(start: Start) -> None:
    shop = start("shop", workers=2)
    log = str(shop.log)
    assert f"http://127.0.0.1:{shop.port}" in log
    assert "shop.settings" in log
    assert "manage.py" in log
    assert shop.log.count(r"^ +workers +2\b") == 1


def test_run_without_numbers_sizes_itself(start: Start, tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'small']\n"
    )
    site = start(tmp_path, workers="auto", flags=("--app", "small:application"), wait=False)
    site.wait_ready()
    assert len(site.status()["workers"]) >= 1
    assert site.get("/").text == "small"


def test_status_tells_the_state(plain: Start) -> None:
    site = plain(workers=2, threads=3)
    site.get("/hello")
    status = site.status()
    assert status["state"] == "serving"
    assert status["pid"] == site.process.pid
    assert status["addresses"] == [f"http://127.0.0.1:{site.port}"]
    assert status["gateway"]["slots"] == 6
    assert status["gateway"]["requests_total"] >= 1
    shown = site.quintet("status")
    assert shown.returncode == 0
    assert str(status["workers"][0]["pid"]) in shown.stdout


def test_commands_without_an_instance(plain: Start) -> None:
    site = plain(workers=1)
    site.stop()
    for command in ("status", "reload", "stop", "scale +1"):
        done = site.quintet(*command.split())
        assert done.returncode == 5, command
        assert "error:" in done.stderr, command


def test_a_second_instance_of_the_same_project_is_refused(plain: Start) -> None:
    site = plain(workers=1)
    done = site.quintet("run", str(site.project), "--app", "plain:application", "--bind", "127.0.0.1:0")
    assert done.returncode != 0
    assert "running" in done.stderr
    assert site.get("/hello").text == "hello"


def test_an_address_in_use_is_exit_code_4(plain: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        site = plain(workers=1, bind=(f"127.0.0.1:{port}",), wait=False)
        assert site.wait_exit() == 4
        assert str(port) in str(site.log)
        assert "hint:" in str(site.log)
        site.allow_log(str(port))
        site.process.returncode = 0


def test_the_runtime_directory_is_private(plain: Start) -> None:
    site = plain(workers=1)
    assert stat.S_IMODE(site.runtime_dir.stat().st_mode) == 0o700
    site.stop()
    assert not (site.runtime_dir / "control.sock").exists()


class TestConfiguration:
    """File, environment, flags: in this order of strength."""

    def test_show_tells_where_each_value_comes_from(self, plain: Start, tmp_path: Path) -> None:
        (tmp_path / "quintet.toml").write_text("[timeouts]\napp = '11s'\nqueue = '3s'\n")
        site = Site(tmp_path, env={"QUINTET_TIMEOUTS_QUEUE": "4s"})
        done = site.quintet("config", "show", "--set", "timeouts.header=5s", "--json")
        assert done.returncode == 0, done.stderr
        text = json.dumps(json.loads(done.stdout))
        for value in ("11s", "4s", "5s"):
            assert value in text
        for origin in ("quintet.toml", "QUINTET_TIMEOUTS_QUEUE"):
            assert origin in text
        site.close()

    def test_unknown_keys_are_refused_with_the_nearest_word(self, tmp_path: Path) -> None:
        (tmp_path / "quintet.toml").write_text("[timeouts]\nqueu = '3s'\n")
        site = Site(tmp_path)
        done = site.quintet("config", "show")
        assert done.returncode == 2
        for word in ("quintet.toml", "2", "queu", "queue"):
            assert word in done.stderr
        site.close()

    def test_the_schema_is_json(self, tmp_path: Path) -> None:
        site = Site(tmp_path)
        schema = json.loads(site.quintet("config", "schema").stdout)
        assert "timeouts" in schema["properties"]
        site.close()

    def test_a_file_in_the_project_is_found(self, start: Start, tmp_path: Path) -> None:
        (tmp_path / "quintet.toml").write_text(
            "[app]\ncallable = 'small:application'\n[workers]\nthreads = 2\n"
        )
        (tmp_path / "small.py").write_text(
            "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'small']\n"
        )
        site = start(tmp_path, workers=1)
        assert site.status()["gateway"]["slots"] == 2


class TestCheck:
    """`quintet check`: would it run here?"""

    @pytest.mark.short
    def test_a_sound_shop(self, start: Start, shop_data: ShopData) -> None:
        shop = start("shop")
        shop.stop()
        done = shop.quintet("check", "--bind", f"127.0.0.1:{shop.port}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Django" in done.stdout

    def test_pending_migrations_and_missing_files_are_found(self, start: Start, shop_data: ShopData) -> None:
        shop = start("shop")
        shop.stop()
        database = shop_data.directory / "db.sqlite3"
        with sqlite3.connect(database) as connection:
            connection.execute("DELETE FROM django_migrations WHERE app = 'orders'")
        done = shop.quintet("check", "--bind", f"127.0.0.1:{shop.port}")
        assert "orders" in done.stdout + done.stderr
        assert "migrat" in done.stdout + done.stderr

    def test_an_app_that_does_not_import(self, tmp_path: Path) -> None:
        site = Site(tmp_path)
        (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
        done = site.quintet("check", "--app", "broken:application")
        assert done.returncode == 1
        assert "nowhere_to_be_found" in done.stdout + done.stderr
        site.close()


class TestAdmin:
    """The admin HTTP: on a unix socket, never on the addresses of clients."""

    def ask(self, site: Site, path: str) -> httpx.Response:
        transport = httpx.HTTPTransport(uds=str(site.runtime_dir / "admin.sock"))
        with httpx.Client(transport=transport, base_url="http://admin") as client:
            return client.get(path)

    def test_metrics(self, plain: Start) -> None:
        site = plain(workers=2)
        for _ in range(3):
            site.get("/hello")
        text = self.ask(site, "/metrics").text
        assert "# TYPE quintet_requests_total counter" in text
        counted = next(
            line for line in text.splitlines() if line.startswith('quintet_requests_total{by="app"}')
        )
        assert int(counted.split()[-1]) == 3
        assert self.ask(site, "/readyz").status_code == 200

    def test_not_for_clients(self, plain: Start) -> None:
        site = plain(workers=1)
        assert site.get("/metrics").status_code == 404
        assert stat.S_IMODE((site.runtime_dir / "admin.sock").stat().st_mode) & 0o007 == 0


class TestAccessLog:
    """A line for each response, when asked for."""

    def test_json(self, plain: Start) -> None:
        site = plain(workers=1, flags=("--access-log", "json"))
        site.get("/hello?secret=1", headers={"X-Request-Id": "story-1"})
        line = site.log.wait_for(r'^\{.*"/hello.*\}$').group()
        entry = json.loads(line)
        assert entry["status"] == 200
        assert "story-1" in line or "request_id" in entry

    def test_text(self, plain: Start) -> None:
        site = plain(workers=1, flags=("--access-log", "text"))
        site.get("/hello")
        site.log.wait_for(r"GET /hello")
