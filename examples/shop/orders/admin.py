"""Orders behind the counter."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from orders.models import Order, OrderLine


class OrderLineInline(admin.TabularInline):
    """The lines of an order; what was bought is not changed afterwards."""

    model = OrderLine
    extra = 0
    can_delete = False
    fields = readonly_fields = ["product", "quantity", "price"]

    def has_add_permission(self, _request: HttpRequest, _order: Order | None = None) -> bool:
        """Never."""
        return False


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    """Orders."""

    list_display = ["number", "customer", "name", "status", "total", "placed"]
    list_filter = ["status", "placed"]
    list_select_related = ["customer"]
    search_fields = ["number", "name", "customer__username"]
    date_hierarchy = "placed"
    readonly_fields = ["number", "customer", "total", "placed"]
    inlines = [OrderLineInline]
    actions = ["mark_shipped"]

    @admin.action(description="Mark as shipped")
    def mark_shipped(self, request: HttpRequest, orders: QuerySet[Order]) -> None:
        """Placed orders become shipped ones."""
        count = orders.filter(status=Order.Status.PLACED).update(status=Order.Status.SHIPPED)
        self.message_user(request, f"{count} marked as shipped.", messages.SUCCESS)

    def has_add_permission(self, _request: HttpRequest) -> bool:
        """Orders are placed in the shop."""
        return False
