"""Forms of the catalogue."""

from django import forms

from catalogue.models import Review


class ReviewForm(forms.ModelForm):
    """Stars, a text, and perhaps a photo."""

    class Meta:
        model = Review
        fields = ["stars", "text", "photo"]
        widgets = {
            "text": forms.Textarea(attrs={"rows": 4, "placeholder": "How does it sound at home?"}),
            "photo": forms.ClearableFileInput(attrs={"accept": "image/png,image/jpeg,image/gif,image/webp"}),
        }
