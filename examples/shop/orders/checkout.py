"""Turning a basket into an order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import F

from catalogue.models import Product
from orders.basket import Basket
from orders.models import Order, OrderLine

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class OutOfStockError(Exception):
    """Somebody was quicker."""

    def __init__(self, product: Product) -> None:
        super().__init__(f"There are not enough of “{product.name}” left.")


def place(basket: Basket, customer: User, name: str, address: str) -> Order:
    """Takes the stock, writes the order and empties the basket: all of it or nothing."""
    # Always in the same order, so that two customers with the same things do not lock each other out.
    lines = sorted(basket, key=lambda line: line.product.pk)
    with transaction.atomic():
        for line in lines:
            enough = Product.objects.filter(pk=line.product.pk, stock__gte=line.quantity)
            if not enough.update(stock=F("stock") - line.quantity):
                raise OutOfStockError(line.product)
        order = Order.objects.create(
            customer=customer, name=name, address=address, total=sum(line.total for line in lines)
        )
        OrderLine.objects.bulk_create(
            OrderLine(order=order, product=line.product, quantity=line.quantity, price=line.product.price)
            for line in lines
        )
    basket.clear()
    return order
