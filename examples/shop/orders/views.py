"""Pages of basket, checkout and orders."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from catalogue.models import Product
from orders.basket import Basket
from orders.checkout import OutOfStockError, place
from orders.forms import CheckoutForm, QuantityForm
from orders.models import Order

# Orders shown to a customer; older ones are found by their number.
ORDERS_SHOWN = 50


@require_safe
def basket(request: HttpRequest) -> HttpResponse:
    """What is in the basket."""
    lines = list(Basket(request.session))
    return render(request, "orders/basket.html", {"lines": lines, "total": sum(line.total for line in lines)})


@require_POST
def add(request: HttpRequest, slug: str) -> HttpResponse:
    """Puts a product into the basket."""
    product = get_object_or_404(Product, slug=slug)
    form = QuantityForm(request.POST)
    if form.is_valid():
        Basket(request.session).add(product, form.cleaned_data["quantity"])
        messages.success(request, f"“{product.name}” is in your basket.")
    else:
        messages.error(request, "That is no quantity we can send.")
    return redirect("orders:basket")


@require_POST
def change(request: HttpRequest, slug: str) -> HttpResponse:
    """Changes the quantity of a product in the basket; nought takes it out."""
    product = get_object_or_404(Product, slug=slug)
    form = QuantityForm(request.POST)
    if form.is_valid():
        Basket(request.session).set(product, form.cleaned_data["quantity"])
    else:
        messages.error(request, "That is no quantity we can send.")
    return redirect("orders:basket")


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def checkout(request: HttpRequest) -> HttpResponse:
    """Asks for the address, then places the order."""
    contents = Basket(request.session)
    lines = list(contents)
    if not lines:
        messages.info(request, "Your basket is empty.")
        return redirect("catalogue:list")
    form = CheckoutForm(request.POST or None, initial={"name": request.user.get_full_name()})
    if request.method == "POST" and form.is_valid():
        try:
            placed = place(contents, request.user, **form.cleaned_data)
        except OutOfStockError as error:
            messages.error(request, str(error))
            return redirect("orders:basket")
        messages.success(request, "Thank you! Your order is placed.")
        return redirect(placed)
    context = {"form": form, "lines": lines, "total": sum(line.total for line in lines)}
    return render(request, "orders/checkout.html", context)


@login_required
@require_safe
def order_list(request: HttpRequest) -> HttpResponse:
    """The customer's orders."""
    return render(request, "orders/list.html", {"orders": request.user.orders.all()[:ORDERS_SHOWN]})


@login_required
@require_safe
def order(request: HttpRequest, number: str) -> HttpResponse:
    """One order; others' orders do not exist."""
    shown = get_object_or_404(Order, number=number, customer=request.user)
    lines = shown.lines.select_related("product", "product__category")
    return render(request, "orders/order.html", {"order": shown, "lines": lines})
