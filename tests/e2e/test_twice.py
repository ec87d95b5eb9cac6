"""Who asks twice is served once: equal requests share an answer, one user has one request at a time, and what has a key is done once."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from harness import places
from harness.processes import wait_until
from harness.site import Site, Start

pytestmark = pytest.mark.any_python

WORKER_DIED = "worker.*(died|ended|killed|signal)"
KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"


def cookies_of(client: httpx.Client) -> str:
    """The Cookie field of a browser."""
    return "; ".join(f"{name}={value}" for name, value in client.cookies.items())


class Twice:
    """A site, and what its views have noted."""

    def __init__(self, site: Site, notes: Path) -> None:
        self.site = site
        self._notes = notes

    def notes(self, beginning: str = "") -> list[str]:
        """What was noted so far."""
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        return [line for line in lines if line.startswith(beginning)]

    def signed_in(self, who: str) -> httpx.Client:
        """A browser of this user."""
        client = self.site.client()
        assert client.get("/enter", params={"who": who}).text == f"hello {who}"
        return client

    def cookies(self, who: str) -> str:
        """The Cookie field of this user."""
        with closing(self.signed_in(who)) as client:
            return cookies_of(client)


@pytest.fixture
def twice(start: Start, tmp_path: Path) -> Callable[..., Twice]:
    """`twice("…toml…")`: the site with these routes."""

    def starter(config: str, **options: int) -> Twice:
        project, notes = tmp_path / "twice", tmp_path / "notes"
        shutil.copytree(places.APPS / "twice", project, ignore=shutil.ignore_patterns("__pycache__"))
        (project / "quintet.toml").write_text(f'[server]\nstate_dir = "state"\n{config}')
        options = {"workers": 2, "threads": 4} | options
        site = start(
            project, flags=("--app", "twice:application"), env={"TWICE_NOTES": str(notes)}, **options
        )
        return Twice(site, notes)

    return starter


def together(count: int, work: Callable[[], httpx.Response]) -> list[httpx.Response]:
    """So many at the same time."""
    with ThreadPoolExecutor(count) as pool:
        running: list[Future[httpx.Response]] = [pool.submit(work) for _ in range(count)]
        return [each.result() for each in running]


@pytest.mark.short
def test_fifty_equal_requests_run_the_view_once(twice: Callable[..., Twice]) -> None:
    site = twice('[[route]]\npath = "/report"\napp = "default"\nsingle_flight = "join"\n')
    cookies = site.cookies("ada")
    connections = [site.site.raw() for _ in range(50)]
    for raw in connections:
        raw.request("GET /report?seconds=2", f"Cookie: {cookies}", "Accept-Encoding: identity")
    answers = [raw.answer() for raw in connections]
    for raw in connections:
        raw.close()
    assert {(answer.status, answer.text) for answer in answers} == {(200, "report for ada, ")}
    assert site.notes("report ada begins") == ["report ada begins"]
    assert len({answer.get("X-Request-ID") for answer in answers}) == 50
    assert site.site.metrics()["quintet_single_flight_joined_total"] == 49
    # It was an answer, not a cache.
    assert site.site.get("/report?seconds=0", headers={"Cookie": cookies}).status_code == 200
    assert len(site.notes("report ada begins")) == 2


def test_users_do_not_see_each_others_answers(twice: Callable[..., Twice]) -> None:
    site = twice(
        '[[route]]\npath = ["/report", "/public", "/stream"]\napp = "default"\n'
        'single_flight = "join"\nsingle_flight_by = ["anyone"]\n'
    )
    cookies = {who: site.cookies(who) for who in ("ada", "bob", "eve")}
    for page in ("/report?seconds=0.5", "/stream"):
        asked = list(cookies) * 3
        with ThreadPoolExecutor(len(asked)) as pool:
            answers = pool.map(
                lambda who, page=page: site.site.get(page, headers={"Cookie": cookies[who]}).text, asked
            )
        for who, text in zip(asked, answers, strict=True):
            assert who in text
            assert not any(other in text for other in cookies if other != who)
    # What the app gives to everybody is made once.
    asked = list(cookies) * 3
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = pool.map(lambda who: site.site.get("/public", headers={"Cookie": cookies[who]}).text, asked)
    assert set(answers) == {"for all"}
    assert site.notes("public") == ["public"]


def test_one_user_has_one_report_at_a_time(twice: Callable[..., Twice]) -> None:
    site = twice('[[route]]\npath = "/report"\napp = "default"\nsingle_flight = "queue(5)"\n')
    ada, bob = site.signed_in("ada"), site.signed_in("bob")
    with ThreadPoolExecutor(5) as pool:
        of_ada = [pool.submit(ada.get, f"/report?seconds=0.4&of={number}") for number in range(4)]
        of_bob = pool.submit(bob.get, "/report?seconds=0.4")
        assert [each.result().status_code for each in (*of_ada, of_bob)] == [200] * 5
    steps = [line.rpartition(" ")[2] for line in site.notes("report ada")]
    assert steps == ["begins", "ends"] * 4
    # Nobody waits for others.
    assert site.notes().index("report bob ends") < site.notes().index("report ada ends") + 3


def test_a_worker_that_is_killed_releases(twice: Callable[..., Twice]) -> None:
    site = twice(
        '[[route]]\npath = "/pay"\nmethod = ["POST"]\napp = "default"\nsingle_flight = "reject"\n', workers=1
    )
    site.site.allow_log(WORKER_DIED)
    ada = site.signed_in("ada")
    token = ada.get("/pay").text
    form = {"amount": "5", "seconds": "30", "csrfmiddlewaretoken": token}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ada.post, "/pay", data=form)
        wait_until(lambda: site.notes("pay ada 5"), 10, "it runs")
        second = site.site.post("/pay", data=form, headers={"Cookie": cookies_of(ada)})
        assert (second.status_code, second.headers["Retry-After"]) == (409, "1")
        assert second.headers["Content-Type"] == "application/problem+json"
        # Not for others.
        with closing(site.signed_in("bob")) as bob:
            token = bob.get("/pay").text
            paid = bob.post("/pay", data={"amount": "7", "csrfmiddlewaretoken": token})
            assert (paid.status_code, paid.text) == (201, "bob has paid 7")
        site.site.kill_worker()
        assert first.result().status_code == 502
    site.site.wait_workers(1)
    again = site.site.post("/pay", data=form | {"seconds": "0"}, headers={"Cookie": cookies_of(ada)})
    assert (again.status_code, again.text) == (201, "ada has paid 5")


def test_the_later_request_takes_the_place_of_the_earlier(twice: Callable[..., Twice]) -> None:
    site = twice('[[route]]\npath = "/report"\napp = "default"\nsingle_flight = "cancel_previous"\n')
    ada = site.signed_in("ada")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ada.get, "/report?seconds=3&of=first")
        wait_until(lambda: site.notes("report ada begins"), 10, "it runs")
        second = site.site.get("/report?seconds=0&of=second", headers={"Cookie": cookies_of(ada)})
        assert second.text == "report for ada, second"
        assert first.result().status_code == 409


def test_servers_behind_are_asked_once_as_well(
    twice: Callable[..., Twice], start: Start, project: Path
) -> None:
    behind = twice("")
    (project / "quintet.toml").write_text(
        f'[[upstream]]\nname = "behind"\nservers = ["127.0.0.1:{behind.site.port}"]\n'
        '[[route]]\nname = "joined"\npath = ["/report", "/stream"]\nupstream = "behind"\nsingle_flight = "join"\n'
        '[[route]]\npath = "/pay"\nmethod = ["POST"]\nupstream = "behind"\nidempotency = "optional"\n'
    )
    front = start(project, flags=("--app", "plain:application"))
    cookies = {"Cookie": behind.cookies("ada")}
    for page, noted in (("/report?seconds=1", "report ada begins"), ("/stream", "stream ada")):
        answers = together(5, lambda page=page: front.get(page, headers=cookies))
        assert len({(answer.status_code, answer.text) for answer in answers}) == 1
        assert "ada" in answers[0].text
        assert behind.notes(noted) == [noted]
    with closing(behind.signed_in("bob")) as bob:
        form = {"amount": "5", "csrfmiddlewaretoken": bob.get("/pay").text}
        fields = {"Cookie": cookies_of(bob), "Idempotency-Key": KEY}
        answers = [front.post("/pay", data=form, headers=fields) for _ in range(2)]
        assert [answer.text for answer in answers] == ["bob has paid 5"] * 2
        # Nobody is behind: nothing is done, and the key is free.
        behind.site.stop()
        other = fields | {"Idempotency-Key": "other"}
        front.allow_log("upstream")
        assert [front.post("/pay", data=form, headers=other).status_code for _ in range(2)] == [502, 502]
        assert front.post("/pay", data=form, headers=fields).headers["Idempotent-Replayed"] == "true"
    assert behind.notes("pay") == ["pay bob 5"]


PAY = '[[route]]\nname = "pay"\npath = "/pay"\nmethod = ["POST"]\napp = "default"\nidempotency = "required"\n'


@pytest.mark.short
def test_a_form_that_is_sent_twice_is_paid_once(twice: Callable[..., Twice]) -> None:
    site = twice(PAY + 'single_flight = "queue(5)"\n')
    ada = site.signed_in("ada")
    form = {"amount": "5", "csrfmiddlewaretoken": ada.get("/pay").text}
    field = {"Idempotency-Key": f'"{KEY}"'}
    fields = field | {"Cookie": cookies_of(ada)}
    answers = together(3, lambda: site.site.post("/pay", data=form, headers=fields))
    assert {(answer.status_code, answer.text) for answer in answers} == {(201, "ada has paid 5")}
    assert sorted("Idempotent-Replayed" in answer.headers for answer in answers) == [False, True, True]
    assert site.notes("pay") == ["pay ada 5"]
    # Another request with this key, one without, one whose key is none.
    differs = ada.post("/pay", data=form | {"amount": "6"}, headers=field)
    assert (differs.status_code, differs.json()["title"]) == (422, "Idempotency-Key is already used")
    assert 'rel="describedby"' in differs.headers["Link"]
    for wrong in ({}, {"Idempotency-Key": '""'}):
        assert ada.post("/pay", data=form, headers=wrong).status_code == 400
    # Another user with the same key.
    with closing(site.signed_in("bob")) as bob:
        form = {"amount": "5", "csrfmiddlewaretoken": bob.get("/pay").text}
        assert bob.post("/pay", data=form, headers=field).text == "bob has paid 5"
    assert site.notes("pay") == ["pay ada 5", "pay bob 5"]


def test_who_hangs_up_gets_the_answer_when_he_asks_again(twice: Callable[..., Twice]) -> None:
    site = twice(PAY)
    ada = site.signed_in("ada")
    form = {"amount": "5", "seconds": "1", "csrfmiddlewaretoken": ada.get("/pay").text}
    field = {"Idempotency-Key": KEY}
    with pytest.raises(httpx.TimeoutException):
        ada.post("/pay", data=form, headers=field, timeout=0.3)
    outstanding = ada.post("/pay", data=form, headers=field)
    assert (outstanding.status_code, outstanding.headers["Retry-After"]) == (409, "1")

    answers = [outstanding]

    def is_known() -> bool:
        answers.append(ada.post("/pay", data=form, headers=field))
        return answers[-1].status_code != 409

    wait_until(is_known, 10, "its answer is known")
    answer = answers[-1]
    assert (answer.status_code, answer.text) == (201, "ada has paid 5")
    assert answer.headers["Idempotent-Replayed"] == "true"
    assert site.notes("pay") == ["pay ada 5"]


def test_a_worker_that_dies_of_it_may_have_done_it(twice: Callable[..., Twice]) -> None:
    site = twice(PAY, workers=1)
    site.site.allow_log(WORKER_DIED)
    ada = site.signed_in("ada")
    form = {"amount": "5", "seconds": "30", "csrfmiddlewaretoken": ada.get("/pay").text}
    field = {"Idempotency-Key": KEY}
    killer = threading.Thread(
        target=lambda: (wait_until(lambda: site.notes("pay"), 10, "it runs"), site.site.kill_worker())
    )
    killer.start()
    assert ada.post("/pay", data=form, headers=field).status_code == 502
    killer.join()
    site.site.wait_workers(1)
    again = ada.post("/pay", data=form, headers=field)
    assert (again.status_code, again.json()["title"]) == (
        409,
        "The request with this Idempotency-Key was broken off",
    )
    assert site.notes("pay") == ["pay ada 5"]
    # Another key is another request.
    assert ada.post("/pay", data=form | {"seconds": "0"}, headers={"Idempotency-Key": "2"}).status_code == 201


GATEWAY_DIED = "gateway"


def test_a_key_outlives_the_gateway(twice: Callable[..., Twice]) -> None:
    site = twice(PAY)
    site.site.allow_log(GATEWAY_DIED)
    ada = site.signed_in("ada")
    form = {"amount": "5", "csrfmiddlewaretoken": ada.get("/pay").text}
    cookies = {"Cookie": cookies_of(ada)}

    def pay(key: str, **more: str) -> httpx.Response:
        return site.site.post("/pay", data=form | more, headers=cookies | {"Idempotency-Key": key})

    assert pay("done").text == "ada has paid 5"
    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(pay, "cut", amount="6", seconds="3")
        wait_until(lambda: site.notes("pay ada 6"), 10, "it runs")
        site.site.kill_gateway()
        with pytest.raises(httpx.TransportError):
            cut.result()
    site.site.wait_ready()
    again = pay("done")
    assert (again.status_code, again.text) == (201, "ada has paid 5")
    assert again.headers["Idempotent-Replayed"] == "true"
    # The view has run on, but nobody has heard what came of it.
    doubtful = pay("cut", amount="6", seconds="3")
    assert (doubtful.status_code, doubtful.json()["title"]) == (
        409,
        "The request with this Idempotency-Key was broken off",
    )
    assert "Retry-After" not in doubtful.headers
    # Over an upgrade as well.
    upgraded = site.site.quintet("upgrade")
    assert upgraded.returncode == 0, upgraded.stderr
    assert pay("done").headers["Idempotent-Replayed"] == "true"
    assert site.notes("pay") == ["pay ada 5", "pay ada 6"]
