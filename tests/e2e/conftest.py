"""Fixtures: `start` starts sites and, after the story, sees to their end and reads their logs."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from private_postgres import PrivatePostgres

from harness import places
from harness.raw import Raw
from harness.site import Site

PRODUCTS = 240

Start = Callable[..., Site]


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
        flags = ("--workers", str(workers), *(("--threads", str(threads)) if threads else ()))
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


@dataclass(frozen=True)
class ShopData:
    """A seeded shop outside the source tree."""

    directory: Path

    @property
    def env(self) -> dict[str, str]:
        """What makes the shop use it."""
        return {
            "DATABASE_URL": f"sqlite:///{self.directory}/db.sqlite3",
            "MEDIA_ROOT": str(self.directory / "media"),
            "STATIC_ROOT": str(self.directory / "static"),
            "ALLOWED_HOSTS": "*",
        }

    def manage(self, *command: str, env: dict[str, str] | None = None, python: str = sys.executable) -> None:
        """Run a management command of the shop."""
        subprocess.run(
            [python, "manage.py", *command],
            cwd=places.SHOP,
            env=os.environ | self.env | (env or {}),
            check=True,
            capture_output=True,
        )

    def prepare(self, env: dict[str, str] | None = None, python: str = sys.executable) -> None:
        """Tables, products, static files."""
        self.manage("migrate", "-v0", env=env, python=python)
        self.manage("seed", "--products", str(PRODUCTS), env=env, python=python)
        self.manage("collectstatic", "--noinput", "-v0", env=env, python=python)


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


@dataclass(frozen=True)
class Certificate:
    """A certificate of a private authority, and the context of a client that trusts it."""

    chain: Path
    key: Path
    trust: ssl.SSLContext

    @property
    def flags(self) -> tuple[str, ...]:
        """For `quintet run`."""
        return ("--tls-certificate", str(self.chain), "--tls-key", str(self.key))


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """For localhost."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return Certificate(chain, key, trust)


@pytest.fixture
def connections() -> Iterator[list[Raw]]:
    """Raw connections to be closed after the story."""
    held: list[Raw] = []
    yield held
    for raw in held:
        raw.close()
