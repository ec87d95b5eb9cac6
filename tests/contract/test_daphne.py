"""Daphne's tests of HTTP and WebSockets: what reaches the app, and what of its messages reaches the client."""

from __future__ import annotations

import pytest

from suites import Suite, judge

SUITE = Suite(
    "daphne",
    "4.2.3",
    shim="daphne_shim",
    files=["tests/test_http_request.py", "tests/test_http_response.py", "tests/test_websocket.py"],
    paths=(".", "tests"),
    rewritten=[
        # RFC 9112, 3.2: a request of HTTP/1.1 without Host MUST be refused.
        (
            "tests/http_base.py",
            r"putrequest\(method, (.*) skip_host=True",
            r"putrequest(method, \1 skip_host=False",
        ),
        # RFC 9110, 2.5: an answer carries the server's own version, 1.1.
        ("tests/test_http_response.py", "HTTP/1.0 500", "HTTP/1.1 500"),
        # ASGI 3.0: http_version belongs into the scope of a WebSocket, extensions and state may be there.
        ("tests/test_http_request.py", '"client", "server"}', '"client", "server", "extensions", "state"}'),
        (
            "tests/test_websocket.py",
            '"client", "server", "subprotocols"}',
            '"client", "server", "subprotocols", "http_version", "extensions", "state"}',
        ),
    ],
    left_out={
        "tests/test_checks.py": "Daphne's own check of INSTALLED_APPS",
        "tests/test_cli.py": "Daphne's own command line",
        "tests/test_http_protocol.py": "calls Daphne's classes in process; no server is asked",
        "tests/test_packaging.py": "Daphne's own plugin for Twisted",
        "tests/test_utils.py": "calls Daphne's functions in process; no server is asked",
    },
)
OURS = "wants exactly its own fields; quintet adds Date and X-Request-Id, to the request the latter"
WORDS = "wants Daphne's wording of an error; quintet raises it in the app, too, in other words"
PORT = "X-Forwarded-Port is passed on, not believed; the port of a client behind a proxy is not known"
HOPS = "RFC 9110, 7.6.1: Connection and Upgrade are between the client and us, over HTTP/2 there are none; Daphne passes them on"
ROOT_PATH = "Daphne-Root-Path: Daphne's own header for app.mount"
LEAST = "a limit below 125 bytes, a frame that must always be taken, is not to be had"
CONTROLS = "RFC 9110, 5.5: 0x85 is obs-text, which may be kept; Daphne refuses it since its splitter takes it for a line end"
UNSTEADY = {
    # Its examples are drawn at random.
    "*::test_kitchen_sink": "RFC 9110, 9.3.6: a CONNECT with a path, one of the methods that are drawn, is refused",
    "*::test_request_body_chunking": "the app gets a body as it was gathered, not in the pieces in which the client sent it",
}
DEVIATIONS = {
    "*::test_headers_are_lowercased_and_stripped": OURS,
    "*::test_root_path_header": ROOT_PATH,
    "*::test_x_forwarded_for_ignored": "of a peer that is not trusted, forwarded fields are taken away",
    "*::test_x_forwarded_for_no_port": "`client` is a tuple, which is an iterable of two",
    "*::test_x_forwarded_for_parsed": PORT,
    "*TestHTTPResponse::test_headers": OURS,
    "*TestHTTPResponse::test_headers_type": WORDS,
    "*TestHTTPResponse::test_status_code_required": WORDS,
    "*TestWebsocket::test_xff": PORT,
    "*TestWebsocket::test_http_bits": HOPS,
    "*TestWebsocket::test_root_path": ROOT_PATH,
    "*TestWebsocket::test_application_checker_handles_asyncio_cancellederror": "looks into Daphne's process",
    "*TestWebsocket::test_websocket_max_frame_size": LEAST,
    "*TestWebsocket::test_websocket_max_message_size": LEAST,
    "*TestHeaderValueInjection::test_http_request_rejects_invalid_header_value_bytes": CONTROLS,
    "*TestHeaderValueInjection::test_websocket_upgrade_rejects_smuggled_headers": CONTROLS,
}


@pytest.mark.timeout(300)
def test_daphne() -> None:
    judge(SUITE.run(), DEVIATIONS, count=40, unsteady=UNSTEADY)
