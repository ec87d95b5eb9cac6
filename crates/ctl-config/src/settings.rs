//! The table of settings. A new setting is a new row here, and nothing else. A table that may be there several times
//! (`[[worker_pool]]`) is a row of `tables` at the end, and a file of its own with its keys and rules.

use std::path::PathBuf;
use std::time::Duration;

use crate::address::{BindAddress, DEFAULT_PORT, check_network};
use crate::certificate::Certificate;
use crate::certificate::TlsVersion;
use crate::choice::choice;
use crate::client_certificate::ClientVerify;
use crate::cross::{
    check_accel, check_callable, check_media_type, check_module, check_mount, check_optional_path,
    check_prefix, check_priority,
};
use crate::define::settings;
pub use crate::define::{all, find};
use crate::limit::Limit;
use crate::module::Module;
use crate::pool::{WorkerPool, check_pattern};
use crate::redis::{SecretUrl, check_key_prefix};
use crate::route::Route;
use crate::upstream::Upstream;
use crate::value::Program;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

choice! {
    /// Who may fetch uploaded files.
    Media {
        /// Served with `DEBUG`, where the app's own URLs serve them too. Without it the app answers.
        Auto = "auto",
        /// Served to everybody. Right when every upload is public.
        Public = "public",
        /// Never served from here.
        Off = "off",
    }
}

choice! {
    /// How an app is called.
    Interface {
        /// As the callable looks; a Django project runs under ASGI when its settings name an ASGI_APPLICATION.
        Auto = "auto",
        /// PEP 3333: a thread for each request.
        Wsgi = "wsgi",
        /// ASGI 3: an event loop, WebSockets, event streams.
        Asgi = "asgi",
    }
}

choice! {
    /// The event loop of ASGI workers.
    EventLoop {
        /// uvloop when it is installed, else asyncio.
        Auto = "auto",
        /// The standard library's.
        Asyncio = "asyncio",
        /// uvloop; it must be installed.
        Uvloop = "uvloop",
    }
}

choice! {
    /// When Python's garbage collector runs.
    Gc {
        /// Whenever Python finds it due, also in the middle of a request.
        Python = "python",
        /// Between requests, when the response has been sent.
        Between = "between",
    }
}

choice! {
    /// What a banned client gets.
    BanAnswer {
        /// An answer with status 403, and the end of the connection.
        Forbidden = "403",
        /// No answer: the connection is closed.
        Drop = "drop",
    }
}

choice! {
    /// In which order waiting requests are served.
    Discipline {
        /// First in, first out; while overloaded the newest first and those that waited too long are refused (adaptive
        /// LIFO with CoDel), the least important first.
        Adaptive = "adaptive",
        /// First in, first out, whatever happens.
        Fifo = "fifo",
    }
}

choice! {
    /// The form of the access log.
    AccessLog {
        /// No access log.
        Off = "off",
        /// A line a request, for people.
        Text = "text",
        /// A JSON object a request.
        Json = "json",
        /// A line a request in colour, with its time and database queries: what `quintet dev` shows.
        Dev = "dev",
    }
}

choice! {
    /// The form of the log.
    LogFormat {
        /// Lines for people, in colour on a terminal.
        Text = "text",
        /// A JSON object a line.
        Json = "json",
    }
}

choice! {
    /// How much is logged.
    LogLevel {
        /// What an operator wants to know: starts, reloads, deaths of workers.
        Info = "info",
        /// Only what is odd.
        Warn = "warn",
        /// Only what failed.
        Error = "error",
        /// Every step.
        Debug = "debug",
    }
}

settings! {
    /// The project and the Python that runs it.
    [app] App {
        /// The project directory: where manage.py is. It is the workers' current directory and the first entry of
        /// `sys.path`.
        dir: PathBuf = PathBuf::from("."),
            otherwise("the directory of quintet.toml, or the argument of `quintet run`"), example("\"src\"");
        /// The WSGI or ASGI callable, as `MODULE:CALLABLE`. A plain app needs it; a Django project does not.
        callable: Option<String> = None,
            flag("app", "MODULE:CALLABLE"),
            otherwise("ASGI_APPLICATION of the settings module where it is set, else WSGI_APPLICATION"),
            example("\"shop.wsgi:application\""), checked(check_callable), live();
        /// How the app is called: WSGI with threads, or ASGI with an event loop.
        interface: Interface = Interface::Auto,
            flag("interface", "INTERFACE"), live();
        /// The settings module (`DJANGO_SETTINGS_MODULE`).
        settings: Option<String> = None,
            flag("settings", "MODULE"), otherwise("DJANGO_SETTINGS_MODULE of the environment, then of manage.py"),
            example("\"shop.settings.production\""), checked(check_module), live();
        /// The Python interpreter that runs the app; the `quintet` package must be installed for it. A name without a
        /// slash is looked for in PATH.
        python: Option<Program> = None,
            flag("python", "PATH"),
            otherwise("the active environment, .venv or venv in the project, the one quintet is installed in, python3 of PATH"),
            example("\".venv/bin/python\"");
        /// The path below which the app lives (`SCRIPT_NAME`), as `/shop`; empty for the root.
        mount: String = String::new(),
            flag("mount", "PREFIX"), example("\"/shop\""), checked(check_mount);
    }

    /// Listening sockets, and how the instance stops.
    [server] Server {
        /// Addresses to listen on: `HOST:PORT`, `:PORT` for every interface, `unix:PATH`, `fd:N` for an inherited
        /// socket, `systemd` for all that systemd passes. With `tls.certificate` the TCP ones speak TLS.
        bind: Vec<BindAddress> = vec![BindAddress::Tcp { host: "127.0.0.1".into(), port: DEFAULT_PORT }],
            flag("bind", "ADDRESS"), example("[\"0.0.0.0:8000\", \"unix:/run/shop.sock\"]");
        /// Connections that the kernel keeps for us until we accept them. The system's own limit
        /// (`net.core.somaxconn`) caps it.
        backlog: u32 = 2048,
            between("1", "65535", "the kernel keeps this number in 16 bits");
        /// Threads that move bytes between clients and workers.
        reactors: Option<u32> = None,
            flag("reactors", "N"), otherwise("one for every two cores, at least one"),
            between("1", "256", "more threads than cores only take turns");
        /// Where the sockets of the running instance are. `quintet status`, `reload` and `stop` look there.
        runtime_dir: Option<PathBuf> = None,
            flag("runtime-dir", "DIR"),
            otherwise("chosen from the project directory, below /run/quintet (root), $XDG_RUNTIME_DIR or the temporary directory"),
            example("\"/run/shop\"");
        /// Where bans and the counts of limits outlive the instance, in a file `limits`, and the secret of sticky cookies, in `sticky`.
        /// Nothing is written while there is nothing to keep.
        state_dir: Option<PathBuf> = None,
            otherwise("chosen from the project directory, below $STATE_DIRECTORY (systemd), /var/lib/quintet (root) or $XDG_STATE_HOME"),
            example("\"/var/lib/shop\"");
        /// Time between "not ready" on /readyz and the end of listening when the instance stops: as long as a load
        /// balancer needs to notice.
        drain_delay: Duration = Duration::ZERO,
            example("\"5s\""), between("0s", "10m", "who stops an instance wants it to stop");
        /// How long requests in flight may take when the instance stops or a worker is replaced; then they are cut.
        drain_timeout: Duration = Duration::from_secs(30),
            between("0s", "1d", "a stop has to end");
        /// Path of the liveness check on every listener: 200 while the gateway runs. Empty: the app gets it.
        healthz: String = "/healthz".to_owned(),
            example("\"\""), checked(check_optional_path);
        /// Path of the readiness check on every listener: 200 while requests can be served, 503 otherwise and from the
        /// first moment of a stop. Empty: the app gets it.
        readyz: String = "/readyz".to_owned(),
            example("\"\""), checked(check_optional_path);
    }

    /// The Python processes. `[[worker_pool]]` gives some paths workers of their own.
    [workers] Workers {
        /// Worker processes, or "auto" to choose from cores and memory (and the container's limits on them).
        count: Option<u32> = None,
            flag("workers", "N|auto"), otherwise("one a core, fewer when memory is short"),
            between("1", "1024", "a machine of more than 1024 workers is better run as several instances"), live();
        /// Most worker processes that scaling may start when requests wait, the CPU has time to spare and memory and
        /// database connections allow it; it goes down to `count` again. The same as `count` turns scaling off.
        max: Option<u32> = None,
            flag("workers-max", "N|auto"),
            otherwise("`count` when that is set, else up to 4 a core as far as memory and `db_connections_max` allow"),
            between("1", "1024", "a machine of more than 1024 workers is better run as several instances"), live();
        /// Threads of each WSGI worker, or "auto". Each runs one request at a time; threads of one process share Python's
        /// global lock, so they help while the app waits (for a database, say) and not while it computes.
        threads: Option<u32> = None,
            flag("threads", "N|auto"), otherwise("4, and more on small machines so that 8 requests can wait at once"),
            between("1", "1024", "each thread needs a stack and mostly a database connection"), live();
        /// Requests that an ASGI worker runs at one time. Django's sync views run in a thread each, so this is also the number
        /// of database connections that it may open. WebSockets and event streams that are open do not count; as many as this may
        /// be opening besides.
        concurrency: u32 = 16,
            flag("concurrency", "N"),
            between("1", "4096", "every request in flight takes memory and mostly a database connection"), live();
        /// WebSockets and event streams that an ASGI worker holds at one time; one more is answered 503.
        long_lived_max: u32 = 10_000,
            between("0", "32000", "they are numbered in 15 bits on the link"), live();
        /// How long WebSockets and event streams may go on when their worker is replaced; then WebSockets are closed with
        /// 1012 (1001 when the instance stops) and streams end.
        long_lived_grace: Duration = Duration::from_secs(5),
            between("0s", "1h", "an old worker has to go"), live();
        /// The event loop of ASGI workers.
        event_loop: EventLoop = EventLoop::Auto, live();
        /// Import the app once, in a template process, and fork workers from it: they are ready within milliseconds and share
        /// memory. An app that starts threads while it is imported is noticed, and its workers import by themselves.
        preload: bool = true, flag("preload", "BOOL"), live();
        /// A worker is replaced after this many requests (a tenth more or less, so that not all go at once).
        requests_max: Option<u64> = None,
            otherwise("never"), between("1", "1000000000000", "a worker must serve something"), live();
        /// A worker is replaced after this time (a tenth more or less).
        lifetime: Option<Duration> = None,
            otherwise("never"), between("10s", "365d", "a worker must serve something"), example("\"12h\""), live();
        /// A worker is replaced when its proportional memory (PSS) is above this (a tenth more or less).
        memory_max: Option<u64> = None,
            otherwise("never"), between("16MiB", "1TiB", "Python alone takes that much"), example("\"512MiB\""), live();
        /// All workers together shall stay below this: no more are started, and the largest is replaced when it is exceeded.
        memory_total_max: Option<u64> = None,
            otherwise("four fifths of the memory of the machine or container"),
            between("64MiB", "64TiB", "Python alone takes that much"), example("\"6GiB\""), live();
        /// Database connections that all workers together may open. A worker is counted with one for each thread or concurrent
        /// request, or with as many as it has held at one time, where that is more. Scaling stays below it.
        db_connections_max: u32 = 80,
            between("1", "100000", "PostgreSQL allows 100 unless told otherwise"), live();
        /// When Python's garbage collector runs.
        gc: Gc = Gc::Python, live();
        /// How long a worker may take from its start until the app is imported.
        start_timeout: Duration = Duration::from_secs(60),
            between("1s", "1h", "a worker that never becomes ready must be noticed"), live();
        /// The user that workers run as; only root can change it.
        user: Option<String> = None,
            example("\"www-data\""), otherwise("the user that runs quintet");
        /// The group that workers run as.
        group: Option<String> = None,
            example("\"www-data\""), otherwise("the user's own group");
    }

    /// HTTPS. All files are read again at `quintet reload`, which fails if one is no good: the old ones stay. Certificates for more
    /// names are `[[certificate]]` tables. See docs/guides/tls.md.
    [tls] Tls {
        /// PEM file with the certificate and its chain. Setting it turns TLS on for every TCP address.
        certificate: Option<PathBuf> = None,
            flag("tls-certificate", "FILE"), otherwise("no TLS"), example("\"/etc/letsencrypt/live/shop/fullchain.pem\"");
        /// PEM file with the private key of the certificate.
        key: Option<PathBuf> = None,
            flag("tls-key", "FILE"), example("\"/etc/letsencrypt/live/shop/privkey.pem\"");
        /// The oldest version of TLS that is spoken.
        min_version: TlsVersion = TlsVersion::V1_2;
        /// Who asks for a name that no certificate has, or for none, gets no certificate: the handshake fails.
        strict_sni: bool = false;
        /// Whether clients are asked for certificates, which `client_ca` must vouch for. The app sees who they are:
        /// SSL_CLIENT_VERIFY, SSL_CLIENT_S_DN and others in the environ, the TLS extension under ASGI.
        client_verify: ClientVerify = ClientVerify::Off;
        /// PEM file with the certificates of the authorities that sign those of clients. Read again by `quintet reload`; when it has
        /// changed no session is resumed.
        client_ca: Option<PathBuf> = None,
            otherwise("clients are not asked"), example("\"/etc/quintet/clients.pem\"");
        /// PEM file with the lists of certificates that these authorities have revoked: one of each authority. Read again as `client_ca` is.
        client_crl: Option<PathBuf> = None,
            otherwise("none is revoked"), example("\"/etc/quintet/revoked.pem\"");
    }

    /// How much a client may ask for. What is above is answered by the gateway and never reaches Python.
    [limits] Limits {
        /// Client connections open at once; one more is answered 503.
        connections_max: u32 = 16_384,
            between("1", "1000000", "each connection is a descriptor");
        /// Client connections open at once from one address (of IPv6, from one /64); one more is answered 503. Not counted are
        /// trusted proxies.
        connections_per_address: Option<u32> = None,
            otherwise("as many as there may be at all"), example("100"),
            between("1", "1000000", "each connection is a descriptor");
        /// Length of the request line; 414 above.
        line_max: u64 = 8 * KIB,
            between("512B", "256KiB", "the head of a request travels to the worker in one piece");
        /// Length of all header fields together; 431 above.
        headers_max: u64 = 32 * KIB,
            between("1KiB", "512KiB", "the head of a request travels to the worker in one piece");
        /// Number of header fields; 431 above.
        header_count_max: u32 = 100,
            between("8", "1000", "browsers send about 20; each one becomes an entry of the environ");
        /// Length of a request body; 413 above.
        body_max: u64 = 128 * MIB,
            between("0", "1TiB", "bodies are kept in memory or in a file until the app has read them");
        /// How fast the bodies of answers go out over one connection, in bytes a second; over HTTP/2 its streams share it. A route's
        /// `bandwidth` says otherwise. See docs/guides/limits.md.
        bandwidth: Option<u64> = None,
            otherwise("as fast as clients take them"), example("\"1MiB\""),
            between("1KiB", "1TiB", "slower than that is no service");
        /// So many bytes go at full speed before `bandwidth` holds. While a connection sends less than its bandwidth it earns them
        /// again.
        bandwidth_after: u64 = 0,
            between("0", "1TiB", "more than that is no limit");
        /// HTTP/2 streams that one connection may have open.
        h2_streams_max: u32 = 128,
            between("1", "10000", "every stream may hold a request and a response in memory");
    }

    /// Clients that are shut out for a while. A client is an IPv4 address or the /64 of an IPv6 one; behind trusted proxies the
    /// true client counts, and a trusted proxy is never banned. See docs/guides/limits.md.
    [bans] Bans {
        /// Ban a client after this many offences within `window`: requests beyond a `[[limit]]` and, with `count_4xx`, other errors
        /// of its own.
        after: Option<u32> = None,
            otherwise("nobody is banned but by `quintet bans add` and `deny_file`"), example("30"),
            between("1", "1000000", "a number that nobody reaches bans nobody");
        /// The time in which offences are counted: they are forgotten one by one, evenly over it.
        window: Duration = Duration::from_secs(60),
            between("1s", "1d", "what was longer ago says nothing of now");
        /// How long the first ban lasts. Each further one lasts twice as long as the one before.
        time: Duration = Duration::from_secs(600),
            between("1s", "365d", "nobody is shut out for ever");
        /// How long a ban lasts at most. Who behaves for as long begins anew.
        time_max: Duration = Duration::from_secs(86_400),
            between("1s", "365d", "nobody is shut out for ever");
        /// Whether answers with a status of 400 to 499 are offences, from the app too. Not 408, 412 and 416, which happen to honest
        /// clients.
        count_4xx: bool = true;
        /// What banned clients get.
        answer: BanAnswer = BanAnswer::Forbidden;
        /// File of addresses and ranges that are always shut out, one a line, comments behind `#` or `;`. Read again when it changes.
        deny_file: Option<PathBuf> = None,
            example("\"/etc/quintet/deny.txt\"");
        /// File of addresses and ranges that are never banned, in the same form; it wins over `deny_file`. Limits hold for them.
        allow_file: Option<PathBuf> = None,
            example("\"/etc/quintet/allow.txt\"");
        /// Clients whose bans and offences are remembered at one time; about 90 bytes each, when there are so many.
        clients_max: u32 = 65_536,
            between("64", "16777216", "that is more than a gigabyte of memory");
    }

    /// Redis or Valkey, by which several hosts count limits together and share their bans. Nothing is asked of it while it is not
    /// named. See docs/guides/hosts.md.
    [redis] Redis {
        /// Where it is: `redis://USER:PASSWORD@HOST:PORT/DATABASE`, `rediss://` with TLS, `unix:///PATH?db=N`. Everything but the host
        /// may be left away. It is shown nowhere with its password; in the environment or a file it stands in no configuration.
        url: Option<SecretUrl> = None,
            otherwise("each host counts for itself"), example("\"rediss://shop@cache.example.org\""), secret();
        /// A file that holds the address, read at each new connection.
        url_file: Option<PathBuf> = None, example("\"/run/secrets/redis-url\"");
        /// The authorities whose certificates are believed with `rediss://`.
        tls_ca: Option<PathBuf> = None, otherwise("those that the system believes"), example("\"/etc/quintet/ca.pem\"");
        /// The beginning of all keys. Hosts that use the same one belong together.
        prefix: String = "quintet".to_owned(), checked(check_key_prefix);
        /// Hosts count `[[limit]]` together, those with the same name and terms.
        limits: bool = true;
        /// A ban on one host holds on all.
        bans: bool = true;
        /// How long a request waits for an answer at most; then its host decides alone.
        timeout: Duration = Duration::from_millis(5),
            between("1ms", "1s", "every request that is counted may wait so long");
        /// How long a connection may take to be made, with TLS and password.
        connect_timeout: Duration = Duration::from_secs(1),
            between("10ms", "1m", "no request waits for it");
    }

    /// How long each step may take. Every step has an end.
    [timeouts] Timeouts {
        /// TLS handshake; the connection is closed after it.
        tls_handshake: Duration = Duration::from_secs(10),
            between("100ms", "10m", "a connection without a handshake must not stay");
        /// From the first byte of a request to the end of its headers; 408 after it.
        header: Duration = Duration::from_secs(15),
            between("100ms", "10m", "slow headers are the cheapest attack there is");
        /// Longest pause in a request body; 408 after it.
        body: Duration = Duration::from_secs(30),
            between("100ms", "1h", "a body that stopped must not stay");
        /// How long a request may wait for a free worker; 503 after it.
        queue: Duration = Duration::from_secs(10),
            between("0s", "10m", "visitors give up earlier than that");
        /// How long the app may take to begin its response; 504 after it, and the worker is replaced.
        app: Duration = Duration::from_secs(60),
            between("100ms", "1d", "a request that hangs must be noticed");
        /// How long an idle connection is kept for the client's next request.
        keep_alive: Duration = Duration::from_secs(75),
            between("0s", "1h", "an idle connection costs a descriptor");
        /// Longest pause of a client in taking a response; the connection is closed after it.
        write: Duration = Duration::from_secs(30),
            between("100ms", "1h", "a client that stopped reading must not hold a response");
    }

    /// Requests that wait for a free worker.
    [queue] Queue {
        /// Requests waiting at once; one more is answered 503 with Retry-After.
        depth_max: u32 = 1024,
            between("0", "1000000", "a queue that never empties only makes everybody wait");
        /// In which order waiting requests are served.
        discipline: Discipline = Discipline::Adaptive;
        /// Under overload, the longest a request should wait: who has waited longer is refused. It is an overload when for a second,
        /// or the time of 128 requests, the queue neither emptied nor got shorter and waits were above twice this (and above
        /// a quarter of a second, while this is not set).
        target: Option<Duration> = None,
            otherwise("the mean time of a request in its worker, at least 5 ms"),
            between("1ms", "1m", "visitors notice more"), example("\"100ms\"");
        /// How important requests are under overload, as `PATTERN=CLASS`: critical, high, normal, low or lowest. The first pattern
        /// that matches the path decides. Who sends a session cookie or an Authorization header counts as signed in. That is not
        /// checked: it sorts honest visitors, and keeps no attacker out.
        priority: Vec<String> = Vec::new(),
            otherwise("high: signed-in users who change something; normal: signed-in users; low: others; lowest: known bots"),
            example("[\"/checkout/*=critical\", \"/feed/*=lowest\"]"), checked(check_priority);
        /// Retry-After of that 503.
        retry_after: Duration = Duration::from_secs(1),
            between("1s", "1h", "the header counts whole seconds");
    }

    /// WebSockets (ASGI).
    [websocket] Websocket {
        /// Longest message of a client; the connection is closed with 1009 above. While an app is slow to take them, the gateway
        /// may hold seven of them for each WebSocket.
        message_max: u64 = MIB,
            between("125B", "256MiB", "a message is handed to the app in one piece");
        /// Pause after which a silent client is sent a ping; 0 for never.
        ping_interval: Duration = Duration::from_secs(20),
            between("0s", "1h", "proxies between us close what is silent for a minute");
        /// How long the answer to a ping may take; then the connection is closed with 1011.
        ping_timeout: Duration = Duration::from_secs(20),
            between("100ms", "1h", "a client that vanished must be noticed");
        /// Compress messages where the client offers it (permessage-deflate).
        compress: bool = true;
    }

    /// What stands before us: load balancers and other proxies.
    [proxy] Proxy {
        /// Addresses and ranges (and `unix` for the peers of unix sockets) whose X-Forwarded-For, -Proto, -Host and
        /// Forwarded are believed. From everybody else these headers are taken away.
        trusted: Vec<String> = Vec::new(),
            flag("trusted-proxies", "NETWORK"), otherwise("nobody"), example("[\"10.0.0.0/8\", \"unix\"]"),
            checked(check_network);
        /// Expect the PROXY protocol (version 1 or 2) on connections of trusted proxies.
        protocol: bool = false;
    }

    /// Memory and files between slow clients and fast workers.
    [buffers] Buffers {
        /// A request body is kept in memory up to this; what is longer goes to an unlinked file, which the worker
        /// reads directly.
        request_memory: u64 = 64 * KIB,
            between("0", "512KiB", "a body in memory travels to the worker in one piece with its head");
        /// Path prefixes whose request bodies reach the app while they arrive, instead of complete.
        request_stream: Vec<String> = Vec::new(),
            example("[\"/upload/\"]"), otherwise("every body is read before the app is called"), checked(check_prefix);
        /// What a client is slow to take of a response is kept in memory up to this, then in a file.
        response_memory: u64 = MIB,
            between("0", "1GiB", "it is held for each slow client");
        /// Length of that file; beyond it the worker waits for the client.
        response_disk: u64 = GIB,
            between("0", "1TiB", "it is held for each slow client");
        /// Slots that may be held up by slow clients at once, by slow reading or by slow sending where bodies are streamed; above, the
        /// next one is cut.
        streaming_max: Option<u32> = None,
            otherwise("half of all slots, at least one"),
            between("1", "65535", "there are not more slots than that");
        /// How long a slow client may hold up a slot.
        streaming_timeout: Duration = Duration::from_secs(300),
            between("1s", "1d", "a slot has to come back");
        /// Where these files are; they have no name and vanish with the process.
        dir: Option<PathBuf> = None,
            otherwise("the system's temporary directory"), example("\"/var/tmp\"");
    }

    /// Static and media files, served without Python. Addresses and directories are what the app itself reports
    /// (`STATIC_URL`, `STATIC_ROOT`, `MEDIA_URL`, `MEDIA_ROOT`) unless they are set here.
    [files] Files {
        /// Serve static and media files at all. The app may still send files by X-Accel-Redirect and X-Sendfile.
        enabled: bool = true;
        /// Uploaded files: served with DEBUG only, to everybody, or not from here.
        media: Media = Media::Auto;
        /// URL prefix of static files.
        static_url: Option<String> = None,
            otherwise("STATIC_URL"), example("\"/static/\""), checked(check_prefix);
        /// Directory of static files.
        static_root: Option<PathBuf> = None,
            otherwise("STATIC_ROOT"), example("\"staticfiles\"");
        /// URL prefix of uploaded files.
        media_url: Option<String> = None,
            otherwise("MEDIA_URL"), example("\"/media/\""), checked(check_prefix);
        /// Directory of uploaded files.
        media_root: Option<PathBuf> = None,
            otherwise("MEDIA_ROOT"), example("\"media\"");
        /// Memory for small files and compressed variants, in all.
        memory: u64 = 64 * MIB,
            between("0", "1TiB", "it is taken from the memory of the machine");
        /// Compress on the fly what compresses.
        compress: bool = true;
        /// How long browsers may keep files without a content hash in their name; 0 lets them ask each time.
        max_age: Duration = Duration::from_secs(60),
            between("0s", "365d", "a year is what caches take for ever");
        /// Directories that the app may name in X-Accel-Redirect or X-Sendfile, as `/prefix/=/directory`.
        accel: Vec<String> = Vec::new(),
            otherwise("only directories that are served anyway"), example("[\"/protected/=/srv/shop/files\"]"),
            checked(check_accel);
    }

    /// Compression of what the app answers: zstd, gzip or brotli, as the client accepts them. Files are compressed anyway
    /// (`files.compress`). See docs/guides/compression.md.
    [compression] Compression {
        /// Compress answers. Event streams, and what the app has compressed itself or marked `Cache-Control: no-transform`, are left
        /// alone.
        enabled: bool = false;
        /// Shorter bodies are sent as they are. Does not hold for streams, whose length is unknown.
        body_min: u64 = KIB,
            between("64B", "1GiB", "below it the coding's own bytes are more than it saves");
        /// Media types to compress besides text, JSON, XML and their kin, as `TYPE/SUBTYPE` or `TYPE/*`.
        types: Vec<String> = Vec::new(),
            example("[\"application/x-protobuf\", \"model/*\"]"), checked(check_media_type);
        /// Paths whose answers are never compressed, with `*` for any text: pages that show a secret beside what the asker chooses.
        exclude: Vec<String> = Vec::new(),
            example("[\"/account/*\"]"), checked(check_pattern);
    }

    /// The answers to requests with an Idempotency-Key, for routes with `idempotency`. See docs/guides/single-flight.md.
    [idempotency] IdempotencyTerms {
        /// How long the answer to a key is known; then the key is a new one.
        lifetime: Duration = Duration::from_secs(24 * 3600),
            between("1s", "30d", "clients that come again do so within hours");
        /// Keys that are known at one time. When there are so many a new one is answered 503: to forget one early could do something twice.
        keys_max: u32 = 100_000,
            between("1", "10000000", "each takes some hundred bytes without its answer");
        /// Memory for all answers together. Of one for which there is no room it is known only that it was given.
        memory_max: u64 = 64 * MIB,
            between("0", "1TiB", "it is taken from the memory of the machine");
        /// The longest body of an answer that is kept.
        answer_max: u64 = 256 * KIB,
            between("0", "64MiB", "what is paid for or booked is told in a few lines");
        /// A page that tells your clients how to use the field; problems link to it.
        help: Option<String> = None,
            otherwise("they link to the IETF's draft"), example("\"https://example.org/api/idempotency\"");
    }

    /// What is written to standard error, and the access log on standard output.
    [log] Log {
        /// The access log.
        access: AccessLog = AccessLog::Off,
            flag("access-log", "FORM");
        /// The form of the log.
        format: LogFormat = LogFormat::Text,
            flag("log-format", "FORM");
        /// How much is logged.
        level: LogLevel = LogLevel::Info,
            flag("log-level", "LEVEL");
    }

    /// The admin HTTP: /metrics, /status, /healthz, /readyz. Never on the addresses that clients use.
    [admin] Admin {
        /// Where the admin HTTP listens. TCP must be a loopback address and needs a token.
        bind: Option<BindAddress> = None,
            flag("admin-bind", "ADDRESS"), otherwise("admin.sock in the runtime directory"),
            example("\"127.0.0.1:9800\"");
        /// File that holds the bearer token of a TCP address.
        token_file: Option<PathBuf> = None,
            example("\"/etc/quintet/admin-token\"");
    }

    tables {
        /// Classes of workers for some paths, in the order of the file; the first that matches a path takes it.
        worker_pool: WorkerPool,
        /// Other apps in the same instance.
        module: Module,
        /// How often clients may ask.
        limit: Limit,
        /// What becomes of which requests, in the order of the file; the first that matches one takes it.
        route: Route,
        /// TLS certificates for more names.
        certificate: Certificate,
        /// Other servers that answer for some routes, in the order of the file.
        upstream: Upstream,
    }
}
