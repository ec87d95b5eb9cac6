"""The JSON API: products, read only."""

from __future__ import annotations

from django.db.models import Avg, Count
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from catalogue import search
from catalogue.models import Product


@require_safe
def product_list(request: HttpRequest) -> JsonResponse:
    """A page of products: `q`, `category` (slug), `order` and `page` as on the list page."""
    products = search.matching(request.GET.get("q", ""))
    if slug := request.GET.get("category"):
        products = products.filter(category__slug=slug)
    page = search.page_of(search.ordered(products, request.GET.get("order", "")), request.GET.get("page"))
    return JsonResponse(
        {
            "count": page.paginator.count,
            "page": page.number,
            "pages": page.paginator.num_pages,
            "products": [_brief(product) for product in page],
        }
    )


@require_safe
def product(_request: HttpRequest, slug: str) -> JsonResponse:
    """One product with its rating."""
    shown = get_object_or_404(Product.objects.select_related("category"), slug=slug)
    rating = shown.reviews.aggregate(stars=Avg("stars"), count=Count("id"))
    return JsonResponse(
        _brief(shown)
        | {
            "description": shown.description,
            "added": shown.added.isoformat(),
            "stars": rating["stars"] and round(rating["stars"], 2),
            "reviews": rating["count"],
        }
    )


def _brief(product: Product) -> dict[str, object]:
    return {
        "sku": product.sku,
        "name": product.name,
        "slug": product.slug,
        "url": product.get_absolute_url(),
        "category": product.category.slug,
        "summary": product.summary,
        "price": str(product.price),
        "in_stock": product.stock > 0,
        "image": product.image.url if product.image else None,
    }
