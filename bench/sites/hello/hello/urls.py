"""Views: one answers at once, two wait like views that ask another service, one says who answers."""

import os
import time

from django.http import HttpRequest, HttpResponse
from django.urls import path

# The slow view of the `mixed` scenario (docs/benchmarks.md).
SLOW_SECONDS = 0.5
# That of `overload`: eight slots serve eighty a second.
SHORT_SECONDS = 0.1


def hello(_request: HttpRequest) -> HttpResponse:
    """A short string."""
    return HttpResponse("Hello, world!", content_type="text/plain")


def slow(_request: HttpRequest) -> HttpResponse:
    """The same string, half a second later. Sleeping costs no CPU: the generator keeps its core."""
    time.sleep(SLOW_SECONDS)
    return HttpResponse("Hello, at last!", content_type="text/plain")


def short(_request: HttpRequest) -> HttpResponse:
    """The same, a tenth of a second later."""
    time.sleep(SHORT_SECONDS)
    return HttpResponse("Hello, soon!", content_type="text/plain")


def pid(_request: HttpRequest) -> HttpResponse:
    """Who answers."""
    return HttpResponse(str(os.getpid()), content_type="text/plain")


urlpatterns = [path("hello", hello), path("slow", slow), path("short", short), path("pid", pid)]
