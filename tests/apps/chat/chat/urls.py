"""A page that gives the visitor a name."""

from django.http import HttpRequest, HttpResponse
from django.urls import path


def name(request: HttpRequest, name: str) -> HttpResponse:
    """Remember it in the session."""
    request.session["name"] = name
    return HttpResponse(f"hello {name}")


urlpatterns = [path("name/<name>", name)]
