//! Every frame comes back as it went in, and no bytes make decoding panic or promise more than they hold.

use proptest::collection::vec;
use proptest::prelude::*;
use py_link::{
    Body, ClientAuth, ClientCertificate, Exchange, Flags, HEADER_BYTES, Hello, Kind, LinkError, Local,
    PAYLOAD_BYTES_MAX, Request, RequestStart, RequestWriter, ResponseFile, ResponseHead, ResponseHeadWriter,
    Scheme, Tls, Version, decode, encode_header, encode_response_file, encode_response_head, frame, frame_on,
    long,
};

const KINDS: [Kind; 19] = [
    Kind::Request,
    Kind::RequestBody,
    Kind::Cancel,
    Kind::Retire,
    Kind::Welcome,
    Kind::Refuse,
    Kind::Hello,
    Kind::ResponseHead,
    Kind::ResponseBody,
    Kind::ResponseFile,
    Kind::CreditToWorker,
    Kind::MessageToWorker,
    Kind::CloseToWorker,
    Kind::EarlyHints,
    Kind::Trailers,
    Kind::Detached,
    Kind::CreditToGateway,
    Kind::MessageToGateway,
    Kind::CloseToGateway,
];

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

fn fields() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    vec((bytes(40), bytes(300)), 0..20)
}

fn scheme() -> impl Strategy<Value = Scheme> {
    prop_oneof![Just(Scheme::Http), Just(Scheme::Https)]
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::Http10), Just(Version::Http11), Just(Version::Http2), Just(Version::Http3)]
}

fn wishes() -> impl Strategy<Value = (Exchange, Option<Tls>)> {
    let exchange = prop_oneof![Just(Exchange::Http), Just(Exchange::WebSocket)];
    // Version 0 says "no TLS" on the wire.
    let tls = (1..=u16::MAX, any::<u16>()).prop_map(|(version, cipher_suite)| Tls { version, cipher_suite });
    (exchange, proptest::option::of(tls))
}

/// Eight texts of a certificate; with none of them a client that was asked, or was not.
fn client(texts: Option<&(bool, Vec<Vec<u8>>)>) -> ClientAuth<'_> {
    match texts {
        None => ClientAuth::NotAsked,
        Some((true, texts)) => match texts.as_slice() {
            [subject, common_name, issuer, serial, fingerprint, not_before, not_after, chain] => {
                ClientAuth::Shown(ClientCertificate {
                    subject,
                    common_name,
                    issuer,
                    serial,
                    fingerprint,
                    not_before,
                    not_after,
                    chain,
                })
            }
            _ => ClientAuth::Nobody,
        },
        Some((false, _)) => ClientAuth::Nobody,
    }
}

fn local() -> impl Strategy<Value = Option<Local<'static>>> {
    let unix = bytes(108).prop_map(|path| Local::Unix(path.into()));
    let inet = any::<(std::net::IpAddr, u16)>().prop_map(|address| Local::Inet(address.into()));
    proptest::option::of(prop_oneof![unix, inet])
}

/// A body as owned values: none, inline, file, stream.
#[derive(Debug, Clone)]
enum OwnedBody {
    None,
    Inline(Vec<u8>),
    File(u64),
    Stream(Option<u64>),
}

impl OwnedBody {
    fn borrow(&self) -> Body<'_> {
        match self {
            Self::None => Body::None,
            Self::Inline(bytes) => Body::Inline(bytes),
            Self::File(len) => Body::File { len: *len },
            Self::Stream(len) => Body::Stream { len: *len },
        }
    }
}

fn body() -> impl Strategy<Value = OwnedBody> {
    prop_oneof![
        Just(OwnedBody::None),
        bytes(2000).prop_map(OwnedBody::Inline),
        any::<u64>().prop_map(OwnedBody::File),
        // The largest number says "unknown" on the wire.
        proptest::option::of(0..u64::MAX).prop_map(OwnedBody::Stream),
    ]
}

proptest! {
    #[test]
    fn a_frame_comes_back(at in 0..KINDS.len(), flags in any::<u8>(), stream in any::<u16>(), payload in bytes(3000), behind in bytes(100)) {
        let mut wire = frame_on(stream, KINDS[at], Flags(flags), &payload);
        let whole = wire.len();
        wire.extend_from_slice(&behind);
        let found = decode(&wire).unwrap().unwrap();
        prop_assert_eq!(found.header.kind, KINDS[at]);
        prop_assert_eq!(found.header.flags, Flags(flags));
        prop_assert_eq!(found.header.stream, stream);
        prop_assert_eq!(found.payload, &payload[..]);
        prop_assert_eq!(found.wire_bytes(), whole);
    }

    #[test]
    fn a_piece_of_a_frame_wants_more(payload in bytes(200), cut in any::<prop::sample::Index>()) {
        let wire = frame(Kind::ResponseBody, Flags::NONE, &payload);
        prop_assert_eq!(decode(&wire[..cut.index(wire.len())]), Ok(None));
    }

    #[test]
    fn a_request_comes_back(
        texts in (bytes(60), bytes(20), bytes(500), bytes(30), bytes(60), bytes(50)),
        ports in any::<(u16, u16)>(),
        scheme in scheme(),
        version in version(),
        (exchange, tls) in wishes(),
        local in local(),
        certificate in proptest::option::of((any::<bool>(), vec(bytes(300), 8))),
        headers in fields(),
        body in body(),
        before in bytes(50),
    ) {
        let (id, method, target, mount, server_name, remote_addr) = &texts;
        // Writers append: what is in the buffer already stays.
        let mut wire = before.clone();
        let mut writer = RequestWriter::start(&mut wire, &RequestStart {
            id, method, target, mount, scheme, version, server_name, server_port: ports.0, local: local.as_ref(), remote_addr,
            remote_port: ports.1, exchange, tls, client: client(certificate.as_ref()),
        });
        for (name, value) in &headers {
            writer.header(name, value);
        }
        writer.body(body.borrow());
        prop_assert_eq!(&wire[..before.len()], &before[..]);
        let found = decode(&wire[before.len()..]).unwrap().unwrap();
        prop_assert_eq!(found.header.kind, Kind::Request);
        prop_assert_eq!(found.wire_bytes(), wire.len() - before.len());
        let request = Request::decode(found.payload).unwrap();
        prop_assert_eq!(
            (request.id, request.method, request.target, request.mount, request.server_name, request.remote_addr),
            (&id[..], &method[..], &target[..], &mount[..], &server_name[..], &remote_addr[..])
        );
        prop_assert_eq!((request.server_port, request.remote_port), ports);
        prop_assert_eq!((request.scheme, request.version), (scheme, version));
        prop_assert_eq!((request.exchange, request.tls, &request.local), (exchange, tls, &local));
        prop_assert_eq!(request.client, client(certificate.as_ref()));
        let same = request.headers().eq(headers.iter().map(|(name, value)| (&name[..], &value[..])));
        prop_assert!(same);
        prop_assert_eq!(request.body, body.borrow());
    }

    #[test]
    fn a_response_head_comes_back(
        status in 100..=999_u16,
        reason in bytes(60),
        headers in fields(),
        body in bytes(500),
        behind in 0..500_usize,
    ) {
        let mut wire = Vec::new();
        let mut writer = ResponseHeadWriter::start(&mut wire, status, &reason);
        for (name, value) in &headers {
            writer.header(&mut wire, name, value);
        }
        prop_assert_eq!(usize::from(writer.count()), headers.len());
        wire.extend_from_slice(&body);
        writer.finish(&mut wire, behind, Flags::END);
        // What the caller sends behind the buffer belongs to the frame.
        wire.extend(std::iter::repeat_n(b'x', behind));
        let found = decode(&wire).unwrap().unwrap();
        prop_assert_eq!((found.header.kind, found.header.flags), (Kind::ResponseHead, Flags::END));
        prop_assert_eq!(found.wire_bytes(), wire.len());
        let head = ResponseHead::decode(found.payload).unwrap();
        prop_assert_eq!((head.status, head.reason), (status, &reason[..]));
        prop_assert_eq!(head.header_count(), headers.len());
        let same = head.headers().eq(headers.iter().map(|(name, value)| (&name[..], &value[..])));
        prop_assert!(same);
        prop_assert_eq!(head.body.len(), body.len() + behind);
        prop_assert!(head.body.starts_with(&body));

        let mut payload = Vec::new();
        let borrowed = headers.iter().map(|(name, value)| (&name[..], &value[..]));
        encode_response_head(&mut payload, status, &reason, borrowed);
        prop_assert_eq!(&payload[..], &wire[HEADER_BYTES..wire.len() - behind - body.len()]);
    }

    #[test]
    fn a_response_file_comes_back(offset in any::<u64>(), len in any::<u64>()) {
        let mut payload = Vec::new();
        encode_response_file(&mut payload, ResponseFile { offset, len });
        let found = ResponseFile::decode(&payload);
        match offset.checked_add(len) {
            Some(_) => prop_assert_eq!(found, Ok(ResponseFile { offset, len })),
            // A range that ends beyond what a number holds has no bytes to send.
            None => prop_assert!(found.is_err()),
        }
    }

    #[test]
    fn any_bytes_are_taken_calmly(wire in bytes(400)) {
        if let Ok(Some(found)) = decode(&wire) {
            prop_assert!(found.wire_bytes() <= wire.len());
        }
        if let Ok(request) = Request::decode(&wire) {
            let held: usize = request.headers().map(|(name, value)| name.len() + value.len()).sum();
            prop_assert!(held <= wire.len());
        }
        if let Ok(head) = ResponseHead::decode(&wire) {
            prop_assert!((100..=999).contains(&head.status));
            prop_assert_eq!(head.headers().count(), head.header_count());
            prop_assert!(head.body.len() <= wire.len());
        }
        let _calm = ResponseFile::decode(&wire);
        let _calm = (long::decode_credit(&wire).is_ok(), long::Close::decode(&wire).is_ok());
        if let Ok(fields) = long::decode_fields(&wire) {
            let held: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
            prop_assert!(held <= wire.len());
        }
        if let Ok((_, head)) = long::split_detached(&wire) {
            prop_assert!(head.len() + 2 == wire.len());
        }
        let _calm = serde_json::from_slice::<Hello>(&wire);
    }

    #[test]
    fn a_spoiled_request_is_refused_or_still_in_bounds(headers in fields(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut wire = Vec::new();
        let mut writer = RequestWriter::start(&mut wire, &RequestStart {
            id: b"id", method: b"GET", target: b"/", mount: b"", scheme: Scheme::Http, version: Version::Http11,
            server_name: b"a", server_port: 80, local: None, remote_addr: b"::1", remote_port: 1,
            exchange: Exchange::Http, tls: None, client: ClientAuth::NotAsked,
        });
        for (name, value) in &headers {
            writer.header(name, value);
        }
        writer.body(Body::Inline(b"body"));
        let payload = &mut wire[HEADER_BYTES..];
        let at = at.index(payload.len());
        payload[at] = byte;
        if let Ok(request) = Request::decode(payload) {
            let held: usize = request.headers().map(|(name, value)| name.len() + value.len()).sum();
            prop_assert!(held <= payload.len());
        }
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_anything_is_held() {
    let header = encode_header(Kind::RequestBody, Flags::NONE, PAYLOAD_BYTES_MAX + 1);
    assert_eq!(decode(&header), Err(LinkError::TooLong(PAYLOAD_BYTES_MAX + 1)));
    let header = encode_header(Kind::RequestBody, Flags::NONE, PAYLOAD_BYTES_MAX);
    assert_eq!(decode(&header), Ok(None));
}

#[test]
fn an_unknown_kind_is_refused() {
    for kind in (0..=u8::MAX).filter(|kind| KINDS.iter().all(|known| *known as u8 != *kind)) {
        assert_eq!(decode(&[0, 0, 0, 0, kind, 0, 0, 0]), Err(LinkError::UnknownKind(kind)));
        assert_eq!(Kind::from_u8(kind), None);
    }
}

#[test]
fn a_status_that_is_none_is_refused() {
    for status in [0_u16, 99, 1000, u16::MAX] {
        let mut payload = Vec::new();
        encode_response_head(&mut payload, status, b"", std::iter::empty());
        assert!(ResponseHead::decode(&payload).is_err());
    }
}
