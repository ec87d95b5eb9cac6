"""What every page shows of the catalogue."""

from django.http import HttpRequest

from catalogue.models import Category


def categories(_request: HttpRequest) -> dict[str, object]:
    """The shelves, for the navigation; not fetched by pages that do not draw it."""
    return {"categories": Category.objects.all()}
