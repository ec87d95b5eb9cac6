"""The stacks of `proxy`: the same upstream for all, and three proxies in front of it.

The upstream is an nginx that answers from its page cache and from its own configuration, on three ports. Below /one/ a proxy asks the
first port, below /three/ all three. Its CPU is not counted.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench import nginx, processes, quintet
from bench.places import SITES, STATIC
from bench.processes import Tree
from bench.stacks import Site, Stack, free_port

# What a POST is answered with.
POSTED = b"x" * 1_000
_SERVERS = 3

_UPSTREAM = """\
daemon off;
user {user};
worker_processes auto;
worker_rlimit_nofile 20000;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 4096; }}
http {{
  include /etc/nginx/mime.types;
  access_log off;
  sendfile on;
  tcp_nopush on;
  {keepalive}
  open_file_cache max=100 inactive=600s;
  open_file_cache_valid 600s;
  client_body_temp_path tmp/body; proxy_temp_path tmp/proxy; fastcgi_temp_path tmp/fastcgi;
  uwsgi_temp_path tmp/uwsgi; scgi_temp_path tmp/scgi;
  server {{
{listen}
    location /one/ {{ alias {static}/; }}
    location /three/ {{ alias {static}/; }}
    location = /one/post {{ return 200 "{posted}"; }}
  }}
}}
"""

_NGINX_LOCATION = """\
    location /{name}/ {{
      proxy_pass http://{name};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
{forwarded}    }}
"""


class Upstream:
    """The servers behind the proxies."""

    def __init__(self, work: Path) -> None:
        """Starts them; [`check`][bench.stacks.Stack.check] of any proxy in front waits for them."""
        self.ports: list[int] = []
        while len(self.ports) < _SERVERS:
            port = free_port()
            if port not in self.ports:
                self.ports.append(port)
        (work / "tmp").mkdir(parents=True, exist_ok=True)
        config = work / "nginx.conf"
        config.write_text(
            _UPSTREAM.format(
                user=nginx.user(),
                keepalive=nginx.KEEPALIVE,
                listen="\n".join(
                    f"    listen 127.0.0.1:{port} reuseport backlog=2048;" for port in self.ports
                ),
                static=STATIC,
                posted=POSTED.decode(),
            )
        )
        command: list[str | Path] = ["nginx", "-p", work, "-c", config, "-e", work / "error.log"]
        self.tree: Tree = processes.start("upstream", command, work / "nginx.log")

    def servers(self, name: str) -> list[str]:
        """Of `one` or `three`."""
        ports = self.ports[:1] if name == "one" else self.ports
        return [f"127.0.0.1:{port}" for port in ports]

    def ours(self, site: Site, work: Path) -> Stack:
        """quintet with two routes and two upstreams; the app behind it is not asked."""
        lines = []
        for name in ("one", "three"):
            servers = ", ".join(f'"{server}"' for server in self.servers(name))
            lines += ["[[upstream]]", f'name = "{name}"', f"servers = [{servers}]"]
            # As nginx and HAProxy are told: nobody is to reconnect.
            lines += ['keep_alive = "600s"', "[[route]]", f'path = "/{name}/*"', f'upstream = "{name}"']
        config = work / "quintet.toml"
        config.write_text("\n".join(lines) + "\n")
        return quintet.start(site, work, config=config)

    def nginx(self, _site: Site, work: Path) -> Stack:
        """`proxy_pass` with keep-alive. 100 kB fit into the buffers of a request, so that nothing goes through a file."""
        groups, locations = "", ""
        for name in ("one", "three"):
            servers = " ".join(f"server {server};" for server in self.servers(name))
            kept = "keepalive 128; keepalive_requests 1000000000; keepalive_timeout 3600s;"
            groups += f"  upstream {name} {{ {servers} {kept} }}\n"
            locations += _NGINX_LOCATION.format(name=name, forwarded=nginx.FORWARDED)
        groups += "  proxy_buffer_size 16k; proxy_buffers 8 16k; proxy_busy_buffers_size 32k;\n"
        groups += "  client_body_buffer_size 128k;\n"
        port = free_port()
        return Stack("nginx", [nginx.start(work, port, upstream=groups, location=locations)], port)

    def haproxy(self, _site: Site, work: Path) -> Stack:
        """HTTP mode, a thread a core, connections shared between requests."""
        port = free_port()
        backends = ""
        for name in ("one", "three"):
            backends += f"backend {name}\n  balance roundrobin\n  http-reuse always\n"
            for number, server in enumerate(self.servers(name)):
                backends += f"  server s{number} {server} pool-max-conn -1 pool-purge-delay 3600s\n"
        config = work / "haproxy.cfg"
        config.write_text(f"""\
global
  maxconn 8000
  nbthread {os.cpu_count() or 1}
  no strict-limits
defaults
  mode http
  option splice-auto
  option forwardfor
  timeout client 3600s
  timeout server 60s
  timeout connect 5s
  timeout http-request 30s
  timeout http-keep-alive 3600s
frontend web
  bind 127.0.0.1:{port} backlog 2048
  http-request set-header X-Forwarded-Proto http
  use_backend one if {{ path_beg /one/ }}
  default_backend three
{backends}""")
        tree = processes.start("haproxy", ["haproxy", "-db", "-f", str(config)], work / "haproxy.log")
        return Stack("haproxy", [tree], port)


def site() -> Site:
    """quintet runs an app always; this one is not asked."""
    return Site(SITES / "plain_asgi", "", "plain:application", workers=1, asgi=True)
