"""Somebody with a browser's habits: cookies, forms with their hidden fields, redirects followed."""

from __future__ import annotations

import html.parser
from types import TracebackType
from typing import Any

import httpx

from harness.site import Site


class _Forms(html.parser.HTMLParser):
    """Collects the forms of a page: action and the values of their inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[tuple[str, dict[str, str]]] = []
        self.links: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._inside = True
            self.forms.append((values.get("action", ""), {}))
        elif tag in {"input", "button"} and self._inside and values.get("name"):
            if values.get("type") not in {"file", "checkbox", "radio", "submit"}:
                self.forms[-1][1][values["name"]] = values.get("value", "")
        elif tag in {"a", "img", "link", "script"}:
            self.links += [values[name] for name in ("href", "src") if values.get(name)]

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False


class Visitor:
    """A visitor of a site; a context manager."""

    def __init__(self, site: Site, **options: Any) -> None:
        self._client = site.client(follow_redirects=True, **options)
        self.page: httpx.Response | None = None

    def __enter__(self) -> Visitor:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._client.close()

    def open(self, path: str) -> httpx.Response:
        """Open a page."""
        self.page = self._client.get(path)
        return self.page

    def submit(
        self, action: str, fields: dict[str, Any], files: dict[str, Any] | None = None, on: str | None = None
    ) -> httpx.Response:
        """Fill in and send the form of the open page whose action contains `action`; "" is the page's own address."""
        if on is not None:
            self.open(on)
        here = self.page.url
        own = {"", here.path, here.raw_path.decode()}
        form = next(
            (form for form in self.forms() if (action in form[0] if action else form[0] in own)), None
        )
        assert form, f"no form to {action!r} on {here}: {self.forms()}"
        self.page = self._client.post(
            here.join(form[0].split("#")[0]),
            data=form[1] | fields,
            files=files,
            headers={"Referer": str(here)},
        )
        return self.page

    def forms(self) -> list[tuple[str, dict[str, str]]]:
        """The forms of the open page."""
        return self._parsed().forms

    def links(self) -> list[str]:
        """What the open page links to and shows."""
        return self._parsed().links

    def _parsed(self) -> _Forms:
        parser = _Forms()
        parser.feed(self.page.text)
        return parser
