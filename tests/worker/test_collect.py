"""`workers.gc = "between"`: garbage is collected when the response has been sent."""

from __future__ import annotations

import json

import pytest
from link import Worker
from workers import Serve, eventually

GARBAGE = """
    import gc, json
    inside = False
    seen = {"inside": 0, "between": 0}

    def noticed(phase, info):
        if phase == "start":
            seen["inside" if inside else "between"] += 1

    gc.callbacks.append(noticed)

    class Knot:
        def __init__(self):
            self.self = self

    def app(environ, start_response):
        global inside
        inside = True
        if environ["PATH_INFO"] == "/seen":
            body = json.dumps(seen)
        else:
            for _ in range(int(environ["QUERY_STRING"])):
                Knot()
            body = "done"
        start_response("200 OK", [("Content-Length", str(len(body)))])
        inside = False
        return [body.encode()]
"""


def seen(worker: Worker) -> dict[str, int]:
    """Collections in requests and between them."""
    return json.loads(worker.slots[0].get("/seen").body)


@pytest.mark.every_python
def test_collections_move_out_of_requests(serve: Serve) -> None:
    worker = serve(GARBAGE, threads=1, gc_between=True)
    before = seen(worker)
    for _ in range(50):
        assert worker.slots[0].get("/make?2000").status == 200
    after = seen(worker)
    assert after["inside"] == before["inside"] == 0
    # Now and then the next request is there already, and it waits a little.
    assert after["between"] - before["between"] >= 4


def test_python_collects_in_the_middle_of_requests_unless_told_otherwise(serve: Serve) -> None:
    worker = serve(GARBAGE, threads=1)
    for _ in range(50):
        worker.slots[0].get("/make?2000")
    assert seen(worker)["inside"] >= 10


def test_one_request_that_makes_a_great_deal_is_collected_in_its_middle(serve: Serve) -> None:
    worker = serve(GARBAGE, threads=1, gc_between=True)
    worker.slots[0].get("/make?1000000")
    assert seen(worker)["inside"] >= 2


def test_full_load_does_not_keep_the_garbage_for_ever(serve: Serve) -> None:
    worker = serve(GARBAGE, threads=2, gc_between=True)
    before = seen(worker)["between"]
    # While one is served another waits, most of the time.
    for _ in range(60):
        for slot in worker.slots:
            slot.send(target="/make?1500")
        for slot in worker.slots:
            assert slot.response().status == 200
    eventually(lambda: seen(worker)["between"] - before >= 5)


def test_an_app_that_has_switched_it_off_is_left_alone(serve: Serve) -> None:
    worker = serve("    import gc\n    gc.disable()\n" + GARBAGE, threads=1, gc_between=True)
    for _ in range(20):
        worker.slots[0].get("/make?3000")
    # The one is ours, before the app is frozen.
    assert seen(worker) == {"inside": 0, "between": 1}
