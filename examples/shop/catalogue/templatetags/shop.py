"""Small helpers for templates."""

from __future__ import annotations

from decimal import Decimal

from django import template
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.filter
def euro(amount: Decimal) -> str:
    """1234.5 as "€ 1,234.50", the space not breaking."""
    return f"€\N{NO-BREAK SPACE}{amount:,.2f}"


@register.filter
def stars(rating: float | None) -> SafeString:
    """A rating as five stars, with words for those who do not see them."""
    full = round(rating or 0)
    return format_html(
        '<span class="stars" role="img" aria-label="{} of 5 stars">{}<i>{}</i></span>',
        full,
        "★" * full,
        "★" * (5 - full),
    )


@register.simple_tag(takes_context=True)
def with_query(context: template.Context, **changes: object) -> str:
    """The current query string with some parameters changed."""
    request: HttpRequest = context["request"]
    query = request.GET.copy()
    for name, value in changes.items():
        query[name] = str(value)
    return f"?{query.urlencode()}"
