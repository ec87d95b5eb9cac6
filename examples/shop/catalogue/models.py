"""Categories, products and their reviews."""

from __future__ import annotations

import secrets
from pathlib import PurePath

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.urls import reverse

from catalogue.photos import validate_photo


class Category(models.Model):
    """A shelf of the shop."""

    name = models.CharField(max_length=60, unique=True)
    slug = models.SlugField(max_length=60, unique=True)
    motto = models.CharField(max_length=160, blank=True)
    position = models.PositiveSmallIntegerField(default=0, db_index=True)

    class Meta:
        ordering = ["position", "name"]
        verbose_name_plural = "categories"

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        """The page of the category."""
        return reverse("catalogue:category", args=[self.slug])


class Product(models.Model):
    """Something for sale."""

    category = models.ForeignKey(Category, on_delete=models.PROTECT, related_name="products")
    sku = models.CharField("SKU", max_length=16, unique=True)
    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=140, unique=True)
    summary = models.CharField(max_length=200)
    description = models.TextField()
    price = models.DecimalField(max_digits=8, decimal_places=2, validators=[MinValueValidator(0)])
    stock = models.PositiveIntegerField(default=0)
    # How much it is asked for; lists are ordered by it.
    popularity = models.PositiveIntegerField(default=0)
    image = models.FileField(upload_to="products/", blank=True)
    added = models.DateField()

    class Meta:
        ordering = ["-popularity", "id"]
        indexes = [
            models.Index(fields=["-popularity", "id"], name="product_popular"),
            models.Index(fields=["category", "-popularity", "id"], name="product_category_popular"),
            models.Index(fields=["-added", "-id"], name="product_newest"),
            models.Index(fields=["price", "id"], name="product_price"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        """The page of the product."""
        return reverse("catalogue:product", args=[self.slug])

    def related(self, count: int) -> models.QuerySet[Product]:
        """Others from the same shelf, the most popular first."""
        others = Product.objects.filter(category=self.category_id).exclude(pk=self.pk)
        return others.select_related("category")[:count]


def photo_path(_review: Review, filename: str) -> str:
    """A name nobody can guess or choose; only the suffix, which has been validated, is the sender's."""
    return f"reviews/{secrets.token_hex(12)}{PurePath(filename).suffix.lower()}"


class Review(models.Model):
    """What a customer says about a product, with a photo if there is one."""

    product = models.ForeignKey(Product, on_delete=models.CASCADE, related_name="reviews")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="reviews")
    stars = models.PositiveSmallIntegerField(
        choices=[(stars, "★" * stars) for stars in range(5, 0, -1)],
        validators=[MinValueValidator(1), MaxValueValidator(5)],
    )
    text = models.TextField(max_length=2000)
    photo = models.FileField(upload_to=photo_path, blank=True, validators=[validate_photo])
    written = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["-written", "-id"]

    def __str__(self) -> str:
        return f"{self.stars} of 5 for {self.product}"
