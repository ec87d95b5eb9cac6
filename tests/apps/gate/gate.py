"""A WSGI app that decides who may see what, and shows what it was asked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any

Environ = dict[str, Any]
Fields = list[tuple[str, str]]


def decide(environ: Environ) -> tuple[str, Fields, str]:
    """By the cookie `who`: its user passes, and `/check?…` makes trouble of each kind."""
    cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
    who = cookies["who"].value if "who" in cookies else ""
    asked = {key: environ.get(key) for key in ("REQUEST_METHOD", "HTTP_X_FORWARDED_METHOD")}
    asked |= {key: environ.get(key) for key in ("HTTP_X_FORWARDED_URI", "HTTP_X_FORWARDED_FOR", "HTTP_HOST")}
    asked |= {
        key: environ.get(key) for key in ("CONTENT_LENGTH", "HTTP_X_USER", "HTTP_UPGRADE", "HTTP_RANGE")
    }
    body = str(len(environ["wsgi.input"].read()))
    told = [("X-Asked", json.dumps(asked)), ("X-Body", body)]
    match who:
        case "":
            return "302 Found", [("Location", "/login"), *told], ""
        case "nobody":
            return "401 Unauthorized", [("WWW-Authenticate", "Bearer"), *told], "who are you?"
        case "guest":
            return "403 Forbidden", [("Content-Type", "text/plain"), *told], "not you, guest"
        case "slow":
            time.sleep(2)
        case "broken":
            raise RuntimeError("the gate is broken")
        case "odd":
            return "404 Not Found", [], "no such page"
        case "much":
            return "200 OK", [("X-User", "x" * 20000)], ""
    fields = [("X-User", who), ("X-Roles", "reader"), ("X-Roles", "writer"), ("X-Secret", "kept"), *told]
    return "200 OK", [*fields, ("Set-Cookie", f"seen={who}; Path=/"), ("Set-Cookie", "page=gate")], "yes"


def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
    """`/check` decides; any other page shows what came to it."""
    if environ["PATH_INFO"] == "/check":
        status, fields, body = decide(environ)
    else:
        time.sleep(0.5 if environ["PATH_INFO"] == "/slow" else 0)
        shown = {key: value for key, value in environ.items() if isinstance(value, str)}
        shown["body"] = environ["wsgi.input"].read().decode()
        fields = [("Content-Type", "application/json")]
        # What is asked for slowly may be shared.
        fields += [("Set-Cookie", "page=own")] if environ["PATH_INFO"] != "/slow" else []
        status = "200 OK"
        body = json.dumps(shown)
    start_response(status, [*fields, ("Content-Length", str(len(body)))])
    return [body.encode()]
