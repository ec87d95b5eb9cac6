//! A short, seeded fuzz run of everything that reads the network, with every `cargo test`.
//!
//! The bodies are those of the cargo-fuzz targets (fuzz/src/lib.rs), which need a nightly toolchain; here a simple
//! mutator changes well-formed inputs at random. It is not guided by coverage, so it finds shallow faults only; what
//! it finds is the same on every machine. `QUINTET_FUZZ_ROUNDS=1000000 cargo test --test fuzz_short` runs longer,
//! `QUINTET_FUZZ_SEED` starts elsewhere.

// Panics are what is looked for; public is what the targets need.
#[allow(clippy::expect_used, clippy::panic, unreachable_pub)]
#[path = "../../../fuzz/src/lib.rs"]
mod bodies;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Inputs a target: about a second in all, without optimization.
const ROUNDS: u64 = 20_000;

/// Any number but zero.
const SEED: u64 = 0x51_71_7e_7b;

/// xorshift64*: a generator of a few lines suffices here, and is the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from.get(self.below(from.len())).copied().unwrap_or_default()
    }
}

/// Makes a few changes: bytes, ranges, words of the language, pieces of another input.
fn mutate(random: &mut Random, seeds: &[&[u8]], words: &[&[u8]]) -> Vec<u8> {
    let mut data = random.pick(seeds).to_vec();
    for _ in 0..random.below(5) {
        let at = random.below(data.len() + 1);
        let end = (at + random.below(8)).min(data.len());
        match random.below(7) {
            0 if at < data.len() => data[at] = random.below(256) as u8,
            1 if at < data.len() => data[at] ^= 1 << random.below(8),
            2 => drop(data.drain(at..end)),
            3 => drop(data.splice(at..at, random.pick(words).iter().copied())),
            4 => drop(data.splice(at..end, random.pick(words).iter().copied())),
            5 => {
                let other = random.pick(seeds);
                data.truncate(at);
                data.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            _ => {
                let again = data[at..end].to_vec();
                drop(data.splice(at..at, again));
            }
        }
    }
    data
}

/// Runs a body over mutated seeds and shows the input that breaks it.
fn fuzz(body: fn(&[u8]), seeds: &[&[u8]], words: &[&[u8]]) {
    let from_environment = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let rounds = from_environment("QUINTET_FUZZ_ROUNDS").unwrap_or(ROUNDS);
    let mut random = Random(from_environment("QUINTET_FUZZ_SEED").unwrap_or(SEED).max(1));
    for _ in 0..rounds {
        let data = mutate(&mut random, seeds, words);
        let outcome = catch_unwind(AssertUnwindSafe(|| body(&data)));
        assert!(outcome.is_ok(), "this input breaks it: b\"{}\"", data.escape_ascii());
    }
}

#[test]
fn heads() {
    fuzz(
        bodies::head,
        &[
            b"\x10GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x20POST /a?b HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nContent-Type: a/b\r\n\r\nhello",
            b"\x30POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n",
            b"\x40OPTIONS * HTTP/1.0\r\nConnection: keep-alive, x\r\nX_Y: z\r\n\r\n",
            b"\x05GET http://[::1]:80/x HTTP/1.1\r\nhost: b\r\nCookie: a=b; c=d\r\n\r\n",
        ],
        &[
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b": ",
            b" ",
            b"\t",
            b"\xff",
            b"HTTP/1.1",
            b"HTTP/1.0",
            b"HTTP/2.0",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Host: b\r\n",
            b"close",
            b"_",
            b"http://",
            b"99999999999999999999",
            b",chunked",
        ],
    );
}

#[test]
fn chunked_bodies() {
    let trailers = b"\x08a;x=\"y z\"\r\n0123456789\r\n000\r\nVary: *\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n";
    fuzz(
        bodies::chunked,
        &[
            b"\x035\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
            trailers,
            b"\x001\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n",
        ],
        &[
            b"\r\n",
            b"\n",
            b"\r",
            b";",
            b"0",
            b"ffffffffffffffff",
            b"8000000000000000",
            b": ",
            b" ",
            b"\0",
            b"\"",
            b"Host: a\r\n",
            b"0\r\n\r\n",
        ],
    );
}

#[test]
fn answers_of_upstreams() {
    fuzz(
        bodies::answer,
        &[
            b"\x00\x10HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"\x01\x20HTTP/1.0 404 Not Found\r\nContent-Length: 5\r\nConnection: keep-alive, x\r\nX: y\r\n\r\n",
            b"\x00\x30HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
            b"\x02\x18HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\x01a",
            b"\x00\x08HTTP/1.1 204\r\nKeep-Alive: timeout=5\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"\x00\x40HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ],
        &[
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b": ",
            b" ",
            b"\t",
            b"\xff",
            b"HTTP/1.1 ",
            b"HTTP/1.0 ",
            b"304",
            b"100",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b"Connection: content-length\r\n",
            b"Upgrade: websocket\r\n",
            b"99999999999999999999",
            b",chunked",
            b"0\r\n\r\n",
        ],
    );
}

#[test]
fn proxy_headers() {
    let extensions = b"\x20\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x19\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xbb\
        \x20\0\x05\x01\0\0\0\0\x01\0\x02h2";
    fuzz(
        bodies::proxy,
        &[
            b"\x08PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET /",
            b"\x28PROXY TCP6 2001:db8::1 ::1 1 65535\r\n",
            b"\x10PROXY UNKNOWN ffff\r\n",
            b"\x0e\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xbb",
            extensions,
            b"\x20\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        ],
        &[
            b"\r\n",
            b"\n",
            b" ",
            b"TCP4",
            b"TCP6",
            b"0",
            b"\0",
            b"\x20",
            b"\xff\xff",
            b"\r\n\r\n\0\r\nQUIT\n\x21",
        ],
    );
}

#[test]
fn forwarded_headers() {
    fuzz(
        bodies::client,
        &[
            b"\x006.6.6.6, 9.9.9.9:80, 10.1.1.1\n\x01http, https, http\n\x02a, b:81\n\x0380\n\x05c",
            b"\x04for=9.9.9.9;proto=https;host=\"b:81\", for=\"[2001:db8::1]:7\"\n\x05c:80",
            b"\x00[::1]:8\n\x00unknown,::ffff:10.0.0.1\n\x05[::1]:80",
        ],
        &[
            b",",
            b";",
            b"=",
            b"\"",
            b"\\",
            b"10.0.0.1",
            b"for=",
            b"[",
            b"]",
            b":",
            b"\n",
            b"\xff",
            b"65536",
            b"https",
        ],
    );
}

#[test]
fn link_frames() {
    let mut request = Vec::new();
    let start = py_link::RequestStart {
        id: b"0123",
        method: b"POST",
        target: b"/a?b",
        mount: b"",
        scheme: py_link::Scheme::Https,
        version: py_link::Version::Http11,
        server_name: b"a",
        server_port: 80,
        local: Some(&py_link::Local::Unix(b"/run/a"[..].into())),
        remote_addr: b"::1",
        remote_port: 7,
        exchange: py_link::Exchange::Http,
        tls: None,
        client: py_link::ClientAuth::Shown(py_link::ClientCertificate {
            subject: b"CN=a",
            common_name: b"a",
            issuer: b"CN=b",
            serial: b"1",
            fingerprint: b"ff",
            not_before: b"",
            not_after: b"",
            chain: b"-----BEGIN",
        }),
    };
    let mut writer = py_link::RequestWriter::start(&mut request, &start);
    writer.header(b"host", b"a");
    writer.header(b"cookie", b"b=c");
    writer.body(py_link::Body::Inline(b"hello"));
    let mut response = Vec::new();
    let fields = [(&b"A"[..], &b"b"[..]), (b"C", b"d")];
    py_link::encode_response_head(&mut response, 200, b"OK", fields.into_iter());
    let response_frame = py_link::frame(py_link::Kind::ResponseHead, py_link::Flags::END, &response);
    let payload = request.get(py_link::HEADER_BYTES..).unwrap_or_default().to_vec();
    fuzz(
        bodies::frames,
        &[&request, &payload, &response, &response_frame],
        &[b"\0\0", b"\xff\xff", b"\xff\xff\xff\xff", b"\x01\0", b"\x0b", b"\x03", b"\0\0\x10\0", b"\x40\x01"],
    );
}

#[test]
fn websocket_frames() {
    let masked = |first: u8, payload: &[u8]| {
        let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        frame
    };
    let fragments = [
        vec![9],
        masked(0x01, b"frag"),
        masked(0x89, b"ping"),
        masked(0x00, b"men\xc3"),
        masked(0x80, b"\xb3ts"),
        masked(0x88, b"\x03\xe8bye"),
    ]
    .concat();
    let packed = [vec![3], masked(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00"), masked(0x82, b"\0\xff")].concat();
    let packed_fragments =
        [vec![20], masked(0x41, b"\xf2\x48\xcd"), masked(0x8a, b""), masked(0x80, b"\xc9\xc9\x07\x00")]
            .concat();
    let long = [&[30, 0x82, 0xfe, 0, 200, 1, 2, 3, 4][..], &[7; 200]].concat();
    fuzz(
        bodies::websocket,
        &[
            &fragments,
            &packed,
            &packed_fragments,
            &long,
            b"permessage-deflate; server_max_window_bits=\"10\"; client_max_window_bits",
            b"foo; bar=1, permessage-deflate; client_no_context_takeover",
        ],
        &[
            b"\x81\x80\0\0\0\0",
            b"\x80\x80\0\0\0\0",
            b"\xc1\x85\0\0\0\0\x00\x00\x00\xff\xff",
            b"\x88\x82\0\0\0\0\x03\xe8",
            b"\xfe\0\x7e",
            b"\xff\0\0\0\0\0\x01\0\0",
            b"\xff\x80",
            b"\xf2\x48\xcd\xc9\xc9\x07\x00",
            b"\xed\xa0\x80",
            b"; server_max_window_bits=8",
            b"; server_no_context_takeover",
            b", permessage-deflate",
            b"\"",
            b"=",
        ],
    );
}
