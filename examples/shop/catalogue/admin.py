"""The catalogue behind the counter."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from catalogue.models import Category, Product, Review


@admin.register(Category)
class CategoryAdmin(admin.ModelAdmin):
    """Shelves, in their order."""

    list_display = ["name", "motto", "products_count", "position"]
    list_editable = ["position"]
    prepopulated_fields = {"slug": ["name"]}
    search_fields = ["name"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Category]:
        """With the number of products, in one query."""
        return super().get_queryset(request).annotate(_products=Count("products"))

    @admin.display(description="products", ordering="_products")
    def products_count(self, category: Category) -> int:
        """How many products stand on it."""
        return category._products


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    """Products."""

    list_display = ["picture", "name", "category", "price", "stock", "added"]
    list_display_links = ["name"]
    list_filter = ["category", "added"]
    list_select_related = ["category"]
    list_per_page = 50
    search_fields = ["name", "sku", "summary"]
    prepopulated_fields = {"slug": ["name"]}
    autocomplete_fields = ["category"]
    date_hierarchy = "added"
    fieldsets = [
        (None, {"fields": ["name", "slug", "sku", "category", "image"]}),
        ("In the window", {"fields": ["summary", "description", "added", "popularity"]}),
        ("On the shelf", {"fields": ["price", "stock"]}),
    ]

    @admin.display(description="")
    def picture(self, product: Product) -> SafeString | str:
        """A thumbnail."""
        if not product.image:
            return "–"
        return format_html('<img src="{}" alt="" width="40" height="40">', product.image.url)


@admin.register(Review)
class ReviewAdmin(admin.ModelAdmin):
    """Reviews."""

    list_display = ["product", "stars", "author", "written"]
    list_filter = ["stars", "written"]
    list_select_related = ["product", "author"]
    search_fields = ["text", "product__name"]
    autocomplete_fields = ["product", "author"]
