//! Tables of claims and what becomes of them.

use proptest::prelude::*;

use super::*;

fn trusted(entries: &[&str]) -> TrustedProxies {
    TrustedProxies::parse(entries).unwrap()
}

fn headers(lines: &str) -> Headers {
    let mut headers = Headers::default();
    for line in lines.split(" | ").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        headers.push_lower(name.as_bytes(), value.as_bytes());
    }
    headers
}

/// `client:port scheme host server_name:server_port`
fn show(identity: &Identity<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!(
        "{}:{} {:?} {} {}:{}",
        identity.addr.map_or("-".to_owned(), |addr| addr.to_string()),
        identity.port,
        identity.scheme,
        text(&identity.host),
        text(&identity.server_name),
        identity.server_port
    )
}

fn from(peer: Option<&str>, lines: &str) -> String {
    let trusted = trusted(&["10.0.0.0/8", "fd00::/8", "unix"]);
    let peer = peer.map(|peer| peer.parse().unwrap());
    let connection = Connection {
        peer,
        peer_is_trusted: trusted.trusts(peer),
        local: Some(Local::Inet("127.0.0.1:8000".parse().unwrap())),
        tls: false,
        tls_facts: None,
        certificate: None,
    };
    show(&identify(&connection, &headers(lines), &trusted))
}

/// From the trusted proxy 10.0.0.1.
fn check(lines: &str, expected: &str) {
    assert_eq!(from(Some("10.0.0.1:1000"), lines), expected, "{lines}");
}

#[test]
fn direct_clients() {
    assert_eq!(from(Some("1.2.3.4:5"), "Host: a"), "1.2.3.4:5 Http a a:80");
    assert_eq!(from(Some("1.2.3.4:5"), "Host: a:81"), "1.2.3.4:5 Http a:81 a:81");
    assert_eq!(from(Some("1.2.3.4:5"), "Host: [::1]"), "1.2.3.4:5 Http [::1] [::1]:80");
    assert_eq!(from(Some("1.2.3.4:5"), "Host: [::1]:82"), "1.2.3.4:5 Http [::1]:82 [::1]:82");
    assert_eq!(from(Some("[::ffff:1.2.3.4]:5"), "Host: a"), "1.2.3.4:5 Http a a:80");
    assert_eq!(from(Some("1.2.3.4:5"), ""), "1.2.3.4:5 Http  127.0.0.1:8000");
    assert_eq!(
        from(
            Some("1.2.3.4:5"),
            "Host: a | X-Forwarded-For: 9.9.9.9 | X-Forwarded-Proto: https | X-Forwarded-Host: b | Forwarded: for=8.8.8.8"
        ),
        "1.2.3.4:5 Http a a:80"
    );
}

#[test]
fn x_forwarded() {
    check("Host: a", "10.0.0.1:1000 Http a a:80");
    check("Host: a | X-Forwarded-For: 9.9.9.9", "9.9.9.9:0 Http a a:80");
    check("Host: a | X-Forwarded-For: 9.9.9.9:77", "9.9.9.9:77 Http a a:80");
    check("Host: a | X-Forwarded-For: 2001:db8::1", "2001:db8::1:0 Http a a:80");
    check("Host: a | X-Forwarded-For: [2001:db8::1]:7", "2001:db8::1:7 Http a a:80");
    // What the client wrote itself stands further left.
    check("Host: a | X-Forwarded-For: 6.6.6.6, 9.9.9.9", "9.9.9.9:0 Http a a:80");
    check("Host: a | X-Forwarded-For: 6.6.6.6 | X-Forwarded-For: 9.9.9.9", "9.9.9.9:0 Http a a:80");
    // Trusted hops are walked over; all trusted: the client is one of them.
    check("Host: a | X-Forwarded-For: 6.6.6.6, 9.9.9.9, 10.1.1.1,fd00::1", "9.9.9.9:0 Http a a:80");
    check("Host: a | X-Forwarded-For: 10.3.3.3, 10.2.2.2", "10.3.3.3:0 Http a a:80");
    // What cannot be read ends the walk.
    check("Host: a | X-Forwarded-For: 6.6.6.6, unknown, 10.2.2.2", "10.2.2.2:0 Http a a:80");
    check("Host: a | X-Forwarded-For: 6.6.6.6, ", "10.0.0.1:1000 Http a a:80");
    check(
        "Host: a | X-Forwarded-For: 9.9.9.9 | X-Forwarded-Proto: https | X-Forwarded-Host: shop.example",
        "9.9.9.9:0 Https shop.example shop.example:443",
    );
    check("Host: a | X-Forwarded-Proto: HTTPS | X-Forwarded-Port: 8443", "10.0.0.1:1000 Https a a:8443");
    check(
        "Host: a | X-Forwarded-Proto: gopher | X-Forwarded-Host: b/c | X-Forwarded-Port: x",
        "10.0.0.1:1000 Http a a:80",
    );
}

#[test]
fn lists_that_belong_together() {
    // The client claims https; the proxy next to us, which appends, says http.
    check("Host: a | X-Forwarded-For: 9.9.9.9 | X-Forwarded-Proto: https, http", "9.9.9.9:0 Http a a:80");
    // One value a hop: the client's own connection counts.
    check(
        "Host: a | X-Forwarded-For: 6.6.6.6, 9.9.9.9, 10.2.2.2 | X-Forwarded-Proto: http, https, http",
        "9.9.9.9:0 Https a a:443",
    );
}

#[test]
fn forwarded() {
    check("Host: a | Forwarded: for=9.9.9.9;proto=https;host=b", "9.9.9.9:0 Https b b:443");
    check("Host: a | Forwarded: For=\"[2001:db8::1]:77\"; Proto=https", "2001:db8::1:77 Https a a:443");
    check(
        "Host: a | Forwarded: for=6.6.6.6, for=9.9.9.9;host=\"b:81\", for=10.2.2.2",
        "9.9.9.9:0 Http b:81 b:81",
    );
    check("Host: a | Forwarded: for=6.6.6.6 | Forwarded: for=9.9.9.9", "9.9.9.9:0 Http a a:80");
    check("Host: a | Forwarded: for=_hidden", "10.0.0.1:1000 Http a a:80");
    check("Host: a | Forwarded: for=unknown;proto=https", "10.0.0.1:1000 Http a a:80");
    check("Host: a | Forwarded: for=\"9.9.9.\\9\"", "9.9.9.9:0 Http a a:80");
    // A quote that swallows the proxy's own words.
    check("Host: a | Forwarded: for=6.6.6.6;x=\", for=9.9.9.9", "10.0.0.1:1000 Http a a:80");
    check("Host: a | Forwarded: for", "10.0.0.1:1000 Http a a:80");
    // X-Forwarded-… silences it.
    check("Host: a | Forwarded: for=6.6.6.6 | X-Forwarded-Proto: https", "10.0.0.1:1000 Https a a:443");
    check("Host: a | Forwarded: for=6.6.6.6;proto=https | X-Forwarded-For: 9.9.9.9", "9.9.9.9:0 Http a a:80");
}

#[test]
fn unix_sockets() {
    assert_eq!(from(None, "Host: a"), "-:0 Http a a:80");
    assert_eq!(from(None, "Host: a | X-Forwarded-For: 9.9.9.9"), "9.9.9.9:0 Http a a:80");
}

#[test]
fn behind_the_proxy_protocol_headers_are_the_clients_own() {
    let trusted = trusted(&["10.0.0.0/8"]);
    let connection = Connection {
        peer: Some("9.9.9.9:1".parse().unwrap()),
        peer_is_trusted: true,
        local: None,
        tls: true,
        tls_facts: None,
        certificate: None,
    };
    let headers = headers("Host: a | X-Forwarded-For: 6.6.6.6 | X-Forwarded-Proto: http");
    let identity = identify(&connection, &headers, &trusted);
    assert_eq!(show(&identity), "9.9.9.9:1 Https a a:443");
    assert!(!identity.headers_heard);
}

#[test]
fn fields_for_the_app() {
    for name in [
        "host",
        "x-forwardedness",
        "x-request-id",
        "content-type",
        "proxy-authorization",
        "user-agent",
        "expect",
    ] {
        assert!(is_for_the_app(name.as_bytes(), false), "{name}");
    }
    for name in ["forwarded", "x-forwarded-for", "x-forwarded-ssl", "x-real-ip"] {
        assert!(!is_for_the_app(name.as_bytes(), false), "{name}");
        assert!(is_for_the_app(name.as_bytes(), true), "{name}");
    }
    for name in
        ["proxy", "connection", "keep-alive", "te", "upgrade", "transfer-encoding", "proxy-connection"]
    {
        assert!(!is_for_the_app(name.as_bytes(), true), "{name}");
    }
}

#[test]
fn ranges() {
    let set = trusted(&["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1", "0.0.0.0/32"]);
    for addr in ["10.255.0.1", "192.0.2.1", "2001:db8:ffff::1", "::1", "::ffff:10.1.2.3"] {
        assert!(set.contains(addr.parse().unwrap()), "{addr}");
    }
    for addr in ["11.0.0.0", "192.0.2.2", "2001:db9::", "::2", "9.255.255.255", "0.0.0.1"] {
        assert!(!set.contains(addr.parse().unwrap()), "{addr}");
    }
    let all = trusted(&["0.0.0.0/0", "::/0"]);
    assert!(all.contains("1.2.3.4".parse().unwrap()) && all.contains("1::".parse().unwrap()));
    assert!(!all.trusts(None) && trusted(&["unix"]).trusts(None));
}

#[test]
fn ranges_that_cannot_be_read_say_what_to_write() {
    for (entry, hint) in [
        ("*", "to trust every peer, write \"0.0.0.0/0\" and \"::/0\""),
        ("localhost", "write \"127.0.0.1\" and \"::1\""),
        ("10.0.0.1:80", "write the address without its port"),
        ("[::1]", "write the address without brackets"),
        ("10.0.0.0/33", "behind the slash stands a number from 0 to 32"),
        ("::/129", "behind the slash stands a number from 0 to 128"),
        ("10.0.0.0/", "behind the slash stands a number from 0 to 32"),
        ("10.0.0.0/+8", "behind the slash stands a number from 0 to 32"),
        ("10.0.0.1/8", "the range starts at \"10.0.0.0/8\""),
        ("fd12::/8", "the range starts at \"fd00::/8\""),
        ("10.0", "write an address (\"192.0.2.1\") or a range (\"10.0.0.0/8\", \"fd00::/8\")"),
    ] {
        let error = TrustedProxies::parse(&[entry]).unwrap_err();
        assert_eq!((error.entry.as_str(), error.hint.as_str()), (entry, hint));
    }
}

proptest! {
    #[test]
    fn never_panics_and_never_believes_an_untrusted_peer(value in "[ -~]{0,60}", name in "(x-forwarded-(for|proto|host|port)|forwarded)") {
        let lines = format!("Host: a | {name}: {}", value.replace('|', ""));
        from(Some("10.0.0.1:1"), &lines);
        prop_assert_eq!(from(Some("1.2.3.4:5"), &lines), "1.2.3.4:5 Http a a:80");
    }

    #[test]
    fn nothing_left_of_an_untrusted_hop_matters(spoofed in "[ -~]{0,60}") {
        let lines = format!("Host: a | X-Forwarded-For: {}, 9.9.9.9", spoofed.replace('|', ""));
        prop_assert_eq!(from(Some("10.0.0.1:1"), &lines), "9.9.9.9:0 Http a a:80");
    }
}

#[test]
fn addresses_are_written_as_the_standard_library_does() {
    for text in [
        "0.0.0.0",
        "192.0.2.1",
        "255.255.255.255",
        "::",
        "2001:db8::1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ] {
        let address: IpAddr = text.parse().unwrap();
        assert_eq!(&*AddressText::from(Some(address)), text);
    }
    assert_eq!(&*AddressText::from(None), "");
}
