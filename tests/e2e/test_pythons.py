"""Other Pythons, other Djangos: the shop on each, from the one wheel.

The Python that runs the tests does all of them, and the newest whatever the worker has a part in (see scripts/test); the others
must serve the shop, reload it, and survive a worker.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import venvs
from harness.data import ShopData
from harness.load import Load
from harness.site import Start
from harness.venvs import Interpreter
from harness.visitor import Visitor

# Django and the Pythons that it supports: from, to. The last is the newest there is.
DJANGOS = {"4.2": ((3, 8), (3, 12)), "5.2": ((3, 10), (3, 14)), "6": ((3, 12), (3, 99))}


def combinations() -> list[tuple[Interpreter, str]]:
    """Each Python with the newest Django it runs, and each Django with the newest Python that runs it."""
    found = []
    for interpreter in venvs.interpreters():
        runs = [django for django, (low, high) in DJANGOS.items() if low <= interpreter.version <= high]
        found += [(interpreter, runs[-1])] if runs else []
    for django, (low, high) in DJANGOS.items():
        fitting = [interpreter for interpreter in venvs.interpreters() if low <= interpreter.version <= high]
        if fitting and (fitting[-1], django) not in found:
            found.append((fitting[-1], django))
    return found


@pytest.fixture(params=combinations(), ids=lambda pair: f"python{pair[0]}-django{pair[1]}")
def python(request: pytest.FixtureRequest) -> Path:
    """The python of an environment with that Django and quintet's wheel."""
    interpreter, django = request.param
    return venvs.venv(
        interpreter, f"Django~={django}.0" if "." in django else f"Django>={django},<{int(django) + 1}"
    )


@pytest.mark.network
@pytest.mark.timeout(600)
def test_the_shop_on_every_python_and_django(start: Start, python: Path, tmp_path: Path) -> None:
    data = ShopData(tmp_path / "data")
    data.directory.mkdir()
    data.prepare(python=python)
    shop = start("shop", workers=2, env=data.env, program=python.parent / "quintet")
    version = f"Python {python.parent.parent.name.split('-')[0]}"
    assert version in str(shop.log)

    with Visitor(shop) as visitor:
        for path in ("/", "/catalogue/?q=guitar", "/api/products/", "/export/products.csv", "/hello/"):
            assert visitor.open(path).status_code == 200, path
        visitor.submit("", {"username": "admin", "password": "demo"}, on="/admin/login/?next=/admin/")
        assert "Behind the counter" in visitor.page.text
        product = next(link for link in visitor.open("/").text.split('"') if link.startswith("/product/"))
        photo = b"\x89PNG\r\n\x1a\n" + bytes(200_000)
        visitor.submit(
            "/review/",
            {"stars": "5", "text": "x"},
            files={"photo": ("a.png", photo, "image/png")},
            on=product,
        )
        assert "Thank you" in visitor.page.text

    shop.allow_log("worker.*(died|killed)")
    with Load(shop, "/hello/", "/api/products/", clients=4) as load:
        load.wait_for(40)
        assert shop.reload().returncode == 0
        load.wait_for(40)
        shop.kill_worker()
        load.wait_for(40)
    assert load.failures == []
    assert set(load.statuses) <= {200, 502}

    shop.allow_log("this page fails on purpose")
    assert shop.get("/fail/").status_code == 500
