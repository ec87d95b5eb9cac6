"""waitress' functional tests: raw sockets, HTTP/1.0 and 1.1, every corner of WSGI's bodies and lengths."""

from __future__ import annotations

import pytest

from suites import Suite, judge

INSIDE = "calls waitress' classes in process; no server is asked"
FILE = "tests/test_functional.py"
SUITE = Suite(
    "waitress",
    "3.0.2",
    shim="waitress_shim",
    files=[FILE],
    paths=(".", "src"),
    rewritten=[
        # quintet does not name itself; what it says of its own accord are the other fields.
        (FILE, r'assertEqual\(headers.get\("server"\), "waitress"\)', 'assertIsNone(headers.get("server"))'),
        (
            FILE,
            r"assertEqual\(\s*sorted\(headers\.keys\(\)\),\s*\[[^\]]*\],\s*\)",
            'assertLessEqual({"content-length", "content-type", "date"}, set(headers))',
        ),
        # RFC 9110, 7.6.1: connection options are case-insensitive.
        (FILE, r'(assertEqual\([^)]*\)?), "Keep-Alive"\)', r'\1, "keep-alive")'),
        # RFC 9112, 3.2: a request of HTTP/1.1 without Host MUST be refused.
        (FILE, r"( /\S* HTTP/1\.1\\r\\n)", r"\1Host: test\\r\\n"),
        # RFC 9110, 2.5: an answer carries the server's own version, 1.1.
        (FILE, r'(assertline\([^)]*)"HTTP/1\.0"', r'\1"HTTP/1.1"'),
        # PEP 3333 has no REMOTE_HOST.
        ("tests/fixtureapps/echo.py", r'environ\["REMOTE_HOST"\]', 'environ["REMOTE_ADDR"]'),
    ],
    left_out={
        "tests/test_adjustments.py": "waitress' own settings",
        "tests/test_buffers.py": INSIDE,
        "tests/test_channel.py": INSIDE,
        "tests/test_init.py": INSIDE,
        "tests/test_parser.py": INSIDE,
        "tests/test_proxy_headers.py": INSIDE,
        "tests/test_receiver.py": INSIDE,
        "tests/test_regression.py": INSIDE,
        "tests/test_runner.py": "waitress' own command line",
        "tests/test_server.py": INSIDE,
        "tests/test_task.py": INSIDE,
        "tests/test_trigger.py": INSIDE,
        "tests/test_utilities.py": INSIDE,
        "tests/test_wasyncore.py": INSIDE,
    },
)
SILENT = "an error tells the client a request id; what was wrong stands in the log"
KEPT = "an error of the app is answered completely; the connection need not suffer"
DIVINED = "the length of a list of two is known, too: Content-Length instead of chunks, or of closing"
NO_LINE = "what follows the body is a request line without an end: 408 when its time is over, 414 when it is too long"
# Each stands for the test over TCP and over a unix socket.
DEVIATIONS = {
    "*EchoTests::test_broken_chunked_encoding_invalid_extension": (
        "RFC 9112, 7.1.1: chunk extensions that are not understood are ignored; they are not parsed"
    ),
    "*EchoTests::test_broken_chunked_encoding_invalid_hex": SILENT,
    "*EchoTests::test_broken_chunked_encoding_missing_chunk_end": SILENT,
    "*EchoTests::test_proxy_headers": "X-Forwarded-Port of a trusted proxy reaches the app as it came",
    "*ExpectContinueTests::test_expect_continue": (
        "RFC 9110, 10.1.1: a server may omit the 100 when the body has come already; here it came with the head"
    ),
    "*NoContentLengthTests::test_http10_listlentwo": DIVINED,
    "*NoContentLengthTests::test_http11_listlentwo": DIVINED,
    "*NoContentLengthTests::test_http11_generator": "chunks are numbered in lower case, and need no closing at their end",
    "*WriteCallbackTests::test_long_body": "PEP 3333: write() beyond Content-Length is an error of the app, not cut off",
    "*TooLargeTests::test_request_body_too_large_chunked_encoding": (
        "the chunk lacks its CRLF: refused as malformed (400) before it is found too large (413)"
    ),
    "*TooLargeTests::test_request_body_too_large_with_no_cl_http10_keepalive": NO_LINE,
    "*TooLargeTests::test_request_body_too_large_with_no_cl_http11": NO_LINE,
    "*TooLargeTests::test_request_body_too_large_with_wrong_cl_http10_keepalive": NO_LINE,
    "*TooLargeTests::test_request_body_too_large_with_wrong_cl_http11": NO_LINE,
    "*InternalServerErrorTests::test_after_start_response_http11": KEPT,
    "*InternalServerErrorTests::test_before_start_response_http_11": KEPT,
    "*InternalServerErrorTestsWithTraceback::test_expose_tracebacks_http_11": KEPT,
    "*InternalServerErrorTests::test_after_write_cb": "the app writes text instead of bytes: 500 instead of an empty 200",
    "*InternalServerErrorTests::test_in_generator": "the app yields text instead of bytes: 500 instead of an empty 200",
    "*FileWrapperTests::test_filelike_longcl_http11": (
        "the app's Content-Length stands; the connection is closed when the file turns out shorter"
    ),
}


@pytest.mark.timeout(300)
def test_waitress() -> None:
    judge(SUITE.run(), DEVIATIONS, count=137)
