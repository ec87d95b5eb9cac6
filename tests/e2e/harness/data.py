"""What stories start from: a seeded shop, a certificate, a picture."""

from __future__ import annotations

import os
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness import places

# Ten pages of the catalogue.
PRODUCTS = 240

# One pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf50"
    "0f0003860180c0c62c5d0000000049454e44ae426082"
)


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

    def manage(self, *command: str, env: dict[str, str] | None = None, python: Path | None = None) -> None:
        """Run a management command of the shop."""
        subprocess.run(
            [str(python or places.python()), "manage.py", *command],
            cwd=places.SHOP,
            env=os.environ | self.env | (env or {}),
            check=True,
            capture_output=True,
        )

    def prepare(self, env: dict[str, str] | None = None, python: Path | None = None) -> None:
        """Tables, products, static files."""
        self.manage("migrate", "-v0", env=env, python=python)
        self.manage("seed", "--products", str(PRODUCTS), env=env, python=python)
        self.manage("collectstatic", "--noinput", "-v0", env=env, python=python)


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
