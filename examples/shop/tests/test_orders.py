"""Basket, checkout, orders."""

from __future__ import annotations

from decimal import Decimal

from catalogue.models import Product
from orders.models import Order
from tests.base import ShopTestCase


class Buying(ShopTestCase):
    """From the shelf to the order."""

    def setUp(self) -> None:
        """Two products that are there."""
        self.first, self.second = Product.objects.filter(stock__gte=3)[:2]

    def put(self, product: Product, quantity: int) -> None:
        """Puts something into the basket."""
        response = self.client.post(f"/basket/add/{product.slug}/", {"quantity": quantity})
        self.assertRedirects(response, "/basket/", fetch_redirect_response=False)

    def test_basket_adds_up_and_changes(self) -> None:
        self.put(self.first, 1)
        self.put(self.first, 1)
        self.put(self.second, 1)
        response = self.client.get("/basket/")
        self.assertEqual(response.context["total"], 2 * self.first.price + self.second.price)
        self.client.post(f"/basket/change/{self.first.slug}/", {"quantity": 0})
        self.assertEqual(self.client.get("/basket/").context["total"], self.second.price)

    def test_nonsense_quantities_change_nothing(self) -> None:
        for quantity in (-1, "many", 1000):
            self.put(self.first, quantity)
        self.assertContains(self.client.get("/basket/"), "Still empty")

    def test_order_takes_the_stock_and_keeps_the_price(self) -> None:
        self.put(self.first, 2)
        self.client.force_login(self.customer)
        response = self.client.post("/checkout/", {"name": "Babik", "address": "Rue Lepic 1"}, follow=True)
        order = Order.objects.get()
        self.assertRedirects(response, order.get_absolute_url())
        self.assertEqual(order.total, 2 * self.first.price)
        self.assertEqual(Product.objects.get(pk=self.first.pk).stock, self.first.stock - 2)
        Product.objects.filter(pk=self.first.pk).update(price=Decimal("1.00"))
        self.assertEqual(order.lines.get().price, self.first.price)
        self.assertContains(self.client.get("/basket/"), "Still empty")

    def test_what_is_sold_meanwhile_is_not_sold_again(self) -> None:
        self.put(self.first, 2)
        self.put(self.second, 1)
        Product.objects.filter(pk=self.first.pk).update(stock=1)
        self.client.force_login(self.customer)
        response = self.client.post("/checkout/", {"name": "Babik", "address": "Rue Lepic 1"}, follow=True)
        self.assertContains(response, "There are not enough of")
        self.assertFalse(Order.objects.exists())
        self.assertEqual(Product.objects.get(pk=self.second.pk).stock, self.second.stock)

    def test_checkout_needs_a_login_and_a_basket(self) -> None:
        self.assertRedirects(self.client.get("/checkout/"), "/accounts/login/?next=/checkout/")
        self.client.force_login(self.customer)
        self.assertRedirects(self.client.get("/checkout/"), "/catalogue/")

    def test_an_order_is_seen_by_its_customer_only(self) -> None:
        order = Order.objects.create(customer=self.customer, name="x", address="y", total=1)
        self.client.force_login(self.admin)
        self.assertEqual(self.client.get(order.get_absolute_url()).status_code, 404)
        self.client.force_login(self.customer)
        self.assertContains(self.client.get(order.get_absolute_url()), order.number)
        self.assertContains(self.client.get("/orders/"), order.number)
