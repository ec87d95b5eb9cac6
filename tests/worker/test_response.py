"""What an app returns: start_response, iterables, lengths, files, endings."""

from __future__ import annotations

from conftest import Serve


def test_a_list_of_one_is_one_frame_with_a_length(serve: Serve) -> None:
    worker = serve(
        """
        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"hello"]
        """
    )
    for _ in range(3):
        response = worker.slot.get("/")
        assert (response.status, response.reason, response.body, response.frames) == (200, b"OK", b"hello", 1)
        assert response.headers == [("Content-Type", "text/plain"), ("Content-Length", "5")]
    worker.slot.retire()
    assert worker.wait() == 0
    assert worker.stderr() == ""
