"""A Django site of one file that notes each time one of its views really runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.urls import path

NOTES = Path(os.environ["TWICE_NOTES"])

settings.configure(
    SECRET_KEY="of a test",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SESSION_ENGINE="django.contrib.sessions.backends.file",
    SESSION_FILE_PATH=str(NOTES.parent),
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
)


def note(text: str) -> None:
    """One line; appended in one write, so that several processes may."""
    with NOTES.open("a") as notes:
        notes.write(text + "\n")


def who(request: HttpRequest) -> str:
    """The session's user."""
    return request.session.get("who", "nobody")


def enter(request: HttpRequest) -> HttpResponse:
    """Signs in."""
    request.session["who"] = request.GET["who"]
    return HttpResponse(f"hello {who(request)}")


def report(request: HttpRequest) -> HttpResponse:
    """Takes its time; tells whose it is, and whose process."""
    note(f"report {who(request)} begins")
    time.sleep(float(request.GET.get("seconds", "1")))
    note(f"report {who(request)} ends")
    return HttpResponse(f"report for {who(request)}, {request.GET.get('of', '')}")


def public(request: HttpRequest) -> HttpResponse:
    """The same for all."""
    note("public")
    time.sleep(1)
    return HttpResponse("for all", headers={"Cache-Control": "public, max-age=10"})


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """In pieces."""
    note(f"stream {who(request)}")

    def pieces() -> Iterator[str]:
        for number in range(5):
            time.sleep(0.2)
            yield f"{number} of {who(request)}\n"

    return StreamingHttpResponse(pieces(), content_type="text/plain")


def pay(request: HttpRequest) -> HttpResponse:
    """A form, and what is done with it."""
    if request.method == "POST":
        note(f"pay {who(request)} {request.POST['amount']}")
        time.sleep(float(request.POST.get("seconds", "0.5")))
        return HttpResponse(f"{who(request)} has paid {request.POST['amount']}", status=201)
    return HttpResponse(get_token(request))


urlpatterns = [
    path("enter", enter),
    path("report", report),
    path("public", public),
    path("stream", stream),
    path("pay", pay),
]
application = get_wsgi_application()
