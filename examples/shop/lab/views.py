"""Views for trying out a server."""

from __future__ import annotations

import time

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import render

SECONDS_DEFAULT = 0.5
# Long enough to watch a drain, short enough not to be a weapon.
SECONDS_MAX = 30.0


def hello(_request: HttpRequest) -> HttpResponse:
    """As little as a view can do."""
    return HttpResponse("Hello, world!", content_type="text/plain; charset=utf-8")


def slow(request: HttpRequest) -> HttpResponse:
    """Sleeps as long as `seconds` says, like a view that waits for somebody else's server."""
    try:
        seconds = float(request.GET.get("seconds", SECONDS_DEFAULT))
    except ValueError:
        return HttpResponseBadRequest("seconds is no number\n", content_type="text/plain")
    # Written so that NaN is refused too.
    if not 0 <= seconds <= SECONDS_MAX:
        message = f"seconds must be between 0 and {SECONDS_MAX:g}\n"
        return HttpResponseBadRequest(message, content_type="text/plain")
    time.sleep(seconds)
    return render(request, "lab/slow.html", {"seconds": seconds})


def fail(_request: HttpRequest) -> HttpResponse:
    """Fails."""
    raise RuntimeError("this page fails on purpose")
