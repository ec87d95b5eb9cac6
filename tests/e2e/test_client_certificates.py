"""Clients that say by a certificate who they are: to the gateway, to the app behind it, and from one quintet to the next."""

from __future__ import annotations

import base64
import datetime
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from websockets.sync.client import connect

from harness import places
from harness.site import Site, Start

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
ROUTES = """
[[route]]
name = "closed"
path = "/environ/closed"
client_certificate = true
request_headers = [
    "Client-Cert: {client_cert}",
    "X-Subject: {client_cert_subject}",
    "X-Serial: {client_cert_serial}",
]
"""


class Clients:
    """An authority of clients, its file, and certificates that it has signed."""

    def __init__(self, directory: Path, name: str = "clients") -> None:
        self.directory = directory
        self._authority = trustme.CA(organization_name=f"Authority of {name}")
        self.file = directory / f"{name}.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, **options: Any) -> Path:
        """A certificate for this name, its chain and its key in one file."""
        issued = self._authority.issue_cert(common_name=name, organization_name="Café", **options)
        file = self.directory / f"{name}.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(str(file))
        return file

    def revoke(self, file: Path, *revoked: Path) -> None:
        """Write the list of revoked certificates."""
        authority = x509.load_pem_x509_certificate(self._authority.cert_pem.bytes())
        key = serialization.load_pem_private_key(self._authority.private_key_pem.bytes(), None)
        revoking = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
        revoking = revoking.last_update(NOW - DAY).next_update(NOW + DAY)
        for certificate in map(read, revoked):
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            revoking = revoking.add_revoked_certificate(entry.revocation_date(NOW - DAY).build())
        signed = revoking.add_extension(x509.CRLNumber(1), critical=False).sign(key, hashes.SHA256())
        file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def read(file: Path) -> x509.Certificate:
    """The first certificate of a file."""
    return x509.load_pem_x509_certificates(file.read_bytes())[0]


@pytest.fixture
def clients(tmp_path: Path) -> Clients:
    return Clients(tmp_path)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """Our own certificate and who signed it: `own.pem`, `own.key`, `ours.pem`."""
    authority = trustme.CA()
    own = authority.issue_cert("localhost")
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "own.pem"))
    own.private_key_pem.write_to_path(str(tmp_path / "own.key"))
    authority.cert_pem.write_to_path(str(tmp_path / "ours.pem"))
    return tmp_path / "ours.pem"


Secured = Callable[..., Site]


@pytest.fixture
def secured(start: Start, project: Path, clients: Clients, ours: Path) -> Secured:
    """`secured("optional", "…toml…")`: an app behind TLS that asks its clients for certificates."""

    def starter(verify: str, config: str = "", tls: str = "", app: str = "plain") -> Site:
        shutil.copytree(places.APPS / app, project, dirs_exist_ok=True)
        (project / "quintet.toml").write_text(
            f'[tls]\ncertificate = "{ours.parent}/own.pem"\nkey = "{ours.parent}/own.key"\n'
            f'client_verify = "{verify}"\nclient_ca = "{clients.file}"\n{tls}{config}'
        )
        trust = ssl.create_default_context(cafile=str(ours))
        trust.load_cert_chain(str(clients.issue("probe")))
        return start(project, flags=("--app", f"{app}:application"), tls=trust)

    return starter


def curl(site: Site, path: str, ours: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What curl says of a page."""
    where = ("--cacert", str(ours), "--ipv4", f"https://localhost:{site.port}{path}")
    command = ["curl", "--silent", "--show-error", "--max-time", "20", *options, *where]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def environ(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Of what the plain app answers."""
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    return {key: value for key, value in shown.items() if key.startswith(("SSL_", "HTTP_X", "HTTP_CLIENT"))}


@pytest.mark.parametrize("protocol", [("--http1.1",), ("--http2",), ("--http1.1", "--tls-max", "1.2")])
def test_the_app_knows_who_it_is(
    secured: Secured, clients: Clients, ours: Path, protocol: tuple[str, ...]
) -> None:
    site = secured("optional")
    assert environ(curl(site, "/environ", ours, *protocol))["SSL_CLIENT_VERIFY"] == "NONE"
    file = clients.issue("anna")
    own = read(file)
    told = environ(curl(site, "/environ", ours, *protocol, "--cert", str(file)))
    assert told["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert told["SSL_CLIENT_S_DN_CN"] == "anna"
    serial = f"{own.serial_number:X}"
    assert told["SSL_CLIENT_SERIAL"] == serial.zfill(len(serial) + len(serial) % 2)
    assert told["SSL_CLIENT_FINGERPRINT"] == own.fingerprint(hashes.SHA256()).hex()
    assert x509.load_pem_x509_certificate(told["SSL_CLIENT_CERT"].encode()) == own
    # What nginx and Apache say, openssl says.
    for key, option in (("SSL_CLIENT_S_DN", "-subject"), ("SSL_CLIENT_I_DN", "-issuer")):
        command = ["openssl", "x509", "-noout", option, "-nameopt", "RFC2253", "-in", str(file)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert told[key] == said.partition("=")[2].strip()
    for key, option in (("SSL_CLIENT_V_START", "-startdate"), ("SSL_CLIENT_V_END", "-enddate")):
        command = ["openssl", "x509", "-noout", option, "-in", str(file)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert told[key] == said.partition("=")[2].strip()


@pytest.mark.parametrize("verify", ["optional", "require"])
def test_a_certificate_that_is_not_good_ends_the_handshake(
    secured: Secured, clients: Clients, ours: Path, tmp_path: Path, verify: str
) -> None:
    site = secured(verify)
    stranger = Clients(tmp_path, "strangers").issue("stranger")
    expired = clients.issue("expired", not_before=NOW - 9 * DAY, not_after=NOW - DAY)
    early = clients.issue("early", not_before=NOW + DAY, not_after=NOW + 9 * DAY)
    for version in ("1.2", "1.3"):
        for file in (stranger, expired, early):
            done = curl(site, "/hello", ours, "--tls-max", version, "--cert", str(file))
            # With TLS 1.3 the client has sent its request when it hears of it; curl has many words for that.
            assert (done.returncode != 0, done.stdout) == (True, ""), done.stderr
        nobody = curl(site, "/hello", ours, "--tls-max", version)
        assert (nobody.returncode == 0) == (verify == "optional"), nobody.stderr
        good = curl(site, "/hello", ours, "--tls-max", version, "--cert", str(clients.issue("good")))
        assert good.stdout == "hello", good.stderr
    assert site.metrics()["quintet_tls_failures_total"] >= 6


def test_clients_learn_whose_certificates_are_wanted(secured: Secured, ours: Path) -> None:
    site = secured("optional")
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{site.port}", "-CAfile", str(ours)]
    said = subprocess.run(command, input="", capture_output=True, text=True, timeout=30, check=False).stdout
    assert "Acceptable client certificate CA names" in said
    assert "Authority of clients" in said


def test_a_route_for_clients_with_a_certificate(secured: Secured, clients: Clients, ours: Path) -> None:
    site = secured("optional", ROUTES)
    refused = curl(site, "/environ/closed", ours, "--write-out", "%{http_code}")
    assert refused.stdout.endswith("403")
    assert "show a certificate" in refused.stdout
    lies = [
        option
        for field in ("Client-Cert: :bGll:", "X-Subject: CN=root", "X_Subject: CN=root", "X-Serial: 1")
        for option in ("--header", field)
    ]
    file = clients.issue("anna")
    told = environ(curl(site, "/environ/closed", ours, *lies, "--cert", str(file)))
    subject = told["SSL_CLIENT_S_DN"]
    assert (told["HTTP_X_SUBJECT"], told["HTTP_X_SERIAL"]) == (subject, told["SSL_CLIENT_SERIAL"])
    assert "Caf\\C3\\A9" in subject
    der = ssl.PEM_cert_to_DER_cert(told["SSL_CLIENT_CERT"])
    field = told["HTTP_CLIENT_CERT"]
    assert (field[0], field[-1], base64.b64decode(field[1:-1])) == (":", ":", der)
    # Elsewhere nobody can write them either.
    told = environ(curl(site, "/environ", ours, *lies))
    assert not {"HTTP_X_SUBJECT", "HTTP_X_SERIAL", "HTTP_CLIENT_CERT"} & told.keys()


def test_asgi_apps_are_told_by_the_tls_extension(secured: Secured, clients: Clients, ours: Path) -> None:
    site = secured("optional", app="plain_asgi")
    file = clients.issue("anna")
    for options in (("--http1.1",), ("--http2",)):
        shown = json.loads(curl(site, "/scope", ours, *options, "--cert", str(file)).stdout)
        told = shown["extensions"]["tls"]
        assert told["client_cert_name"].startswith("CN=anna,")
        assert x509.load_pem_x509_certificate(told["client_cert_chain"][0].encode()) == read(file)
        assert told["client_cert_error"] is None
        shown = json.loads(curl(site, "/scope", ours, *options).stdout)
        assert shown["extensions"]["tls"]["client_cert_chain"] == []
        assert shown["extensions"]["tls"]["client_cert_name"] is None


def test_nobody_shares_the_answer_of_another_certificate(
    secured: Secured, clients: Clients, ours: Path
) -> None:
    site = secured("optional", '[[route]]\npath = "/slow"\nsingle_flight = "join"\n', app="gate")
    names = ["anna", "bert", "", "anna", "bert", ""]
    files = {name: clients.issue(name) for name in names if name}

    def ask(name: str) -> str:
        options = ("--cert", str(files[name])) if name else ()
        return environ(curl(site, "/slow", ours, *options)).get("SSL_CLIENT_S_DN_CN", "")

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(ask, names)) == names
    assert site.metrics()["quintet_single_flight_joined_total"] >= 1, "those of one certificate do"


def who(
    site: Site, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[str, ssl.SSLSession, bool]:
    """Whom the app sees, the session for the next time, and whether this one was resumed."""
    plain = socket.create_connection(("127.0.0.1", site.port), timeout=10)
    with context.wrap_socket(plain, server_hostname="localhost", session=session) as secure:
        secure.sendall(b"GET /environ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: secure.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return json.loads(body)["SSL_CLIENT_S_DN_CN"], secure.session, secure.session_reused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_keep_their_client_until_he_is_revoked(
    secured: Secured, clients: Clients, ours: Path, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    revoked = tmp_path / "revoked.pem"
    clients.revoke(revoked)
    site = secured("require", tls=f'client_crl = "{revoked}"\n')
    file = clients.issue("anna")
    context = ssl.create_default_context(cafile=str(ours))
    context.maximum_version = version
    context.load_cert_chain(str(file))
    name, session, resumed = who(site, context, None)
    assert (name, resumed) == ("anna", False)
    assert site.reload().returncode == 0
    name, session, resumed = who(site, context, session)
    assert (name, resumed) == ("anna", True)

    clients.revoke(revoked, file)
    assert site.reload().returncode == 0
    with pytest.raises((ssl.SSLError, ConnectionError)):
        who(site, context, session)

    # A list that cannot be read changes nothing, and is named.
    revoked.write_text("nonsense")
    done = site.reload()
    assert done.returncode == 2
    assert "tls.client_crl" in done.stderr
    assert "quintet.toml:6" in done.stderr, done.stderr
    site.allow_log("certificates")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        who(site, context, None)


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_from_one_quintet_to_the_next(
    secured: Secured, clients: Clients, ours: Path, start: Start, tmp_path: Path, protocol: str
) -> None:
    back = secured("require", app="sockets")
    front = tmp_path / "front"
    shutil.copytree(places.APPS / "plain", front)
    own = clients.issue("front")

    def upstream(name: str, certificate: str) -> str:
        server = f'servers = "https://localhost:{back.port}"\ntls_ca = "{ours}"\nprotocol = "{protocol}"\n'
        route = f'[[route]]\npath = "/{name}/*"\nstrip_prefix = "/{name}"\nupstream = "{name}"\n'
        return f'[[upstream]]\nname = "{name}"\n{server}{certificate}\n{route}'

    identity = f'tls_certificate = "{own}"\ntls_key = "{own}"\n'
    (front / "quintet.toml").write_text(upstream("known", identity) + upstream("unknown", ""))
    site = start(front, flags=("--app", "plain:application"))
    answered = [site.get("/known/pid").text for _ in range(3)]
    assert {int(pid) for pid in answered} <= set(back.workers())
    with connect(f"ws://127.0.0.1:{site.port}/known/echo") as socket:
        socket.send("through both")
        assert "through both" in str(socket.recv(timeout=10))
    site.allow_log("upstream")
    assert site.get("/unknown/pid").status_code == 502
    with (
        httpx.Client(verify=ssl.create_default_context(cafile=str(ours))) as nobody,
        pytest.raises(httpx.TransportError),
    ):
        nobody.get(f"https://localhost:{back.port}/pid")
