"""`make demo`, as a newcomer types it; and the gate that holds the house together."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import layering
import pytest

from harness import places
from harness.processes import MARK, marked, wait_until
from harness.site import free_port

pytestmark = pytest.mark.any_python


@pytest.mark.timeout(180)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_the_demo_runs_in_the_foreground_until_ctrl_c(tmp_path: Path, database: str) -> None:
    port = free_port()
    mark = os.urandom(8).hex()
    env = {name: value for name, value in os.environ.items() if not name.startswith("QUINTET_")}
    env |= {
        MARK: mark,
        "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
        "MEDIA_ROOT": str(tmp_path / "media"),
        "STATIC_ROOT": str(tmp_path / "static"),
    }
    # PostgreSQL runs as another user, who cannot enter pytest's directories.
    data = Path(tempfile.mkdtemp(prefix="story-postgres-"))
    data.chmod(0o711)
    log = tmp_path / "log"
    command = [sys.executable, "scripts/demo.py", "--bind", f"127.0.0.1:{port}", "--db", database]
    command += ["--products", "60", "--data", str(data / "cluster")]
    with log.open("wb") as output:
        demo = subprocess.Popen(
            command, cwd=places.ROOT, env=env, stdout=output, stderr=output, start_new_session=True
        )
    try:

        def answers() -> bool:
            assert demo.poll() is None, log.read_text()
            try:
                return httpx.get(f"http://127.0.0.1:{port}/", timeout=10).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, 60, "the shop answers")
        page = httpx.get(f"http://127.0.0.1:{port}/")
        assert "Maison Cadence" in page.text
        picture = re.search(r'src="(/media/[^"]+)"', page.text).group(1)
        assert httpx.get(f"http://127.0.0.1:{port}{picture}").headers["content-type"] == "image/svg+xml"
        assert f"http://127.0.0.1:{port}/admin/" in log.read_text()

        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 0, log.read_text()
        time.sleep(0.2)
        assert marked(mark) == {}
    finally:
        if demo.poll() is None:
            demo.kill()
        shutil.rmtree(data)


class TestLayering:
    """The gate finds what it is for."""

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("fn a() {}\n", "does not open with //!"),
            ("//! A.\nfn a() { unsafe { b() } }\n", "unsafe outside"),
            ("//! A.\n#![allow(unsafe_code)]\n", "unsafe outside"),
            ("//! A.\n" + "const A: u8 = 1;\n" * 700, "lines without tests"),
        ],
    )
    def test_breaches_in_sources(self, tmp_path: Path, text: str, complaint: str) -> None:
        source = tmp_path / "crates" / "a" / "src" / "lib.rs"
        source.parent.mkdir(parents=True)
        source.write_text(text)
        found = list(layering.sources(tmp_path))
        assert len(found) == 1
        assert complaint in found[0]

    def test_words_and_tests_are_no_breaches(self, tmp_path: Path) -> None:
        source = tmp_path / "crates" / "a" / "src" / "lib.rs"
        source.parent.mkdir(parents=True)
        source.write_text(
            '//! Nothing unsafe here.\nconst A: &str = "unsafe { }";\n// unsafe\n'
            "#[cfg(test)]\nmod tests {\n" + "    const A: u8 = 1;\n" * 700 + "}\n"
        )
        assert list(layering.sources(tmp_path)) == []

    def test_breaches_in_imports(self) -> None:
        def room(name: str, *imported: str) -> dict[str, object]:
            return {"name": name, "dependencies": [{"name": other, "kind": None} for other in imported]}

        found = "\n".join(
            layering.imports(
                [
                    room("quintet-http-gateway", "quintet-ctl-supervisor", "pyo3"),
                    room("quintet-ctl-config", "quintet-cli"),
                    room("quintet-loft"),
                ]
            )
        )
        assert "quintet-http-gateway imports quintet-ctl-supervisor" in found
        assert "quintet-http-gateway imports pyo3" in found
        assert "quintet-ctl-config imports quintet-cli" in found
        assert "quintet-loft: not in PLANES" in found

    def test_the_house_stands(self) -> None:
        assert layering.main() == 0
