"""Fixtures: `start` starts sites and, after the story, sees to their end and reads their logs."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from private_postgres import PrivatePostgres

from harness import places
from harness.data import Certificate, ShopData
from harness.raw import Raw
from harness.site import Site, Start


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """`start("shop", workers=2)`: a site that is ready. A path starts what lies there.

    Flags: `workers`, `threads`, further ones in `flags`; settings as `QUINTET_…` in `env`. `wait=False` does not
    wait for it to be ready.
    """
    sites: list[Site] = []

    def starter(project: str | Path, *, workers: int = 1, threads: int | None = None, **options: Any) -> Site:
        env = dict(options.pop("env", {}))
        if project == "shop":
            env = request.getfixturevalue("shop_data").env | env
            project = places.SHOP
        elif isinstance(project, str):
            project = places.APPS / project
        # `quintet dev` has one, whatever is said.
        counted = ("--workers", str(workers)) if options.get("command", "run") == "run" else ()
        flags = (*counted, *(("--threads", str(threads)) if threads else ()))
        wait = options.pop("wait", True)
        site = Site(Path(project), flags=flags + tuple(options.pop("flags", ())), env=env, **options)
        sites.append(site)
        site.start(wait=wait)
        if wait:
            # It serves from the first worker on; stories want to know all of them.
            site.wait_workers(workers)
        return site

    yield starter
    wrong = [complaint for site in reversed(sites) for complaint in site.close()]
    if wrong:
        logs = "\n".join(str(site.log) for site in sites if site.log)
        pytest.fail("\n\n".join(wrong) + f"\n\nthe whole log:\n{logs}", pytrace=False)


@pytest.fixture
def plain(start: Start) -> Start:
    """`plain(workers=2)`: the plain WSGI app of tests/apps/plain."""

    def starter(**options: Any) -> Site:
        flags = tuple(options.pop("flags", ()))
        return start("plain", flags=("--app", "plain:application", *flags), **options)

    return starter


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the plain app, so that a story may change it (harness.data.deploy)."""
    copy = tmp_path / "project"
    shutil.copytree(places.APPS / "plain", copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="session")
def shop_template(tmp_path_factory: pytest.TempPathFactory) -> ShopData:
    """Seeded once; stories get copies."""
    data = ShopData(tmp_path_factory.mktemp("shop-template"))
    data.prepare()
    return data


@pytest.fixture
def shop_data(shop_template: ShopData, tmp_path: Path) -> ShopData:
    """The data of this story's shop."""
    data = ShopData(tmp_path / "shop-data")
    shutil.copytree(shop_template.directory, data.directory)
    return data


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres]:
    """A PostgreSQL server for the whole run."""
    with PrivatePostgres() as server:
        yield server


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """For localhost."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    chain, key, ca = (tmp_path / name for name in ("chain.pem", "key.pem", "ca.pem"))
    authority.cert_pem.write_to_path(str(ca))
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return Certificate(chain, key, ca, trust)


@pytest.fixture
def connections() -> Iterator[list[Raw]]:
    """Raw connections to be closed after the story."""
    held: list[Raw] = []
    yield held
    for raw in held:
        raw.close()
