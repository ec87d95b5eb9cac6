"""Many certificates on one address, sessions, versions."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
import trustme

from harness.data import Certificate
from harness.site import Site, Start

pytestmark = pytest.mark.any_python


class Authority:
    """Certificates in files, and clients that trust them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA()

    def issue(self, file: str, *names: str) -> None:
        """Write `file`.pem and `file`.key."""
        issued = self._authority.issue_cert(*names)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        (self._directory / f"{file}.pem").write_bytes(chain)
        issued.private_key_pem.write_to_path(str(self._directory / f"{file}.key"))

    def trust(self) -> ssl.SSLContext:
        """For a client."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return context


@pytest.fixture
def authority(project: Path) -> Authority:
    authority = Authority(project)
    authority.issue("first", "localhost", "a.example")
    authority.issue("second", "*.b.example")
    return authority


@pytest.fixture
def secured(start: Start, project: Path, authority: Authority) -> Start:
    """`secured("…toml…")`: the plain app with two certificates and these settings."""

    def starter(config: str = "") -> Site:
        tables = "".join(
            f'[[certificate]]\ncertificate = "{name}.pem"\nkey = "{name}.key"\n'
            for name in ("first", "second")
        )
        (project / "quintet.toml").write_text(config + tables)
        return start(project, workers=1, flags=("--app", "plain:application"), tls=authority.trust())

    return starter


def shake(
    site: Site, context: ssl.SSLContext, name: str, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    """A connection of somebody who asks for this name, behind its first answer."""
    plain = socket.create_connection(("127.0.0.1", site.port), timeout=10)
    try:
        secure = context.wrap_socket(plain, server_hostname=name, session=session)
    except OSError:
        plain.close()
        raise
    secure.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert secure.recv(65536).startswith(b"HTTP/1.1 200 ")
    return secure


def test_each_name_gets_its_certificate_and_a_reload_reads_them_all(
    secured: Start, authority: Authority, project: Path
) -> None:
    site = secured()
    trust = authority.trust()
    for name in ("localhost", "a.example", "shop.b.example"):
        # The client compares the name with the certificate.
        shake(site, trust, name).close()
    with pytest.raises(ssl.SSLCertVerificationError, match=r"c\.example"):
        shake(site, trust, "c.example")

    site.allow_log("certificate|TLS|tls")
    authority.issue("second", "c.example")
    key = (project / "second.key").read_bytes()
    (project / "second.key").write_bytes((project / "first.key").read_bytes())
    done = site.reload()
    assert done.returncode == 2, done.stdout + done.stderr
    assert "the TLS key does not belong to the certificate" in done.stderr
    assert "quintet.toml:5:" in done.stderr, done.stderr
    shake(site, trust, "shop.b.example").close()

    (project / "second.key").write_bytes(key)
    done = site.reload()
    assert done.returncode == 0, done.stdout + done.stderr
    shake(site, trust, "c.example").close()


def test_who_asks_for_no_name_of_ours_may_be_turned_away(secured: Start, authority: Authority) -> None:
    site = secured("[tls]\nstrict_sni = true\n")
    shake(site, authority.trust(), "shop.b.example").close()
    for name in ("c.example", None):
        careless = ssl.create_default_context()
        careless.check_hostname = False
        careless.verify_mode = ssl.CERT_NONE
        with pytest.raises((ssl.SSLError, ConnectionError)):
            shake(site, careless, name)


def test_sessions_are_resumed_also_after_a_reload(secured: Start, authority: Authority) -> None:
    site = secured()
    trust = authority.trust()
    first = shake(site, trust, "localhost")
    session, resumed = first.session, first.session_reused
    first.close()
    assert not resumed
    assert site.reload().returncode == 0
    again = shake(site, trust, "localhost", session)
    resumed = again.session_reused
    again.close()
    assert resumed


def test_only_the_newest_version_if_so_wanted(secured: Start, authority: Authority) -> None:
    site = secured('[tls]\nmin_version = "1.3"\n')
    shake(site, authority.trust(), "localhost").close()
    old = authority.trust()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shake(site, old, "localhost")


def test_testssl_finds_nothing_bad(plain: Start, certificate: Certificate, tmp_path: Path) -> None:
    site = plain(workers=1, flags=certificate.flags, tls=certificate.trust)
    authorities, found = tmp_path / "authority.pem", tmp_path / "found.json"
    trusted = certificate.trust.get_ca_certs(binary_form=True)
    authorities.write_text("".join(ssl.DER_cert_to_PEM_cert(der) for der in trusted))
    # Protocols, kinds of ciphers, and what the server says of itself: the parts that take seconds, not minutes.
    subprocess.run(
        [
            *("testssl", "--quiet", "--color", "0", "--warnings", "batch", "--fast", "--nodns", "none"),
            *("--ip", "127.0.0.1", "--add-ca", str(authorities), "-p", "-s", "-S"),
            *("--jsonfile", str(found), f"https://localhost:{site.port}"),
        ],
        capture_output=True,
        timeout=240,
        check=False,
    )
    findings = {finding["id"]: finding for finding in json.loads(found.read_text())}
    # Of the certificate itself, which the test made.
    own = {"cert_validityPeriod", "cert_revocation", "DNS_CAArecord"}
    bad = [
        finding
        for name, finding in findings.items()
        if finding["severity"] not in {"OK", "INFO", "WARN"} and name not in own
    ]
    assert bad == []
    assert findings["TLS1_3"]["severity"] == findings["cert_chain_of_trust"]["severity"] == "OK", findings
