"""A day in the shop: an unmodified Django site, used as its visitors and its staff use it."""

from __future__ import annotations

import csv
import io
import os
import shutil

import pytest
from private_postgres import PrivatePostgres

from harness.data import PNG, PRODUCTS, ShopData
from harness.site import Site, Start
from harness.visitor import Visitor


@pytest.fixture(scope="session")
def on_postgres(postgres: PrivatePostgres, tmp_path_factory: pytest.TempPathFactory) -> ShopData:
    """Seeded once in the database `shop`, with the files that belong to it; stories get copies."""
    data = ShopData(tmp_path_factory.mktemp("shop-postgres"))
    data.prepare({"DATABASE_URL": postgres.create_database("shop")})
    return data


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.short)])
def shop(request: pytest.FixtureRequest, start: Start, shop_data: ShopData) -> Site:
    """The shop on either database, two workers."""
    env = {}
    if request.param == "postgres":
        seeded: ShopData = request.getfixturevalue("on_postgres")
        shutil.copytree(seeded.directory, shop_data.directory, dirs_exist_ok=True)
        server: PrivatePostgres = request.getfixturevalue("postgres")
        env["DATABASE_URL"] = server.create_database(f"shop_{os.urandom(4).hex()}", template="shop")
    return start("shop", workers=2, env=env)


def test_a_visit_from_the_window_to_the_order(shop: Site) -> None:
    with Visitor(shop) as visitor:
        # Looking around.
        assert f"{PRODUCTS} pieces on 10 shelves" in visitor.open("/").text
        for link in {link for link in visitor.links() if link.startswith("/") and link not in {"/fail/"}}:
            if not link.startswith("/slow/"):
                assert visitor.open(link).status_code == 200, link
        page = visitor.open("/catalogue/?q=violin&order=price")
        assert page.status_code == 200
        product = next(link for link in visitor.links() if link.startswith("/product/"))

        # Into the basket, before there is an account.
        visitor.submit("/basket/add/", {"quantity": "2"}, on=_in_stock(visitor, product))
        assert "is in your basket" in visitor.page.text

        # An account; the basket stays.
        username = f"sarane{os.urandom(3).hex()}"
        visitor.submit(
            "",
            {"username": username, "password1": "nuages-1940", "password2": "nuages-1940"},
            on="/accounts/signup/",
        )
        assert f"Welcome, {username}" in visitor.page.text

        # The order.
        visitor.submit("", {"name": "Sarane F.", "address": "Rue Lepic 1\nParis"}, on="/checkout/")
        assert "Your order is placed" in visitor.page.text
        number = visitor.page.url.path.strip("/").split("/")[-1]
        assert number in visitor.open("/orders/").text
        assert "Still empty" in visitor.open("/basket/").text

    # It is nobody else's business.
    assert shop.get(f"/orders/{number}/").status_code == 302


def _in_stock(visitor: Visitor, first: str) -> str:
    """A product that can be bought."""
    if "/basket/add/" in visitor.open(first).text and "Only 1 left" not in visitor.page.text:
        return first
    for link in [link for link in visitor.links() if link.startswith("/product/")]:
        page = visitor.open(link).text
        if "/basket/add/" in page and "Only 1 left" not in page:
            return link
    raise AssertionError("everything is sold out")


def test_a_photo_is_uploaded_and_shown(shop: Site, shop_data: ShopData) -> None:
    with Visitor(shop) as customer:
        customer.submit(
            "", {"username": "customer", "password": "demo"}, on="/accounts/login/?next=/catalogue/"
        )
        product = next(link for link in customer.links() if link.startswith("/product/"))
        # Larger than any buffer on the way, so that it travels through a file.
        photo = PNG + os.urandom(3_000_000)
        fields = {"stars": "4", "text": "Sings like a nightingale."}
        customer.submit("/review/", fields, files={"photo": ("rose.png", photo, "image/png")}, on=product)
        assert customer.page.status_code == 200, customer.page.text
        assert "Thank you for your review" in customer.page.text
        assert "Sings like a nightingale." in customer.page.text
        shown = next(link for link in customer.links() if link.startswith("/media/reviews/"))
        assert customer.open(shown).content == photo
        assert (shop_data.directory / shown.removeprefix("/")).read_bytes() == photo

        customer.submit("/review/", fields, files={"photo": ("a.png", b"<html>", "image/png")}, on=product)
        assert customer.page.status_code == 422


def test_the_staff_works_in_the_admin(shop: Site) -> None:
    with Visitor(shop) as staff:
        staff.submit("", {"username": "admin", "password": "demo"}, on="/admin/login/?next=/admin/")
        assert "Behind the counter" in staff.page.text
        assert f"{PRODUCTS} products" in staff.open("/admin/catalogue/product/").text
        change = next(link for link in staff.links() if "/change/" in link)
        staff.open(change)
        assert staff.page.status_code == 200
        # The admin's own style sheets and scripts are served with hashed names.
        styles = [link for link in staff.links() if link.endswith(".css")]
        assert styles
        assert all(staff.open(style).headers["content-type"].startswith("text/css") for style in styles)


def test_the_csv_export_has_every_product(shop: Site) -> None:
    response = shop.get("/export/products.csv")
    assert response.headers["content-disposition"] == 'attachment; filename="products.csv"'
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["sku"] for row in rows] == [f"MC-{number:05d}" for number in range(1, PRODUCTS + 1)]


def test_the_api_speaks_json(shop: Site) -> None:
    listed = shop.get("/api/products/?category=guitars&page=1").json()
    assert listed["count"] == PRODUCTS / 10
    product = shop.get(f"/api/products/{listed['products'][0]['slug']}/").json()
    assert product["sku"] == listed["products"][0]["sku"]


def test_a_page_that_fails_is_a_500_with_one_traceback(shop: Site) -> None:
    shop.allow_log("this page fails on purpose")
    response = shop.get("/fail/")
    assert response.status_code == 500
    assert "A string broke" in response.text
    shop.log.wait_for("RuntimeError: this page fails on purpose")
    assert shop.log.count("^RuntimeError: this page fails on purpose") == 1
    assert shop.get("/hello/").text == "Hello, world!"


def test_a_forged_form_is_refused(shop: Site) -> None:
    response = shop.post("/basket/add/x/", data={"quantity": "1"}, headers={"Origin": "https://evil.example"})
    assert response.status_code == 403


def test_head_is_get_without_its_body(shop: Site) -> None:
    got, headed = shop.get("/catalogue/"), shop.fetch("HEAD", "/catalogue/")
    assert headed.status_code == 200
    assert headed.content == b""
    assert headed.headers["content-length"] == got.headers["content-length"]
