"""Pages of the catalogue."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Avg, Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from catalogue import search
from catalogue.forms import ReviewForm
from catalogue.models import Category, Product

HOME_PRODUCTS = 8
RELATED_PRODUCTS = 4
REVIEWS_SHOWN = 20


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The shop window."""
    products = Product.objects.select_related("category").defer("description")
    return render(
        request,
        "catalogue/home.html",
        {
            "loved": products[:HOME_PRODUCTS],
            "newest": search.ordered(products, "newest")[:HOME_PRODUCTS],
            "count": Product.objects.count(),
        },
    )


@require_safe
def product_list(request: HttpRequest) -> HttpResponse:
    """All products, or those that match `q`."""
    query = request.GET.get("q", "").strip()
    title = f"“{query}”" if query else "Everything"
    return _list(request, search.matching(query), title=title, query=query)


@require_safe
def category(request: HttpRequest, slug: str) -> HttpResponse:
    """The products of one category."""
    shelf = get_object_or_404(Category, slug=slug)
    query = request.GET.get("q", "").strip()
    products = search.matching(query).filter(category=shelf)
    return _list(request, products, title=shelf.name, query=query, category=shelf)


def _list(request: HttpRequest, products: QuerySet[Product], **context: object) -> HttpResponse:
    order = request.GET.get("order", "popular")
    page = search.page_of(search.ordered(products, order), request.GET.get("page"))
    context |= {
        "page": page,
        "pages": page.paginator.get_elided_page_range(page.number, on_each_side=2, on_ends=1),
        "order": order,
        "orders": [(key, label) for key, (label, _) in search.ORDERS.items()],
    }
    return render(request, "catalogue/list.html", context)


@require_safe
def product(request: HttpRequest, slug: str) -> HttpResponse:
    """One product, its reviews, and others like it."""
    return _product_page(request, slug, ReviewForm())


@require_POST
@login_required
def review(request: HttpRequest, slug: str) -> HttpResponse:
    """Takes a review; shows the page again with what is wrong with it."""
    form = ReviewForm(request.POST, request.FILES)
    if not form.is_valid():
        return _product_page(request, slug, form, status=422)
    shown = get_object_or_404(Product, slug=slug)
    form.instance.product = shown
    form.instance.author = request.user
    form.instance.written = timezone.now()
    form.save()
    messages.success(request, "Thank you for your review.")
    return redirect(f"{shown.get_absolute_url()}#reviews")


def _product_page(request: HttpRequest, slug: str, form: ReviewForm, status: int = 200) -> HttpResponse:
    shown = get_object_or_404(Product.objects.select_related("category"), slug=slug)
    context = {
        "product": shown,
        "related": shown.related(RELATED_PRODUCTS),
        "rating": shown.reviews.aggregate(stars=Avg("stars"), count=Count("id")),
        "reviews": shown.reviews.select_related("author")[:REVIEWS_SHOWN],
        "form": form,
    }
    return render(request, "catalogue/product.html", context, status=status)
