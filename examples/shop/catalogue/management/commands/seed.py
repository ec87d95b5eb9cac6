"""`manage.py seed --products 5000`: fills the shop; a second run adds only what is missing."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from datetime import datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction
from django.utils.text import slugify

from catalogue.models import Category, Product, Review
from catalogue.stock import REVIEWERS, SHELVES, TODAY, Item, item, sku

PRODUCTS_DEFAULT = 5000
# SKUs have five digits.
PRODUCTS_MAX = 99_999
# One INSERT each; more is hardly faster and the bar would jump.
BATCH = 500
BAR_WIDTH = 32


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= PRODUCTS_MAX:
        raise argparse.ArgumentTypeError(f"between 1 and {PRODUCTS_MAX}")
    return number


class Command(BaseCommand):
    """Generates categories, products with pictures and reviews, and two accounts for the demo."""

    help = "Fills the shop with generated data. What is there already stays as it is."

    def add_arguments(self, parser: CommandParser) -> None:
        """--products, --password."""
        parser.add_argument("--products", type=_count, default=PRODUCTS_DEFAULT, help="how many in all")
        parser.add_argument(
            "--password", default="demo", help="of the accounts admin and customer, when made now"
        )

    def handle(self, *_: Any, products: int, password: str, **__: Any) -> None:
        """Seeds the accounts, the shelves, then the products in batches."""
        self._accounts(password)
        reviewers = self._reviewers()
        categories = self._categories()
        folder = Path(settings.MEDIA_ROOT) / "products"
        folder.mkdir(parents=True, exist_ok=True)
        known = set(Product.objects.values_list("sku", flat=True))
        # A new database may meet the pictures of an old one, and the other way round.
        drawn = {path.name for path in folder.glob("*.svg")}
        missing = [n for n in range(1, products + 1) if sku(n) not in known or picture(n) not in drawn]
        if not missing:
            self.stdout.write(f"{len(known)} products are there already.")
            return
        for start in range(0, len(missing), BATCH):
            items = [item(number) for number in missing[start : start + BATCH]]
            # Pictures first, so that no product ever points to a missing one.
            for generated in items:
                (folder / picture(generated.number)).write_text(generated.picture, encoding="utf-8")
            with transaction.atomic():
                self._insert([i for i in items if i.sku not in known], categories, reviewers)
            self._bar(start + len(items), len(missing))
        self.stdout.write(f"{products} products in {len(SHELVES)} categories.")

    def _insert(self, items: list[Item], categories: dict[str, Category], reviewers: dict[str, User]) -> None:
        """One batch."""
        Product.objects.bulk_create(_product(i, categories[i.shelf.slug]) for i in items)
        # Databases that do not hand back the keys of many rows at once need to be asked for them.
        keys = dict(Product.objects.filter(sku__in=[i.sku for i in items]).values_list("sku", "pk"))
        Review.objects.bulk_create(_reviews(items, keys, reviewers), batch_size=BATCH)

    def _accounts(self, password: str) -> None:
        """A superuser and a customer; an account that exists keeps its password."""
        if not User.objects.filter(username="admin").exists():
            User.objects.create_superuser("admin", "admin@example.org", password)
        if not User.objects.filter(username="customer").exists():
            User.objects.create_user(
                "customer", "customer@example.org", password, first_name="Stéphane", last_name="G."
            )

    def _reviewers(self) -> dict[str, User]:
        """People who wrote reviews; none of them can log in."""
        for name in REVIEWERS:
            # No valid hash begins with "!".
            User.objects.get_or_create(username=name, defaults={"password": "!"})
        return {user.username: user for user in User.objects.filter(username__in=REVIEWERS)}

    def _categories(self) -> dict[str, Category]:
        for position, shelf in enumerate(SHELVES):
            values = {"name": shelf.name, "motto": shelf.motto, "position": position}
            Category.objects.get_or_create(slug=shelf.slug, defaults=values)
        return {category.slug: category for category in Category.objects.all()}

    def _bar(self, done: int, total: int) -> None:
        """A bar that redraws itself on a terminal, and a line a batch elsewhere."""
        filled = BAR_WIDTH * done // total
        line = f"  [{'█' * filled}{'·' * (BAR_WIDTH - filled)}] {done}/{total} products"
        terminal = self.stdout.isatty()
        self.stdout.write(f"\r{line}" if terminal else line, ending="" if terminal and done < total else "\n")
        self.stdout.flush()


def picture(number: int) -> str:
    """The file name of a product's picture."""
    return f"{sku(number).lower()}.svg"


def _product(generated: Item, category: Category) -> Product:
    return Product(
        category=category,
        sku=generated.sku,
        name=generated.name,
        slug=slugify(generated.name),
        summary=generated.summary,
        description=generated.description,
        price=generated.price,
        stock=generated.stock,
        popularity=generated.popularity,
        image=f"products/{picture(generated.number)}",
        added=generated.added,
    )


def _reviews(items: Iterable[Item], keys: dict[str, int], reviewers: dict[str, User]) -> Iterable[Review]:
    noon = datetime.combine(TODAY, time(12), tzinfo=timezone.utc)
    for generated in items:
        for opinion in generated.opinions:
            yield Review(
                product_id=keys[generated.sku],
                author=reviewers[opinion.reviewer],
                stars=opinion.stars,
                text=opinion.text,
                written=noon - timedelta(days=opinion.days_ago),
            )
