"""What happens when an app raises: one answer, one log entry, and the worker goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from workers import Serve, ask_for_a_key_error, django_dir, eventually

RAISES = """
    import pathlib
    class Body:
        def __init__(self, *pieces): self.pieces = iter(pieces)
        def __iter__(self): return self
        def __next__(self):
            piece = next(self.pieces)
            if isinstance(piece, BaseException): raise piece
            return piece
        def close(self): pathlib.Path("closed").touch()
    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/before": raise KeyError("lost")
        start_response("200 OK", [("X-Own", "1")])
        if path == "/after-start": raise KeyError("lost")
        if path == "/first": return Body(KeyError("lost"))
        if path == "/later": return Body(b"some", b"", KeyError("lost"))
        if path == "/exit": raise SystemExit(3)
        if path == "/interrupt": raise KeyboardInterrupt
        if path == "/generator-exit": raise GeneratorExit
        return [b"fine"]
"""


@pytest.mark.every_python
@pytest.mark.parametrize("log_json", [False, True])
def test_an_exception_is_a_500_with_the_request_id_and_one_entry(serve: Serve, log_json: bool) -> None:
    worker = serve(RAISES, log_json=log_json)
    response, trace = ask_for_a_key_error(worker, log_json)
    assert response.reason == b"Internal Server Error"
    assert trace.count("File ") == 1
    assert worker.slot.get("/").body == b"fine"


@pytest.mark.parametrize("path", ["/after-start", "/first"])
def test_a_head_that_was_not_sent_is_replaced(serve: Serve, path: str) -> None:
    worker = serve(RAISES)
    response = worker.slot.get(path)
    assert (response.status, response.header("x-own")) == (500, None)
    assert worker.stderr().count("KeyError: 'lost'") == 1
    assert worker.slot.exchange(method="HEAD", target=path).body == b""


def test_a_response_that_has_begun_is_cut_off(serve: Serve, tmp_path: Path) -> None:
    worker = serve(RAISES)
    response = worker.slot.get("/later")
    assert (response.status, response.body, response.aborted) == (200, b"some", True)
    assert worker.slot.get("/").body == b"fine"
    assert (tmp_path / "closed").exists()
    assert worker.stderr().count("KeyError: 'lost'") == 1


def test_close_is_called_after_a_failure(serve: Serve, tmp_path: Path) -> None:
    worker = serve(RAISES)
    assert worker.slot.get("/first").status == 500
    eventually((tmp_path / "closed").exists)


@pytest.mark.parametrize("path", ["/exit", "/interrupt", "/generator-exit"])
def test_an_exit_ends_the_request_only(serve: Serve, path: str) -> None:
    worker = serve(RAISES)
    for _ in range(2):
        assert worker.slot.get(path).status == 500
    assert worker.slot.get("/").body == b"fine"
    assert worker.stderr().count("the app raised an exception") == 2


def test_a_close_that_raises_is_logged(serve: Serve) -> None:
    worker = serve(
        """
        class Body(list):
            def close(self): raise ValueError("cannot close")
        def app(environ, start_response):
            start_response("200 OK", [])
            return Body([b"fine"])
        """
    )
    for number in range(1, 3):
        assert worker.slot.get().body == b"fine"
        eventually(lambda: worker.stderr().count("ValueError: cannot close") == number)  # noqa: B023


def test_a_log_entry_obeys_no_control_characters(serve: Serve) -> None:
    worker = serve(
        """
        def app(environ, start_response):
            raise ValueError("\\x1b[31mred\\r\\n" + "\\udcff")
        """
    )
    worker.slot.get("/%1b%0a%0dERROR")
    assert "\x1b" not in worker.stderr()
    assert worker.stderr().count("\nERROR") == 0


def test_wsgi_errors_takes_text(serve: Serve) -> None:
    worker = serve(
        """
        def app(environ, start_response):
            errors = environ["wsgi.errors"]
            errors.write("wrote ä\\n")
            errors.writelines(["one\\n", "two\\n"])
            errors.flush()
            print("printed", file=errors)
            start_response("200 OK", [])
            return []
        """
    )
    worker.slot.get()
    assert worker.stderr() == "wrote ä\none\ntwo\nprinted\n"


DJANGO = """
    from django.urls import path
    def lost(request): raise KeyError("lost")
    urlpatterns = [path("lost", lost)]
"""


LOGGING = """
LOGGING = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"]},
}
"""


@pytest.mark.parametrize(
    ("settings", "entries_of_ours"),
    [
        pytest.param("", 1, id="Django's default only mails"),
        pytest.param("DEBUG_PROPAGATE_EXCEPTIONS = True", 1, id="propagated"),
        pytest.param("DEBUG = True", 0, id="Django writes with DEBUG"),
        pytest.param(LOGGING + "LOGGING['disable_existing_loggers'] = False", 0, id="the project writes"),
        pytest.param(LOGGING, 1, id="the project has disabled Django's loggers, as LOGGING does unless told"),
        pytest.param("LOGGING_CONFIG = None", 0, id="Python writes"),
    ],
)
def test_an_exception_of_a_view_is_written_once(
    serve: Serve, tmp_path: Path, settings: str, entries_of_ours: int
) -> None:
    more = f"SECRET_KEY = 'x'\nALLOWED_HOSTS = ['*']\nROOT_URLCONF = 'app'\n{settings}\n"
    (tmp_path / "own_settings.py").write_text(more)
    worker = serve(DJANGO, path=[django_dir("5.2")], app=None, settings="own_settings")
    assert worker.slot.exchange(target="/lost", request_id="the-id").status == 500
    logged = worker.stderr()
    assert logged.count("Traceback") == 1
    ours = 'the app raised an exception request_id="the-id" method="GET" path="/lost"'
    assert logged.count(ours) == entries_of_ours
