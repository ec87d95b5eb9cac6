"""nginx with a configuration, and quintet with what `quintet import` makes of it, answer alike."""

from __future__ import annotations

import base64
import os
import shutil
import socketserver
import subprocess
import threading
import wsgiref.simple_server
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from harness import places
from harness.processes import wait_until
from harness.raw import Answer, Raw
from harness.site import Start, free_port

pytestmark = pytest.mark.any_python

# What answers: on quintet's side as the app, on nginx's behind it, and as the servers of upstreams behind both.
ECHO = """
def named(name):
    def application(environ, start_response):
        path = environ["PATH_INFO"]
        if path.startswith("/check"):
            allowed = environ.get("HTTP_X_LET_ME") == "in"
            start_response("204 No Content" if allowed else "401 Unauthorized", [("X-User", "ann")])
            return []
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        shown = [name, environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", ""), environ["HTTP_HOST"].partition(":")[0]]
        shown += [environ.get(key, "-") for key in ("HTTP_X_TENANT", "HTTP_X_REAL_IP", "HTTP_X_USER", "HTTP_X_SECRET")]
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [" ".join([*shown, str(len(body))]).encode("latin-1")]
    return application

application = named("app")
"""

# bcrypt of "secret".
ANNA = "anna:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"
KEY = "Authorization: Basic " + base64.b64encode(b"anna:secret").decode()

HEAD = """
daemon off;
master_process off;
user {user};
pid {dir}/nginx.pid;
error_log {dir}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {dir}/t1;
    proxy_temp_path {dir}/t2;
    fastcgi_temp_path {dir}/t3;
    uwsgi_temp_path {dir}/t4;
    scgi_temp_path {dir}/t5;
    default_type text/plain;
"""

LOCATIONS = """
    upstream app {{ server 127.0.0.1:{app}; }}
    server {{
        listen 127.0.0.1:{port};
        location = /exact {{ return 200 "exactly"; }}
        location ^~ /firm/ {{ return 200 "firm"; }}
        location /firm/inner/ {{ return 200 "inner"; }}
        location ~ \\.txt$ {{ return 200 "text"; }}
        location ~* \\.JPG$ {{ return 200 "picture"; }}
        location ~ ^/texts/.*\\.txt$ {{ return 200 "never"; }}
        location /prefix {{ return 200 "prefix"; }}
        location /prefix/longer {{ return 200 "longer"; }}
        location /static/ {{ alias {dir}/static/; }}
        location /static/icons/ {{ alias {dir}/icons/; }}
        location /media {{ root {dir}; }}
        location = /favicon.ico {{ alias {dir}/icons/f.ico; }}
        location /gone {{ return 410; }}
        location /moved {{ return 301 https://www.example.org$request_uri; }}
        location /elsewhere/ {{ return 302 /static/a.css; }}
        location /old/ {{ rewrite ^/old/(.*)$ /new/$1 permanent; }}
        location /deep/ {{ rewrite ^/deep/(.*)$ /$1 break; proxy_pass http://app; proxy_set_header Host $host; }}
        rewrite ^/legacy/([0-9]+)$ /item/$1 last;
        rewrite ^/way/(.*)$ /static/$1 last;
        location ~ /\\.(?!well-known) {{ deny all; }}
        location /closed/ {{ deny all; }}
        location /inside/ {{ internal; proxy_pass http://app; }}
        location / {{ proxy_pass http://app; proxy_set_header Host $host; }}
    }}
}}
"""

LOCATION_REQUESTS = """
/ /exact /exact/ /firm/ /firm/x /firm/a.txt /firm/inner/ /firm/inner/x /firm /a.txt /a/b.txt /a.TXT /a.jpg /a.JPG /texts/a.txt
/prefix /prefixes /prefix/ /prefix/longer /prefix/longest /prefix/longer/x.txt /prefix/longer?x=1 /static/a.css /static/none.css /static/b.txt
/static/icons/f.ico /media/m.bin /favicon.ico /gone /gone/x /moved?a=b /moved/x%20y /elsewhere/ /old/x/y?z=1 /old/ /deep/x?y=1 /deep/
/legacy/12 /legacy/x /way/a.css /.git/config /a/.env /.well-known/acme /closed/ /closed/x /closed /inside/x /any/thing?with=query /a%20b
"""

UPSTREAMS = """
    limit_req_zone $binary_remote_addr zone=login:1m rate=1r/m;
    upstream app {{ server 127.0.0.1:{app}; }}
    upstream api {{ server 127.0.0.1:{one} max_fails=3 fail_timeout=5s; keepalive 4; }}
    upstream spread {{ server 127.0.0.1:{one}; server 127.0.0.1:{two}; }}
    add_header X-Frame-Options DENY;
    server {{
        listen 127.0.0.1:{port} default_server;
        server_name shop.example;
        client_max_body_size 1k;
        proxy_set_header Host $host;
        proxy_set_header X-Tenant shop;
        proxy_set_header X-Secret "";
        location / {{ proxy_pass http://app; }}
        location /api/ {{ proxy_pass http://api/v2/; }}
        location /strip/ {{ proxy_pass http://api/; }}
        location /whole/ {{ proxy_pass http://api; }}
        location /named/ {{ proxy_pass http://api; proxy_set_header Host inner.example; }}
        location /spread/ {{ proxy_pass http://spread; }}
        location = /one {{ proxy_pass http://api/exactly; }}
        location ~ ^/v[0-9]+/ {{ proxy_pass http://api; }}
        location /staff/ {{ auth_basic "staff"; auth_basic_user_file {dir}/htpasswd; proxy_pass http://app; }}
        location /staff/open/ {{ auth_basic off; proxy_pass http://app; }}
        location = /auth {{ internal; proxy_pass http://api/check; proxy_pass_request_body off; }}
        location /private/ {{
            auth_request /auth;
            auth_request_set $user $upstream_http_x_user;
            proxy_set_header Host $host;
            proxy_set_header X-User $user;
            proxy_pass http://app;
        }}
        location /upload/ {{ client_max_body_size 10; proxy_pass http://app; }}
        location /login/ {{ limit_req zone=login burst=1 nodelay; limit_req_status 429; proxy_pass http://app; }}
        location /headers/ {{ add_header X-Own yes; proxy_pass http://app; }}
    }}
    server {{
        listen 127.0.0.1:{port};
        server_name old.example www.old.example;
        return 301 http://shop.example$request_uri;
    }}
    server {{
        listen 127.0.0.1:{port};
        server_name *.blog.example;
        root {dir}/blog;
        location /api/ {{ proxy_pass http://api; proxy_set_header Host $host; }}
    }}
    server {{
        listen 127.0.0.1:{port};
        server_name api.blog.example;
        location / {{ proxy_pass http://api; proxy_set_header Host $host; }}
    }}
}}
"""


ELSEWHERE = """
    upstream twins {{ server 0.0.0.0:{one}; server 0.0.0.0:{twin} weight=2; }}
    server {{
        listen 127.0.0.1:{port};
        auth_basic "all";
        auth_basic_user_file {dir}/htpasswd;
        location / {{ proxy_pass http://twins; proxy_set_header Host $host; add_header X-Own general; }}
        location /static/ {{ auth_basic off; alias {dir}/static/; expires 1h; }}
        location ^~ /media/ {{ auth_basic off; root {dir}; }}
        location ~ \\.bin$ {{ return 403; }}
        location /doc/ {{ auth_basic off; alias {dir}/blog/; }}
        location /locked/ {{ alias {dir}/blog/; }}
        location = /post {{ auth_basic off; alias {dir}/blog/post.html; }}
        location /gone/ {{ return 410; }}
        location /some/ {{ allow 10.0.0.0/8; deny all; auth_basic off; alias {dir}/blog/; }}
        location /v1/ {{ auth_basic off; rewrite ^/v1/(.*)$ /v2/$1 break; proxy_pass http://twins; proxy_set_header Host $host; }}
        location /text/ {{ auth_basic off; return 200 "{{{{braces}}}} and more"; }}
        location /there/ {{ auth_basic off; return 302 $scheme://other.example/?from=there; }}
    }}
}}
"""

ELSEWHERE_REQUESTS = """
/ /x /static/a.css /static/none /media/m.bin /media/none /a.bin /static/m.bin /doc/ /doc/post.html /locked/post.html /post /gone/x /some/post.html
/v1/x?y=1 /v1/ /text/ /there/x
"""


@dataclass
class Ask:
    """One request."""

    path: str
    host: str = "shop.example"
    method: str = "GET"
    fields: tuple[str, ...] = ()
    body: bytes = b""

    def of(self, port: int) -> Answer:
        with Raw.tcp("127.0.0.1", port) as raw:
            line = f"{self.method} {self.path}"
            raw.request(line, "Connection: close", *self.fields, host=self.host, body=self.body)
            return raw.answer(head_only=self.method == "HEAD")


UPSTREAM_REQUESTS = [
    *(
        Ask(path)
        for path in [
            "/",
            "/x",
            "/api/",
            "/api/x?y=1",
            "/api",
            "/api?x=1",
            "/strip/a/b",
            "/strip",
            "/whole/x",
            "/named/x",
            "/one",
            "/one/x",
            "/v1/x",
            "/v/x",
        ]
    ),
    *(
        Ask(path)
        for path in ["/staff/", "/staff/x", "/staff/open/x", "/private/x", "/auth", "/headers/x", "/upload/"]
    ),
    Ask("/staff/x", fields=(KEY,)),
    Ask("/staff/x", fields=("Authorization: Basic eA==",)),
    Ask("/private/x", fields=("X-Let-Me: in",)),
    Ask("/private/x", fields=("X-Let-Me: in", "X-User: eve", "X-Secret: s", "X-Tenant: eve")),
    Ask("/upload/", method="POST", body=b"0123456789"),
    Ask("/upload/", method="POST", body=b"0123456789+"),
    Ask("/x", method="POST", body=b"x" * 1025),
    Ask("/api/x", method="POST", body=b"x" * 1000),
    *(Ask("/login/") for _ in range(4)),
    *(
        Ask(path, host=host)
        for host in ("old.example", "www.old.example", "OLD.example")
        for path in ("/", "/x?y=1")
    ),
    *(Ask(path, host="a.blog.example") for path in ("/", "/post.html", "/none", "/api/x")),
    *(Ask(path, host="api.blog.example") for path in ("/", "/post.html")),
    *(Ask(path, host=host) for host in ("blog.example", "nobody.example") for path in ("/", "/x")),
]


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Handler(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing to say."""


@contextmanager
def echo(name: str) -> Iterator[int]:
    """A server that tells its name and what it was asked; its port."""
    module: dict[str, Any] = {}
    exec(ECHO, module)
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, module["named"](name), _Server, _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def nginx(config: Path, port: int) -> Iterator[None]:
    """nginx with this file, while the block runs."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    command = [program, "-p", config.parent, "-c", config, "-e", config.parent / "error.log"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def listens() -> bool:
        assert process.poll() is None, (config.parent / "error.log").read_text()
        try:
            Raw.tcp("127.0.0.1", port).close()
        except OSError:
            return False
        return True

    try:
        wait_until(listens, 10, "nginx listens")
        yield
    finally:
        process.terminate()
        process.wait(10)


@dataclass
class Pair:
    """Both, with one configuration."""

    nginx: int
    quintet: int
    imported: str
    ports: dict[str, int] = field(default_factory=dict)


Paired = Callable[[str], Pair]


@pytest.fixture
def paired(start: Start, tmp_path: Path) -> Iterator[Paired]:
    """`paired(text)`: nginx with it, and quintet with what was imported."""
    for name, text in {
        "static/a.css": "style",
        "static/b.txt": "a text",
        "icons/f.ico": "icon",
        "media/m.bin": "media",
        "blog/post.html": "a post",
        "blog/index.html": "the blog",
        "htpasswd": ANNA,
        "echo.py": ECHO,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    # Whoever nginx's user is.
    tmp_path.chmod(0o755)
    with echo("app") as app, echo("one") as one, echo("two") as two, echo("one") as twin:
        running: list[Any] = []

        def both(text: str) -> Pair:
            ports = {"app": app, "one": one, "two": two, "twin": twin, "port": free_port()}
            user = "root" if os.geteuid() == 0 else "nobody"
            config = tmp_path / "nginx.conf"
            config.write_text((HEAD + text).format(dir=tmp_path, user=user, **ports))
            said = subprocess.run(
                [str(places.quintet()), "import", "nginx.conf", "--output", "quintet.toml"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
                timeout=30,
            )
            assert said.returncode == 0, said.stderr
            imported = (tmp_path / "quintet.toml").read_text()
            behind = nginx(config, ports["port"])
            behind.__enter__()
            running.append(behind)
            site = start(tmp_path, flags=("--app", "echo:application"))
            return Pair(ports["port"], site.port, imported, ports)

        yield both
        for one_of_them in running:
            one_of_them.__exit__(None, None, None)


def unlike(pair: Pair, ask: Ask, *names: str) -> list[str]:
    """What differs: status, where a redirect leads, what stands in these fields, and what was said, but for pages that the servers make themselves."""
    theirs, ours = ask.of(pair.nginx), ask.of(pair.quintet)

    def seen(answer: Answer, port: int) -> dict[str, Any]:
        location = answer.get("Location")
        base = f"http://{ask.host}:{port}{ask.path}"
        shown: dict[str, Any] = {name: answer.get(name) for name in names}
        shown["status"] = answer.status
        # nginx writes them whole, with the port that it listens on.
        shown["location"] = location and urljoin(base, location).replace(f":{port}", "").lower()
        if answer.status == 200:
            shown["body"] = answer.body
        return shown

    mine, yours = seen(ours, pair.quintet), seen(theirs, pair.nginx)
    return [] if mine == yours else [f"{ask}: {mine}, nginx: {yours}"]


def assert_none(pair: Pair, differences: list[list[str]]) -> None:
    """All of them at once, and what was imported."""
    found = [line for lines in differences for line in lines]
    assert not found, "\n".join([*found, pair.imported])


def test_locations_are_chosen_alike(paired: Paired) -> None:
    pair = paired(LOCATIONS)
    asked = [Ask(path, method=method) for path in LOCATION_REQUESTS.split() for method in ("GET", "HEAD")]
    assert_none(pair, [unlike(pair, ask) for ask in asked])


def test_servers_upstreams_and_checks_are_alike(paired: Paired) -> None:
    pair = paired(UPSTREAMS)
    found = [unlike(pair, ask, "X-Own") for ask in UPSTREAM_REQUESTS]
    # nginx leaves fields away where the status is an error; here they are there always.
    fine = [Ask("/x"), Ask("/api/x"), Ask("/headers/x"), Ask("/post.html", host="a.blog.example")]
    assert_none(pair, found + [unlike(pair, ask, "X-Frame-Options", "X-Own") for ask in fine])
    for port in (pair.nginx, pair.quintet):
        servers = [Ask("/spread/x").of(port).body.split()[0] for _ in range(10)]
        assert servers.count(b"one") == servers.count(b"two") == 5, "one after the other"


def test_a_site_whose_servers_are_elsewhere_is_alike(paired: Paired) -> None:
    pair = paired(ELSEWHERE)
    asked = [Ask(path, fields=fields) for path in ELSEWHERE_REQUESTS.split() for fields in ((), (KEY,))]
    assert_none(pair, [unlike(pair, ask) for ask in asked])
    assert_none(pair, [unlike(pair, Ask("/x", fields=(KEY,)), "X-Own")])
    assert_none(pair, [unlike(pair, Ask("/static/a.css"), "Cache-Control")])
