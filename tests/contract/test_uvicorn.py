"""uvicorn's WebSocket and TLS tests: the app of each runs in the test's process, the server is quintet."""

from __future__ import annotations

import pytest

from suites import Suite, judge

INSIDE = "calls uvicorn's classes in process; no server is asked"
OWN = "uvicorn's own command line and settings"
SUITE = Suite(
    "uvicorn",
    "0.54.0",
    shim="uvicorn_shim",
    files=["tests/protocols/test_websocket.py", "tests/test_ssl.py"],
    options=("-p", "anyio"),
    left_out={
        "tests/benchmarks/*": "measures uvicorn's protocol classes in process",
        "tests/importer/*": "uvicorn's own way to find an app",
        "tests/middleware/*": INSIDE,
        "tests/protocols/test_http.py": "hands bytes to uvicorn's protocol classes over a mock transport; no socket",
        "tests/protocols/test_http2.py": "hands bytes to uvicorn's protocol classes over a mock transport; no socket",
        "tests/protocols/test_utils.py": INSIDE,
        "tests/supervisors/*": "uvicorn's own processes, which it watches in process",
        "tests/test_auto_detection.py": OWN,
        "tests/test_cli.py": OWN,
        "tests/test_compat.py": INSIDE,
        "tests/test_config.py": OWN,
        "tests/test_default_headers.py": "uvicorn's own settings for Server and Date",
        "tests/test_lifespan.py": INSIDE,
        "tests/test_main.py": OWN,
        "tests/test_server.py": "signals and sockets of uvicorn's server in the process of the test",
        "tests/test_subprocess.py": INSIDE,
    },
)
CLOSED = "the app has not gone wrong as a connection does (1006): it ended (1000), or broke the rules (1011)"
REASON = "ASGI 3.0: a disconnect message has a reason, too; uvicorn leaves it out"
NAME = "uvicorn's own name in Server, and its settings about it; quintet sends none"
INTERNALS = "looks into the connections of uvicorn's server"
OWN_SKIP = "uvicorn's suite skips this for the parser that is kept of its parameters"
DEVIATIONS = {
    "*::test_duplicate_handshake*": CLOSED,
    "*::test_asgi_return_value*": CLOSED,
    "*::test_close_transport_on_asgi_return*": CLOSED,
    "*::test_connection_lost_before_handshake_complete*": REASON,
    "*::test_server_reject_connection[[]*": REASON,
    "*::test_server_reject_connection_with_response*": REASON,
    "*::test_server_reject_connection_with_multibody_response*": REASON,
    "*::test_send_close_on_server_shutdown*": "a stop says 1001 (going away), a reload 1012 (service restart)",
    "*[[]h11-max=10 sent=11]": "a limit below 125 bytes, a frame that must always be taken, is not to be had",
    "*::test_server_reject_connection_with_invalid_status*": "the page of a 500 has a request id",
    "*::test_server_reject_connection_with_invalid_msg*": OWN_SKIP,
    "*::test_server_reject_connection_with_missing_body*": OWN_SKIP,
    "*::test_server_multiple_websocket_http_response_start_events*": OWN_SKIP,
    "*::test_frame_after_close_handshake_is_ignored*": INTERNALS,
    "*::test_server_keepalive_ping_pong*": INTERNALS,
    "*::test_server_keepalive_disabled*": INTERNALS,
    "*::test_default_server_headers*": NAME,
    "*::test_multiple_server_header*": NAME,
    "*::test_no_date_header*": "RFC 9110, 6.6.1: a server with a clock MUST send Date",
    "*::test_lifespan_state*": "objects in the state do not travel over the bridge; tests/e2e/test_asgi.py has this story",
    "*::test_server_keepalive_ping_timeout*": "1011 as there, in other words",
    "*::test_run_password": "a server that restarts by itself cannot ask for the password of a key",
    "*::test_run_ssl_context_factory_custom": "uvicorn's own hook for Python's TLS, which is not used here",
}
UNSTEADY = {
    "*[[]h11-max=defaults sent=defaults+1]": "the client still writes its 16 MB while it is told 1009, and trips over that",
    "*::test_client_connection_lost_on_send*": "the app sends in the moment in which the client leaves: here it is two processes away",
}


@pytest.mark.timeout(300)
def test_uvicorn() -> None:
    judge(SUITE.run(), DEVIATIONS, count=86, unsteady=UNSTEADY)
