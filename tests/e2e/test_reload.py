"""A new version of the code goes live, and nobody notices but by the new version."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness.data import deploy
from harness.load import Load
from harness.processes import wait_until
from harness.site import Site, Start


@pytest.fixture
def site(start: Start, project: Path) -> Site:
    """Two workers of version one."""
    return start(project, workers=2, flags=("--app", "plain:application"))


@pytest.mark.short
def test_a_reload_under_load_loses_nothing(site: Site, project: Path) -> None:
    old = set(site.workers())
    with Load(site, "/version", "/sleep?seconds=0.05&say=x", "/hello") as load:
        load.wait_for(200)
        deploy(project, '"one"', '"two"')
        done = site.reload()
        assert done.returncode == 0, done.stdout + done.stderr
        load.wait_for(200)
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert load.bodies[b"one"] > 0
    assert load.bodies[b"two"] > 0
    assert site.get("/version").text == "two"
    assert old.isdisjoint(site.workers())
    assert site.status()["generation"] == 2


def test_reloads_again_and_again_under_load(site: Site) -> None:
    with Load(site, "/hello", "/big?size=200000", clients=6) as load:
        for _ in range(4):
            done = site.reload()
            assert done.returncode == 0, done.stdout + done.stderr
        load.wait_for(50)
    assert load.failures == []
    assert set(load.statuses) == {200}


def test_sighup_reloads_too(site: Site, project: Path) -> None:
    deploy(project, '"one"', '"two"')
    site.terminate(signal.SIGHUP)
    wait_until(lambda: site.get("/version").text == "two", 20, "version two")
    wait_until(lambda: site.status()["state"] == "serving", 20, "the reload ends")


def test_a_request_that_is_under_way_is_finished_by_the_old_code(site: Site, project: Path) -> None:
    with site.raw() as slow:
        slow.request("GET /sleep?seconds=3&say=still-the-old")
        wait_until(lambda: site.status()["gateway"]["slots_busy"] > 0, 5, "the request is under way")
        deploy(project, '"one"', '"two"')
        done = site.reload()
        assert done.returncode == 0, done.stdout + done.stderr
        assert site.get("/version").text == "two"
        assert slow.answer().text == "still-the-old"


def test_code_that_does_not_import_is_not_deployed(site: Site, project: Path) -> None:
    site.allow_log("deliberately broken")
    site.allow_log("reload")
    old = set(site.workers())
    deploy(project, "from __future__ import annotations", "raise ValueError('deliberately broken')")
    with Load(site, "/version", clients=4) as load:
        load.wait_for(50)
        done = site.reload()
        assert done.returncode == 3
        assert "ValueError: deliberately broken" in done.stderr + done.stdout
        load.wait_for(50)
    assert load.failures == []
    assert set(load.bodies) == {b"one"}
    assert set(site.workers()) == old
    # Mended, it goes through.
    deploy(project, "raise ValueError('deliberately broken')", "from __future__ import annotations")
    deploy(project, '"one"', '"two"')
    assert site.reload().returncode == 0
    assert site.get("/version").text == "two"


def test_the_shop_reloads_under_load(start: Start) -> None:
    shop = start("shop", workers=2)
    with Load(shop, "/", "/catalogue/?page=2", "/api/products/", "/hello/", clients=4) as load:
        load.wait_for(40)
        done = shop.reload()
        assert done.returncode == 0, done.stdout + done.stderr
        load.wait_for(40)
    assert load.failures == []
    assert set(load.statuses) == {200}


def test_what_a_reload_does_not_take_over_is_told(start: Start, project: Path) -> None:
    config = project / "quintet.toml"
    config.write_text('[[route]]\npath = "/where"\nrespond = "here"\n')
    site = start(project, flags=("--app", "plain:application"))
    assert site.get("/where").text == "here"
    assert "upgrade" not in site.reload().stderr, "nothing has changed"
    config.write_text('[[route]]\npath = "/where"\nrespond = "there"\n\n[workers]\ncount = 1\n')
    site.allow_log("changed, but not by a reload")
    done = site.reload()
    assert done.returncode == 0
    assert "changed, but not by a reload: [[route]]" in done.stdout + done.stderr
    assert site.get("/where").text == "here"
    assert site.quintet("upgrade").returncode == 0
    wait_until(lambda: site.get("/where").text == "there", 20, "the upgrade has taken it over")
    assert "not by a reload" not in site.reload().stderr
