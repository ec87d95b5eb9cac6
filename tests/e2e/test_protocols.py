"""TLS, HTTP/2, unix sockets, inherited sockets, and proxies before us."""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from harness.data import Certificate
from harness.processes import wait_until
from harness.raw import Closed, Raw
from harness.site import Site, Start, free_port

pytestmark = pytest.mark.any_python


class TestTls:
    """Certificate and key from files."""

    @pytest.fixture
    def site(self, plain: Start, certificate: Certificate) -> Site:
        return plain(workers=1, flags=certificate.flags, tls=certificate.trust)

    @pytest.mark.short
    def test_http_1_and_2_by_alpn(self, site: Site) -> None:
        for http2, version in ((False, "HTTP/1.1"), (True, "HTTP/2")):
            with site.client(http2=http2) as client:
                response = client.get("/environ")
                assert response.http_version == version
                environ = response.json()
                assert environ["wsgi.url_scheme"] == "https"
                assert environ["SERVER_PORT"] == str(site.port)
                assert environ["SERVER_PROTOCOL"].startswith(version)

    def test_old_versions_of_tls_are_not_spoken(self, site: Site, certificate: Certificate) -> None:
        old = ssl.create_default_context()
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            Raw.tcp("127.0.0.1", site.port, old)

    def test_a_new_certificate_is_taken_at_reload(self, site: Site, certificate: Certificate) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        certificate.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(certificate.key))
        done = site.reload()
        assert done.returncode == 0, done.stdout + done.stderr
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        site.tls = trust
        assert site.get("/hello").text == "hello"

    def test_a_broken_certificate_at_reload_keeps_the_old(self, site: Site, certificate: Certificate) -> None:
        site.allow_log("certificate|TLS|tls")
        certificate.chain.write_text("nonsense")
        done = site.reload()
        assert done.returncode == 2, done.stdout + done.stderr
        assert "TLS certificate" in done.stderr
        assert site.get("/hello").text == "hello"

    def test_a_silent_client_is_sent_away(self, plain: Start, certificate: Certificate) -> None:
        site = plain(
            workers=1,
            flags=certificate.flags,
            tls=certificate.trust,
            env={"QUINTET_TIMEOUTS_TLS_HANDSHAKE": "500ms"},
        )
        with Raw.tcp("127.0.0.1", site.port) as silent:
            assert silent.is_closed()

    def test_plain_text_on_the_tls_port(self, site: Site) -> None:
        with Raw.tcp("127.0.0.1", site.port) as client:
            client.request("GET /hello")
            try:
                assert client.answer().status == 400
            except (Closed, ValueError):
                pass
        assert site.get("/hello").text == "hello"


class TestHttp2:
    """Streams, flow control, and the ends of connections."""

    def test_prior_knowledge_without_tls(self, plain: Start) -> None:
        site = plain(workers=1)
        with site.client(http1=False, http2=True) as client:
            response = client.post("/echo", content=b"x" * 200_000)
            assert (response.http_version, len(response.content)) == ("HTTP/2", 200_000)

    def test_many_streams_on_one_connection(self, plain: Start) -> None:
        site = plain(workers=2, threads=4)
        done = subprocess.run(
            ["h2load", "-n", "2000", "-c", "2", "-m", "50", f"http://127.0.0.1:{site.port}/hello"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "2000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout

    def test_the_environ_is_that_of_http_1(self, plain: Start) -> None:
        site = plain(workers=1)
        fields = {"Cookie": "a=1; b=2", "X-Tag": "x"}
        with site.client(http1=False, http2=True) as two, site.client() as one:
            first, second = (client.get("/environ?q=1", headers=fields).json() for client in (one, two))
        for name in ("HTTP_HOST", "HTTP_COOKIE", "HTTP_X_TAG", "PATH_INFO", "QUERY_STRING", "SERVER_NAME"):
            assert first[name] == second[name], name

    def test_a_large_body_both_ways(self, plain: Start) -> None:
        site = plain(workers=1)
        body = os.urandom(3_000_000)
        with site.client(http1=False, http2=True) as client:
            assert client.post("/echo", content=body).content == body

    def test_head_and_errors(self, plain: Start) -> None:
        site = plain(workers=1, env={"QUINTET_LIMITS_BODY_MAX": "1KiB"})
        with site.client(http1=False, http2=True) as client:
            assert client.head("/hello").headers["content-length"] == "5"
            assert client.post("/echo", content=b"x" * 5000).status_code == 413
            assert client.get("/nothing").status_code == 404

    def test_goaway_lets_what_is_under_way_finish(self, plain: Start) -> None:
        site = plain(workers=1)
        # curl, since Python's h2 takes the first GOAWAY for the end.
        curl = ["curl", "-sSN", "--http2-prior-knowledge", f"{site.url}/stream?lines=10&pause=0.2"]
        with subprocess.Popen(curl, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
            assert client.stdout.readline() == "line 0\n"
            site.terminate()
            assert client.stdout.read().endswith("line 9\n")
            assert client.wait(10) == 0, client.stderr.read()
        assert site.wait_exit() == 0


@pytest.mark.short
def test_a_unix_socket(plain: Start, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    site = plain(workers=1, bind=(f"unix:{path}",), wait=False)

    def answered() -> bool:
        try:
            with Raw.unix(str(path)) as client:
                return client.request("GET /readyz").answer().status == 200
        except (Closed, OSError):
            return False

    wait_until(answered, 30, "ready")
    with Raw.unix(str(path)) as client:
        environ = json.loads(client.request("GET /environ").answer().text)
    assert environ["HTTP_HOST"] == "localhost"
    site.stop()
    assert not path.exists()


class TestInherited:
    """Sockets that systemd, or anyone else, has opened for us."""

    def test_listen_fds(self, plain: Start, tmp_path: Path) -> None:
        port = free_port()
        script = tmp_path / "activate.py"
        # systemd's protocol: sockets from descriptor 3 on, their number and our process id in the environment.
        script.write_text(
            "import os, socket, sys\n"
            f"listening = socket.create_server(('127.0.0.1', {port}))\n"
            "os.dup2(listening.fileno(), 3) if listening.fileno() != 3 else os.set_inheritable(3, True)\n"
            "os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())}\n"
            "os.execv(sys.argv[1], sys.argv[1:])\n"
        )
        site = plain(workers=1, bind=("systemd",), wait=False, prefix=(sys.executable, str(script)))
        site.port = port
        site.wait_ready()
        assert site.get("/hello").text == "hello"


class TestProxies:
    """Who the client is: the word of proxies we trust, of nobody else."""

    FORWARDED = ("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example")

    def environ(self, site: Site, *fields: str) -> dict[str, str]:
        with site.raw() as client:
            return json.loads(client.request("GET /environ", *fields).answer().text)

    def test_strangers_are_not_believed(self, plain: Start) -> None:
        site = plain(workers=1)
        environ = self.environ(site, *self.FORWARDED, "Forwarded: for=203.0.113.9;proto=https")
        assert environ["REMOTE_ADDR"] == "127.0.0.1"
        assert environ["wsgi.url_scheme"] == "http"
        assert environ["HTTP_HOST"] == "localhost"
        assert not any("FORWARDED" in name for name in environ), "nor passed on"

    @pytest.mark.short
    def test_trusted_proxies_are(self, plain: Start) -> None:
        site = plain(workers=1, flags=("--trusted-proxies", "127.0.0.0/8"))
        environ = self.environ(site, *self.FORWARDED)
        assert environ["REMOTE_ADDR"] == "203.0.113.9"
        assert environ["wsgi.url_scheme"] == "https"
        assert environ["HTTP_HOST"] == "shop.example"

    def test_the_first_stranger_from_the_right_is_the_client(self, plain: Start) -> None:
        site = plain(workers=1, flags=("--trusted-proxies", "127.0.0.0/8", "--trusted-proxies", "10.0.0.0/8"))
        environ = self.environ(site, "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.1.2.3")
        assert environ["REMOTE_ADDR"] == "203.0.113.9"

    def test_the_standards_own_field(self, plain: Start) -> None:
        site = plain(workers=1, flags=("--trusted-proxies", "127.0.0.1"))
        environ = self.environ(site, 'Forwarded: for="[2001:db8::17]:4711";proto=https;host=shop.example')
        assert environ["REMOTE_ADDR"] == "2001:db8::17"
        assert environ["wsgi.url_scheme"] == "https"

    @pytest.mark.parametrize("version", [1, 2])
    def test_proxy_protocol(self, plain: Start, version: int) -> None:
        site = plain(
            workers=1,
            flags=("--trusted-proxies", "127.0.0.0/8"),
            env={"QUINTET_PROXY_PROTOCOL": "true"},
            wait=False,
        )
        site.log.wait_for(str(site.port))
        if version == 1:
            header = b"PROXY TCP4 203.0.113.7 127.0.0.1 50000 80\r\n"
        else:
            addresses = (
                socket.inet_aton("203.0.113.7")
                + socket.inet_aton("127.0.0.1")
                + struct.pack("!HH", 50000, 80)
            )
            header = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11" + struct.pack("!H", len(addresses)) + addresses

        def answered() -> bool:
            try:
                with site.raw() as client:
                    return client.send(header).request("GET /readyz").answer().status == 200
            except (Closed, OSError):
                return False

        wait_until(answered, 30, "ready")
        with site.raw() as client:
            environ = json.loads(client.send(header).request("GET /environ").answer().text)
            assert environ["REMOTE_ADDR"] == "203.0.113.7"
        # Without the header it is no proxy.
        site.allow_log("PROXY protocol header is missing")
        with site.raw() as client:
            client.request("GET /hello")
            try:
                assert client.answer().status == 400
            except Closed:
                pass
