"""Accounts, admin, the lab, settings and the seed."""

from __future__ import annotations

import io
from pathlib import Path
from unittest import mock

from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import SimpleTestCase

from catalogue.models import Product, Review
from catalogue.stock import item
from orders.models import Order
from shop.database import from_url
from tests.base import PRODUCTS, ShopTestCase


class Accounts(ShopTestCase):
    """Signing up and logging in."""

    def test_sign_up_logs_in_and_keeps_the_basket(self) -> None:
        product = Product.objects.first()
        self.client.post(f"/basket/add/{product.slug}/", {"quantity": 1})
        passwords = {"password1": "nuages-1940", "password2": "nuages-1940"}
        self.assertRedirects(self.client.post("/accounts/signup/", {"username": "sarane"} | passwords), "/")
        self.assertContains(self.client.get("/basket/"), product.name)
        self.assertTrue(User.objects.filter(username="sarane").exists())

    def test_log_in_and_out(self) -> None:
        response = self.client.post("/accounts/login/", {"username": "customer", "password": "demo"})
        self.assertRedirects(response, "/")
        self.assertContains(self.client.get("/"), "orders")
        self.client.post("/accounts/logout/")
        self.assertContains(self.client.get("/"), "Log in")

    def test_reviewers_cannot_log_in(self) -> None:
        self.assertFalse(self.client.login(username="Babik", password="!"))


class Admin(ShopTestCase):
    """Behind the counter."""

    def test_lists_and_forms_open(self) -> None:
        self.client.force_login(self.admin)
        product = Product.objects.first()
        Order.objects.create(customer=self.customer, name="x", address="y", total=1)
        for path in (
            "/admin/",
            "/admin/catalogue/category/",
            "/admin/catalogue/product/?q=guitar",
            f"/admin/catalogue/product/{product.pk}/change/",
            "/admin/catalogue/review/",
            "/admin/orders/order/",
        ):
            self.assertEqual(self.client.get(path).status_code, 200, path)

    def test_orders_are_marked_as_shipped(self) -> None:
        self.client.force_login(self.admin)
        order = Order.objects.create(customer=self.customer, name="x", address="y", total=1)
        self.client.post("/admin/orders/order/", {"action": "mark_shipped", "_selected_action": [order.pk]})
        order.refresh_from_db()
        self.assertEqual(order.status, Order.Status.SHIPPED)


class Lab(ShopTestCase):
    """The pages for trying out a server."""

    def test_hello(self) -> None:
        with self.assertNumQueries(0):
            self.assertEqual(self.client.get("/hello/").content, b"Hello, world!")

    def test_slow(self) -> None:
        with mock.patch("time.sleep") as sleep:
            self.assertContains(self.client.get("/slow/?seconds=0.25"), "0.25")
        sleep.assert_called_once_with(0.25)
        for seconds in ("nan", "-1", "31", "inf", "x"):
            self.assertEqual(self.client.get("/slow/", {"seconds": seconds}).status_code, 400)

    def test_fail(self) -> None:
        self.client.raise_request_exception = False
        with self.assertLogs("django.request", "ERROR"):
            response = self.client.get("/fail/")
        self.assertContains(response, "A string broke", status_code=500)


class Seed(ShopTestCase):
    """The generated data."""

    def test_again_changes_nothing(self) -> None:
        before = (Product.objects.count(), Review.objects.count(), User.objects.count())
        call_command("seed", products=PRODUCTS, stdout=io.StringIO())
        self.assertEqual((Product.objects.count(), Review.objects.count(), User.objects.count()), before)

    def test_more_adds_the_rest(self) -> None:
        out = io.StringIO()
        call_command("seed", products=PRODUCTS + 5, stdout=out)
        self.assertEqual(Product.objects.count(), PRODUCTS + 5)
        self.assertIn("5/5 products", out.getvalue())

    def test_lost_pictures_are_drawn_again(self) -> None:
        lost = Path(Product.objects.first().image.path)
        before = lost.read_text()
        lost.unlink()
        call_command("seed", products=PRODUCTS, stdout=io.StringIO())
        self.assertEqual(lost.read_text(), before)

    def test_number_n_is_always_the_same(self) -> None:
        self.assertEqual(item(42), item(42))
        stored = Product.objects.get(sku="MC-00042")
        self.assertEqual((stored.name, stored.price), (item(42).name, item(42).price))

    def test_nonsense_counts_are_refused(self) -> None:
        for count in ("0", "100000", "many"):
            with self.assertRaises(CommandError):
                call_command("seed", "--products", count, stdout=io.StringIO())


class DatabaseUrl(SimpleTestCase):
    """DATABASE_URL."""

    def test_sqlite(self) -> None:
        self.assertEqual(
            from_url("sqlite:////data/a%20b.sqlite3", Path("/base"))["NAME"], Path("/data/a b.sqlite3")
        )
        self.assertEqual(from_url("sqlite:///db.sqlite3", Path("/base"))["NAME"], Path("/base/db.sqlite3"))

    def test_postgres(self) -> None:
        entry = from_url("postgres://me:p%40ss@db.example:6543/shop?sslmode=require", Path("/base"))
        self.assertEqual((entry["HOST"], entry["PORT"], entry["NAME"]), ("db.example", "6543", "shop"))
        self.assertEqual((entry["USER"], entry["PASSWORD"]), ("me", "p@ss"))
        self.assertEqual(entry["OPTIONS"], {"sslmode": "require"})

    def test_postgres_socket(self) -> None:
        for url in ("postgres://me@%2Frun%2Fpg:5433/shop", "postgres://me@/shop?host=/run/pg&port=5433"):
            entry = from_url(url, Path("/base"))
            self.assertEqual((entry["HOST"], entry["PORT"]), ("/run/pg", "5433"))

    def test_others_are_refused(self) -> None:
        with self.assertRaisesMessage(ValueError, "mysql"):
            from_url("mysql://x/y", Path("/base"))
