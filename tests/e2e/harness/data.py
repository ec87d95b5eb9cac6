"""What stories start from: a seeded shop, a certificate, a picture."""

from __future__ import annotations

import os
import shutil
import ssl
import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

from harness import places

# Ten pages of the catalogue.
PRODUCTS = 240


def _png(width: int, height: int) -> bytes:
    """A red picture that any imaging library opens."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    header = struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\xc0\x40\x20" * width) * height
    data = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(data)


PNG = _png(24, 16)


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
    ca: Path
    trust: ssl.SSLContext

    @property
    def flags(self) -> tuple[str, ...]:
        """For `quintet run`."""
        return ("--tls-certificate", str(self.chain), "--tls-key", str(self.key))


def deploy(project: Path, old: str, new: str) -> None:
    """Change the code of the plain app on disk."""
    source = project / "plain.py"
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new))
    # Python trusts a .pyc whose source has the same second and size.
    shutil.rmtree(project / "__pycache__", ignore_errors=True)
