"""The basket: product ids and quantities in the session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from django.contrib.sessions.backends.base import SessionBase

from catalogue.models import Product

SESSION_KEY = "basket"
# More of one thing is a matter for the telephone.
QUANTITY_MAX = 99
# Different products in a basket; keeps the session row small.
LINES_MAX = 50


@dataclass(frozen=True)
class Line:
    """A product in the basket."""

    product: Product
    quantity: int

    @property
    def total(self) -> Decimal:
        """Price times quantity."""
        return self.product.price * self.quantity


class Basket:
    """The basket of a session."""

    def __init__(self, session: SessionBase) -> None:
        self._session = session
        self._quantities: dict[str, int] = session.get(SESSION_KEY, {})

    def __len__(self) -> int:
        return sum(self._quantities.values())

    def __iter__(self) -> Iterator[Line]:
        products = Product.objects.select_related("category").in_bulk(self._quantities)
        for key, quantity in self._quantities.items():
            # A product may have left the shop since it was put in.
            if product := products.get(int(key)):
                yield Line(product, quantity)

    def set(self, product: Product, quantity: int) -> None:
        """Puts a quantity of the product in; nought takes it out. A full basket takes no new product."""
        key = str(product.pk)
        if quantity <= 0:
            self._quantities.pop(key, None)
        elif key in self._quantities or len(self._quantities) < LINES_MAX:
            self._quantities[key] = min(quantity, QUANTITY_MAX)
        self._session[SESSION_KEY] = self._quantities

    def add(self, product: Product, quantity: int = 1) -> None:
        """Puts some more of the product in."""
        self.set(product, self._quantities.get(str(product.pk), 0) + quantity)

    def clear(self) -> None:
        """Empties it."""
        self._quantities = {}
        self._session.pop(SESSION_KEY, None)
