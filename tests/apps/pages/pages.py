"""A Django project in one file, with the answers that compression has to tell apart. WSGI and ASGI."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Iterator

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.gzip import gzip_page

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of-the-tests",
    MIDDLEWARE=[
        "django.middleware.http.ConditionalGetMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
)
django.setup()

PAGE = (
    "<ul>\n" + "".join(f"<li>Piece number {number} of the shop</li>\n" for number in range(200)) + "</ul>\n"
)
TABLE = "".join(f"{number};violin;in stock\n" for number in range(20_000))

# One request lets another one go on.
_GO = threading.Semaphore(0)


def page(_request: HttpRequest) -> HttpResponse:
    """HTML, with an ETag and a Content-Length of the middleware."""
    return HttpResponse(PAGE)


def short(_request: HttpRequest) -> HttpResponse:
    """Not worth it."""
    return HttpResponse("<p>short</p>")


def data(_request: HttpRequest) -> JsonResponse:
    """JSON."""
    return JsonResponse({"rows": [{"number": number, "name": "violin"} for number in range(200)]})


@gzip_page
def own(_request: HttpRequest) -> HttpResponse:
    """What Django has compressed itself."""
    return HttpResponse(PAGE)


def picture(_request: HttpRequest) -> HttpResponse:
    """What would not get smaller, so far as anybody knows."""
    return HttpResponse(b"\0" * 4000, content_type="image/png")


def untouched(_request: HttpRequest) -> HttpResponse:
    """What nobody may change."""
    return HttpResponse(PAGE, headers={"Cache-Control": "no-transform"})


def part(_request: HttpRequest) -> HttpResponse:
    """A range, as an app answers that understands Range."""
    headers = {"Content-Range": f"bytes 0-1999/{len(PAGE)}", "Accept-Ranges": "bytes"}
    return HttpResponse(PAGE[:2000], status=206, headers=headers)


def rows(_request: HttpRequest) -> StreamingHttpResponse:
    """A line for each `go`, and a first one without."""

    def lines() -> Iterator[str]:
        yield "line 0\n"
        for number in range(1, 4):
            _GO.acquire(timeout=20)
            yield f"line {number}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain")


def go(_request: HttpRequest) -> HttpResponse:
    """Another line."""
    _GO.release()
    return HttpResponse(status=204)


def endless(_request: HttpRequest) -> StreamingHttpResponse:
    """Lines until the client has enough."""

    def lines() -> Iterator[str]:
        number = 0
        while True:
            yield f"{number};violin;in stock\n" * 100
            number += 1

    return StreamingHttpResponse(lines(), content_type="text/csv")


def table(_request: HttpRequest) -> FileResponse:
    """A file, by wsgi.file_wrapper if it is one of the system's; here from memory, piece by piece."""
    return FileResponse(io.BytesIO(TABLE.encode()), content_type="text/csv")


async def events(_request: HttpRequest) -> StreamingHttpResponse:
    """Two events."""

    async def stream() -> AsyncIterator[str]:
        yield "data: one\n\n"
        await asyncio.sleep(0.05)
        yield "data: two\n\n"

    return StreamingHttpResponse(stream(), content_type="text/event-stream")


urlpatterns = [
    path("page/", page),
    path("account/page/", page),
    path("short/", short),
    path("data/", data),
    path("own/", own),
    path("picture/", picture),
    path("untouched/", untouched),
    path("part/", part),
    path("rows/", rows),
    path("go/", go),
    path("endless/", endless),
    path("table/", table),
    path("events/", events),
]

application = get_wsgi_application()
asgi_application = get_asgi_application()
