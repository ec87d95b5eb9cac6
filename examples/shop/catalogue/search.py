"""Finding and ordering products: one way for the pages and the API."""

from __future__ import annotations

from django.core.paginator import Page, Paginator
from django.db.models import Q, QuerySet

from catalogue.models import Product

PAGE_SIZE = 24
# More words than this do not make a search better, only slower.
WORDS_MAX = 6

ORDERS = {
    "popular": ("Most loved", ("-popularity", "id")),
    "newest": ("Newest first", ("-added", "-id")),
    "price": ("Price, low to high", ("price", "id")),
    "-price": ("Price, high to low", ("-price", "-id")),
}


def matching(query: str) -> QuerySet[Product]:
    """Products in whose name or summary every word of the query occurs."""
    products = Product.objects.select_related("category").defer("description")
    for word in query.split()[:WORDS_MAX]:
        products = products.filter(Q(name__icontains=word) | Q(summary__icontains=word))
    return products


def ordered(products: QuerySet[Product], order: str) -> QuerySet[Product]:
    """In one of ORDERS; an unknown word means the first."""
    _, fields = ORDERS.get(order, ORDERS["popular"])
    return products.order_by(*fields)


def page_of(products: QuerySet[Product], number: str | None) -> Page:
    """A page; numbers out of range give the nearest one."""
    return Paginator(products, PAGE_SIZE).get_page(number)
