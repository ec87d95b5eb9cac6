"""Forms of basket and checkout."""

from django import forms

from orders.basket import QUANTITY_MAX
from orders.models import Order


class QuantityForm(forms.Form):
    """How many of a product."""

    quantity = forms.IntegerField(min_value=0, max_value=QUANTITY_MAX)


class CheckoutForm(forms.ModelForm):
    """Where the parcel goes."""

    class Meta:
        model = Order
        fields = ["name", "address"]
        widgets = {
            "name": forms.TextInput(attrs={"autocomplete": "name"}),
            "address": forms.Textarea(attrs={"rows": 4, "autocomplete": "street-address"}),
        }
