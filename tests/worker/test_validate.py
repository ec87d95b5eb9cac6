"""The standard library's own checker around apps: the server's side of PEP 3333."""

from __future__ import annotations

import tempfile

import pytest
from workers import Serve

VALIDATED = """
    from wsgiref.validate import validator

    @validator
    def app(environ, start_response):
        kind = environ["QUERY_STRING"]
        body = environ["wsgi.input"].read(1000)
        body += environ["wsgi.input"].readline(1000)
        body += b"".join(environ["wsgi.input"].readlines(10))
        body += b"".join(environ["wsgi.input"])
        environ["wsgi.errors"].write("seen\\n")
        environ["wsgi.errors"].flush()
        if kind == "nothing":
            start_response("204 No Content", [])
            return []
        headers = [("Content-Type", "text/plain")]
        if kind == "length":
            headers.append(("Content-Length", str(len(body) + 2)))
        write = start_response("200 OK", headers)
        if kind == "write":
            write(body)
            return [b"ok"]
        if kind == "generator":
            return (piece for piece in [b"o", b"", b"k", body])
        if kind == "raise":
            raise KeyError("expected")
        return [b"ok" + body]
"""


@pytest.mark.every_python
@pytest.mark.parametrize("how", ["none", "inline", "file", "stream"])
def test_the_validator_finds_nothing(serve: Serve, how: str) -> None:
    worker = serve(VALIDATED)
    requests = 0
    for kind in ("plain", "length", "write", "generator", "nothing", "raise"):
        for method in ("GET", "POST", "HEAD"):
            request = {
                "method": method,
                "target": f"/a%20b?{kind}",
                "mount": "/a b" if kind == "length" else "",
            }
            if how == "file":
                with tempfile.TemporaryFile() as file:
                    file.write(b"body")
                    file.flush()
                    worker.slot.send_with_file(file.fileno(), 4, **request)
            else:
                worker.slot.send(stream=how == "stream", body=b"body" if how == "inline" else None, **request)
            if how == "stream":
                worker.slot.send_body(b"bo")
                worker.slot.send_body(b"dy", end=True)
            response = worker.slot.response()
            requests += 1
            body = b"" if how == "none" else b"body"
            assert response.status == {"nothing": 204, "raise": 500}.get(kind, 200), worker.stderr()
            if kind not in ("nothing", "raise") and method != "HEAD":
                assert sorted(response.body) == sorted(b"ok" + body)
    worker.slot.retire()
    worker.wait()
    logged = worker.stderr()
    assert logged.count("seen\n") == requests
    assert "AssertionError" not in logged
    assert logged.count("KeyError: 'expected'") == 3
