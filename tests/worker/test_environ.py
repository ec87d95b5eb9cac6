"""The environ, key by key: PEP 3333, "environ Variables"."""

from __future__ import annotations

import pytest
from link import SHOWN, Worker, pem
from workers import Serve

SHOW = """
    import json

    def plain(value):
        if isinstance(value, (str, bool, int, tuple)):
            return value
        return type(value).__name__

    def app(environ, start_response):
        assert type(environ) is dict
        body = json.dumps({key: plain(value) for key, value in environ.items()}).encode()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [body]
"""


@pytest.fixture
def shown(serve: Serve) -> Worker:
    """An app that answers with its environ."""
    return serve(SHOW)


@pytest.mark.every_python
def test_everything_the_standard_asks_for(shown: Worker, package_version: str) -> None:
    headers = [("host", "shop.example:8080"), ("user-agent", "test/1"), ("accept", "*/*")]
    environ = shown.slot.get("/a/b?x=1&y=%20", headers=headers, server=("shop.example", 8080)).json
    assert environ == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "x=1&y=%20",
        "RAW_URI": "/a/b?x=1&y=%20",
        "REQUEST_URI": "/a/b?x=1&y=%20",
        "SERVER_NAME": "shop.example",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": f"quintet/{package_version}",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "50123",
        "HTTP_HOST": "shop.example:8080",
        "HTTP_USER_AGENT": "test/1",
        "HTTP_ACCEPT": "*/*",
        "HTTP_X_REQUEST_ID": "req-1",
        "wsgi.version": [1, 0],
        "wsgi.url_scheme": "http",
        "wsgi.input": "EmptyInput",
        "wsgi.input_terminated": True,
        "wsgi.errors": "TextIOWrapper",
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": "type",
    }


def test_nothing_is_left_of_the_request_before(shown: Worker) -> None:
    first = shown.slot.exchange(
        method="POST",
        target="/%C3%A4?q=1",
        headers=[("host", "a"), ("cookie", "session=1"), ("content-type", "text/plain"), ("x-own", "1")],
        body=b"abc",
        scheme="https",
        version=20,
        mount="",
        remote=("2001:db8::1", 1),
        request_id="one",
    ).json
    assert first["CONTENT_LENGTH"] == "3"
    assert first["HTTPS"] == "on"
    second = shown.slot.get("/plain", request_id="two", remote=("", 0)).json
    gone = {"CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_COOKIE", "HTTP_X_OWN", "HTTPS"}
    assert gone.isdisjoint(second)
    assert second["QUERY_STRING"] == ""
    assert second["REQUEST_METHOD"] == "GET"
    assert second["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert second["wsgi.url_scheme"] == "http"
    assert second["wsgi.input"] == "EmptyInput"
    assert second["REMOTE_ADDR"] == ""
    assert second["HTTP_X_REQUEST_ID"] == "two"


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/?", "/", ""),
        ("/a%2Fb%20c", "/a/b c", ""),
        ("/%C3%A4", "/Ã¤", ""),
        ("/100%", "/100%", ""),
        ("/%zz%4", "/%zz%4", ""),
        ("/%25?%25", "/%", "%25"),
        ("/%00", "/\x00", ""),
        ("/a?b?c", "/a", "b?c"),
        ("*", "", ""),
        (b"/raw\xff", "/raw\xff", ""),
    ],
)
def test_the_path_is_decoded_and_the_query_is_not(
    shown: Worker, target: str | bytes, path: str, query: str
) -> None:
    environ = shown.slot.exchange(target=target).json
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == (path, query)
    raw = target if isinstance(target, str) else target.decode("latin-1")
    assert environ["REQUEST_URI"] == raw


@pytest.mark.parametrize(
    ("target", "mount", "script", "path"),
    [
        ("/shop/list", "/shop", "/shop", "/list"),
        ("/shop", "/shop", "/shop", ""),
        ("/sh%6Fp/x", "/shop", "/shop", "/x"),
        ("/shopping", "/shop", "", "/shopping"),
    ],
)
def test_a_mount_is_the_script_name(shown: Worker, target: str, mount: str, script: str, path: str) -> None:
    environ = shown.slot.get(target, mount=mount).json
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script, path)


def test_repeated_headers_are_joined(shown: Worker) -> None:
    headers = [
        ("cookie", "a=1"),
        ("x-own", "1"),
        ("accept", "text/html"),
        ("cookie", "b=2"),
        ("accept", "*/*"),
        ("x-own", "2"),
        ("x-own", "3"),
        ("x-" + "long" * 30, "1"),
        ("x-" + "long" * 30, "2"),
    ]
    for _ in range(2):
        environ = shown.slot.get(headers=headers).json
        assert environ["HTTP_COOKIE"] == "a=1; b=2"
        assert environ["HTTP_ACCEPT"] == "text/html,*/*"
        assert environ["HTTP_X_OWN"] == "1,2,3"
        assert environ["HTTP_X_" + "LONG" * 30] == "1,2"


def test_who_the_client_is_by_its_certificate(shown: Worker) -> None:
    def of_client(client: tuple[str, ...] | None) -> dict[str, str]:
        environ = shown.slot.get("/", scheme="https", tls=(0x304, 0x1301), client=client).json
        return {key: value for key, value in environ.items() if key.startswith("SSL_")}

    assert of_client(SHOWN) == {
        "SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_CLIENT_S_DN": "CN=anna",
        "SSL_CLIENT_S_DN_CN": "anna",
        "SSL_CLIENT_I_DN": "CN=authority",
        "SSL_CLIENT_SERIAL": "01AB",
        "SSL_CLIENT_M_SERIAL": "01AB",
        "SSL_CLIENT_FINGERPRINT": "f00d",
        "SSL_CLIENT_V_START": "Jan  2 00:00:00 2026 GMT",
        "SSL_CLIENT_V_END": "Jan  2 00:00:00 2027 GMT",
        "SSL_CLIENT_CERT": pem("own"),
        "SSL_CLIENT_CERT_CHAIN_0": pem("over it"),
    }
    assert of_client(()) == {"SSL_CLIENT_VERIFY": "NONE"}
    assert of_client(None) == {}


def test_values_are_latin_1(shown: Worker) -> None:
    environ = shown.slot.get(headers=[("x-own", b"\xe4\xff\x80"), ("x-empty", "")]).json
    assert environ["HTTP_X_OWN"] == "\xe4\xff\x80"
    assert environ["HTTP_X_EMPTY"] == ""


def test_headers_that_would_lie_are_dropped(shown: Worker) -> None:
    headers = [
        ("x_real_ip", "10.0.0.1"),
        ("proxy", "http://evil.example"),
        ("transfer-encoding", "chunked"),
        ("x-request-id", "the client's"),
        ("content_length", "7"),
    ]
    environ = shown.slot.get(headers=headers, request_id="ours").json
    assert environ["HTTP_X_REQUEST_ID"] == "ours"
    names = {
        "HTTP_X_REAL_IP",
        "HTTP_PROXY",
        "HTTP_TRANSFER_ENCODING",
        "CONTENT_LENGTH",
        "HTTP_CONTENT_LENGTH",
    }
    assert names.isdisjoint(environ)


def test_the_length_is_that_of_the_body(shown: Worker) -> None:
    headers = [("content-length", "999"), ("content-type", "text/plain; charset=utf-8")]
    environ = shown.slot.exchange(method="POST", headers=headers, body=b"12345").json
    assert environ["CONTENT_LENGTH"] == "5"
    assert environ["CONTENT_TYPE"] == "text/plain; charset=utf-8"
    assert {"HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"}.isdisjoint(environ)
    assert shown.slot.exchange(method="POST", headers=[("content-length", "0")]).json["CONTENT_LENGTH"] == "0"
    assert "CONTENT_LENGTH" not in shown.slot.exchange(method="POST", headers=[]).json


def test_more_names_than_are_remembered(shown: Worker) -> None:
    for batch in range(5):
        headers = [(f"x-{batch}-{number}", str(number)) for number in range(100)]
        environ = shown.slot.get(headers=headers + headers[:1]).json
        assert environ[f"HTTP_X_{batch}_0"] == "0,0"
        assert all(environ[f"HTTP_X_{batch}_{number}"] == str(number) for number in range(1, 100))


@pytest.mark.parametrize(("version", "protocol"), [(10, "HTTP/1.0"), (11, "HTTP/1.1"), (20, "HTTP/2.0")])
def test_protocol_scheme_and_method(shown: Worker, version: int, protocol: str) -> None:
    environ = shown.slot.exchange(method="PROPFIND", version=version, scheme="https").json
    assert environ["SERVER_PROTOCOL"] == protocol
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["REQUEST_METHOD"] == "PROPFIND"


def test_multithread_is_the_truth(serve: Serve) -> None:
    worker = serve(SHOW, threads=2)
    assert worker.slots[1].get().json["wsgi.multithread"] is True


def test_an_environ_that_the_app_keeps_and_changes_stays_its_own(serve: Serve) -> None:
    worker = serve(
        """
        kept = []
        def app(environ, start_response):
            kept.append((environ, start_response))
            environ["wsgi.version"] = "spoiled"
            environ["extra"] = len(kept)
            start_response("200 OK", [])
            return [",".join(e["PATH_INFO"] + str(e["extra"]) for e, _ in kept).encode()]
        """
    )
    worker.slot.get("/a")
    assert worker.slot.get("/b").body == b"/a1,/b2"
