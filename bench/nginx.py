"""The nginx of its own documentation: keep-alive to the app, sendfile, cached descriptors, no logs."""

from __future__ import annotations

import os
from pathlib import Path

from bench import processes
from bench.places import STATIC
from bench.processes import Tree

# Keep-alive connections are not closed for their age or number during a run: reconnecting is not what is measured.
KEEPALIVE = "keepalive_timeout 3600s; keepalive_requests 1000000000;"

# One worker alone could hold all the connections of the `idle` scenario within its 20,000 descriptors.
CONNECTIONS = 19_000

_MAIN = """\
daemon off;
user {user};
worker_processes auto;
worker_rlimit_nofile 20000;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections {connections}; multi_accept off; }}
http {{
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  access_log off;
  server_tokens off;
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  {keepalive}
  open_file_cache max=1000 inactive=60s;
  open_file_cache_valid 30s;
  client_body_temp_path tmp/body; proxy_temp_path tmp/proxy; fastcgi_temp_path tmp/fastcgi;
  uwsgi_temp_path tmp/uwsgi; scgi_temp_path tmp/scgi;
{upstream}
  server {{
    listen 127.0.0.1:{port} reuseport backlog=2048;
{tls}
    location {static_url} {{ alias {static_root}/; }}
{location}
  }}
}}
"""

_TLS = """\
    listen 127.0.0.1:{port} ssl http2 reuseport backlog=2048;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:tls:10m;
    ssl_buffer_size 16k;
"""

# What gunicorn's and Django's deployment pages set.
FORWARDED = """\
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_redirect off;
"""


def start(
    work: Path,
    port: int,
    *,
    upstream: str = "",
    location: str = "",
    tls_port: int | None = None,
    certificate: tuple[Path, Path] | None = None,
    static_url: str = "/static/",
    static_root: Path = STATIC,
    connections: int = CONNECTIONS,
) -> Tree:
    """Starts nginx with its prefix in `work`; the caller checks the first answer."""
    (work / "tmp").mkdir(parents=True, exist_ok=True)
    tls = ""
    if tls_port and certificate:
        tls = _TLS.format(port=tls_port, certificate=certificate[0], key=certificate[1])
    config = work / "nginx.conf"
    config.write_text(
        _MAIN.format(
            user=user(),
            connections=connections,
            keepalive=KEEPALIVE,
            upstream=upstream,
            port=port,
            tls=tls,
            location=location,
            static_url=static_url,
            static_root=static_root,
        )
    )
    return processes.start(
        "nginx", ["nginx", "-p", work, "-c", config, "-e", work / "error.log"], work / "nginx.log"
    )


def user() -> str:
    """As root, nginx would change to another user, who may not enter the checkout. The same user for all stacks is also fair."""
    return "root" if os.geteuid() == 0 else "nobody"


def proxy(server: str, *, keepalive: bool) -> dict[str, str]:
    """The lines for an app that speaks HTTP; `keepalive` is off for servers that close after each answer."""
    keep = "keepalive 64; keepalive_requests 1000000000; keepalive_timeout 3600s;" if keepalive else ""
    reuse = '      proxy_http_version 1.1;\n      proxy_set_header Connection "";\n' if keepalive else ""
    return {
        "upstream": f"  upstream app {{ server {server} fail_timeout=0; {keep} }}\n",
        "location": f"    location / {{\n      proxy_pass http://app;\n{reuse}{FORWARDED}    }}\n",
    }


def uwsgi(server: str) -> dict[str, str]:
    """The lines for uWSGI's own protocol (it has no keep-alive)."""
    return {
        "upstream": f"  upstream app {{ server {server} fail_timeout=0; }}\n",
        "location": "    location / {\n      include /etc/nginx/uwsgi_params;\n      uwsgi_pass app;\n    }\n",
    }
