"""Orders and their lines."""

from __future__ import annotations

import secrets

from django.conf import settings
from django.db import models
from django.urls import reverse

from catalogue.models import Product

# Letters and digits that are not mistaken for one another when read aloud.
NUMBER_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
NUMBER_LENGTH = 10


def new_number() -> str:
    """An order number that cannot be guessed from another one."""
    return "".join(secrets.choice(NUMBER_ALPHABET) for _ in range(NUMBER_LENGTH))


class Order(models.Model):
    """What somebody bought, at the prices of that day."""

    class Status(models.TextChoices):
        """How far it is."""

        PLACED = "placed", "Placed"
        SHIPPED = "shipped", "Shipped"
        CANCELLED = "cancelled", "Cancelled"

    number = models.CharField(max_length=NUMBER_LENGTH, unique=True, default=new_number, editable=False)
    customer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="orders")
    name = models.CharField("full name", max_length=120)
    address = models.TextField(max_length=400)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.PLACED)
    total = models.DecimalField(max_digits=10, decimal_places=2)
    placed = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ["-placed", "-id"]

    def __str__(self) -> str:
        return self.number

    def get_absolute_url(self) -> str:
        """The page of the order."""
        return reverse("orders:order", args=[self.number])


class OrderLine(models.Model):
    """A product in an order."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="+")
    quantity = models.PositiveIntegerField()
    price = models.DecimalField(max_digits=8, decimal_places=2)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.quantity} × {self.product}"

    @property
    def total(self) -> object:
        """Price times quantity."""
        return self.price * self.quantity
