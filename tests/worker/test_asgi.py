"""ASGI over slots."""

from __future__ import annotations

import pytest
from workers import Serve, uvloop_dir

ECHO = """
    import json
    async def app(scope, receive, send):
        if scope["type"] == "lifespan": raise RuntimeError
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
        await send({"type": "http.response.body", "body": b"hello " + scope["path"].encode() + body})
"""


@pytest.mark.every_python
@pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
def test_a_small_answer_is_one_frame(serve: Serve, python: str, event_loop: str) -> None:
    path = [uvloop_dir(python)] if event_loop == "uvloop" else []
    worker = serve(ECHO, path=path, event_loop=event_loop, concurrency=2)
    for slot in worker.slots:
        for _ in range(3):
            response = slot.exchange(target="/a%20b?x=1", method="POST", body=b"!")
            assert (response.status, response.body, response.frames) == (200, b"hello /a b!", 1)
            assert response.headers == [("x-own", "1")]
    for slot in worker.slots:
        slot.retire()
        assert slot.is_closed()
    worker.link.retire()
    assert worker.wait() == 0
    assert worker.stderr() == ""
