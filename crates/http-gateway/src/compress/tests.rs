//! What is compressed, what its fields say then, and that it is the same when it is unpacked.

use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::timeout;

use super::*;
use crate::encoding::Coding;
use crate::message::{AnsweredBy, FileBody, Headers, Method, Taken, Version};
use crate::spool::{Aborted, BodyStream, Piece, SpoolLimits, spool};
use crate::testing;

const SOON: Duration = Duration::from_secs(20);

fn unpack(coding: &str, packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(packed).read_to_end(&mut plain),
        "zstd" => zstd::stream::read::Decoder::new(packed).unwrap().read_to_end(&mut plain),
        "br" => brotli::Decompressor::new(packed, 4096).read_to_end(&mut plain),
        other => panic!("what is {other}?"),
    }
    .unwrap();
    plain
}

/// All that an unfinished stream has told so far.
fn unpack_so_far(coding: &str, packed: &[u8]) -> Vec<u8> {
    let mut reader: Box<dyn std::io::Read> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(packed)),
        "zstd" => Box::new(zstd::stream::read::Decoder::new(packed).unwrap()),
        _ => Box::new(brotli::Decompressor::new(packed, 4096)),
    };
    let (mut plain, mut byte) = (Vec::new(), [0]);
    while matches!(reader.read(&mut byte), Ok(1)) {
        plain.push(byte[0]);
    }
    plain
}

fn fields(pairs: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in pairs {
        headers.push(name.as_bytes(), value.as_bytes());
    }
    headers
}

fn asking(pairs: &[(&str, &str)]) -> RequestHead {
    RequestHead {
        method: Method::Get,
        target: b"/page".to_vec(),
        version: Version::Http11,
        headers: fields(pairs),
    }
}

fn answer(status: u16, pairs: &[(&str, &str)], body: Body) -> Response {
    let mut response = testing::response(status, body);
    response.headers = fields(pairs);
    response.trail.by = AnsweredBy::Worker(1);
    response
}

fn page() -> Bytes {
    "<p>The shop has this and that.</p>\n".repeat(100).into()
}

fn compression(change: impl FnOnce(&mut ctl_config::settings::Compression)) -> Compression {
    let mut config = Config::default();
    config.compression.enabled = true;
    change(&mut config.compression);
    Compression::new(&config).unwrap()
}

fn shown(headers: &Headers) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    headers
        .iter()
        .map(|(name, value)| format!("{}: {}", text(name), text(value)))
        .collect::<Vec<_>>()
        .join(" | ")
}

impl Compression {
    async fn applied(&self, request: &RequestHead, mut response: Response) -> Response {
        self.apply(request, &mut response).await;
        response
    }
}

#[test]
fn it_is_off_unless_it_is_turned_on() {
    assert!(Compression::new(&Config::default()).is_none());
}

#[tokio::test]
async fn a_route_says_otherwise() {
    async fn coding(everywhere: bool, route: Option<bool>, exclude: &[&str]) -> (Option<String>, bool) {
        let mut config = Config::default();
        config.compression.enabled = everywhere;
        config.compression.exclude = exclude.iter().map(|&path| path.to_owned()).collect();
        config.route = vec![ctl_config::Route { compress: Some(true), ..Default::default() }];
        let mut given = answer(200, &[("Content-Type", "text/html")], Body::Bytes(page()));
        given.trail.route = Some(Arc::new(Taken { compress: route, ..Taken::default() }));
        let compression = Compression::new(&config).unwrap();
        let sent = compression.applied(&asking(&[("accept-encoding", "gzip")]), given).await;
        let coding =
            sent.headers.get("content-encoding").map(|coding| String::from_utf8_lossy(coding).into());
        (coding, sent.headers.contains("vary"))
    }
    let gzip = (Some("gzip".to_owned()), true);
    // No cache is told to keep variants apart where there is one only.
    let plain = (None, false);
    assert_eq!(coding(true, None, &[]).await, gzip);
    assert_eq!(coding(true, Some(false), &[]).await, plain);
    assert_eq!(coding(false, None, &[]).await, plain);
    assert_eq!(coding(false, Some(true), &[]).await, gzip);
    assert_eq!(coding(true, Some(true), &["/page"]).await, plain, "what is excluded stays so");
}

#[tokio::test]
async fn a_page_is_compressed_as_the_client_likes_it() {
    let html = ("Content-Type", "text/html; charset=utf-8");
    for (accept, coding) in [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "gzip"),
        ("br", "br"),
        ("gzip;q=0.5, br", "br"),
        ("zstd;q=0, *", "gzip"),
    ] {
        let given = answer(
            200,
            &[html, ("Content-Length", "3500"), ("ETag", "\"a\""), ("Accept-Ranges", "bytes")],
            Body::Bytes(page()),
        );
        let sent = compression(|_| ()).applied(&asking(&[("accept-encoding", accept)]), given).await;
        let expected = format!(
            "Content-Type: text/html; charset=utf-8 | Content-Encoding: {coding} | ETag: W/\"a\" | Vary: Accept-Encoding"
        );
        assert_eq!(shown(&sent.headers), expected, "{accept}");
        let Body::Bytes(packed) = sent.body else { panic!("{:?}", sent.body) };
        assert!(packed.len() < 300);
        assert_eq!(unpack(coding, &packed), page());
    }
}

#[tokio::test]
async fn who_does_not_want_it_gets_the_page_as_it_is_and_caches_are_told() {
    for accept in [&[][..], &[("accept-encoding", "identity")], &[("accept-encoding", "gzip;q=0")]] {
        let given = answer(
            200,
            &[("Content-Type", "text/html"), ("ETag", "\"a\""), ("Vary", "Cookie")],
            Body::Bytes(page()),
        );
        let sent = compression(|_| ()).applied(&asking(accept), given).await;
        assert_eq!(
            shown(&sent.headers),
            "Content-Type: text/html | ETag: \"a\" | Vary: Cookie, Accept-Encoding"
        );
        assert!(matches!(sent.body, Body::Bytes(bytes) if bytes == page()));
    }
}

/// Whatever it is, nothing is changed.
#[track_caller]
fn untouched(why: &str, change: impl FnOnce(&mut RequestHead, &mut Response)) {
    let mut request = asking(&[("accept-encoding", "gzip, br, zstd")]);
    let mut given = answer(200, &[("Content-Type", "text/html")], Body::Bytes(page()));
    change(&mut request, &mut given);
    let before = (shown(&given.headers), format!("{:?}", given.body));
    let compression = compression(|config| config.exclude = vec!["/account/*".to_owned()]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sent = runtime.block_on(compression.applied(&request, given));
    assert_eq!((shown(&sent.headers), format!("{:?}", sent.body)), before, "{why}");
}

#[test]
fn what_is_left_alone() {
    let says = |name: &'static str, value: &'static str| {
        move |_: &mut RequestHead, response: &mut Response| {
            response.headers.push(name.as_bytes(), value.as_bytes());
        }
    };
    untouched("compressed already", says("content-encoding", "gzip"));
    untouched("the app does not want it", says("Content-Encoding", "identity"));
    untouched("not to be changed", says("Cache-Control", "public, No-Transform"));
    untouched("a digest", says("Content-MD5", "Q2hlY2s="));
    untouched("a digest", says("Content-Digest", "sha-256=:Q2hlY2s=:"));
    untouched("a digest", says("Repr-Digest", "sha-256=:Q2hlY2s=:"));
    untouched("a digest", says("Digest", "sha-256=Q2hlY2s="));
    untouched("a range", says("Content-Range", "bytes 0-1/2"));
    untouched("another length than announced", says("Content-Length", "4"));
    untouched("no length that can be read", says("Content-Length", "+3500"));
    untouched("another type", |_, response| response.headers.set("content-type", b"image/png"));
    untouched("no type", |_, response| response.headers.remove(|_| true));
    untouched("events", |_, response| response.headers.set("content-type", b"text/event-stream"));
    untouched("short", |_, response| response.body = Body::Bytes(page().slice(..1023)));
    untouched("empty", |_, response| response.body = Body::Empty);
    for status in [204, 205, 206, 304] {
        untouched("its status", move |_, response| response.status = status);
    }
    untouched("a file", |_, response| response.trail.by = AnsweredBy::File);
    untouched("ours", |_, response| response.trail.by = AnsweredBy::Gateway);
    untouched("excluded", |request, _| request.target = b"/account/card?x=1".to_vec());
    untouched("excluded, otherwise written", |request, _| request.target = b"/%61ccount/card".to_vec());
}

#[tokio::test]
async fn a_signed_in_visitor_whom_another_site_makes_ask_is_answered_without() {
    let site = |site| ("sec-fetch-site", site);
    let accept = ("accept-encoding", "gzip");
    for (request, packs) in [
        (&[accept, site("cross-site"), ("cookie", "sessionid=x")][..], false),
        (&[accept, site("cross-site"), ("authorization", "Basic eA==")], false),
        (&[accept, site("cross-site")], true),
        (&[accept, site("same-origin"), ("cookie", "sessionid=x")], true),
        (&[accept, site("none"), ("cookie", "sessionid=x")], true),
        (&[accept, ("cookie", "sessionid=x")], true),
    ] {
        let given = answer(200, &[("Content-Type", "text/html")], Body::Bytes(page()));
        let sent = compression(|_| ()).applied(&asking(request), given).await;
        assert_eq!(sent.headers.contains("content-encoding"), packs, "{request:?}");
        assert_eq!(sent.headers.get("vary"), Some(&b"Accept-Encoding"[..]));
    }
}

#[tokio::test]
async fn head_has_the_fields_of_get_but_its_length() {
    let mut request = asking(&[("accept-encoding", "br")]);
    request.method = Method::Head;
    let html = ("Content-Type", "text/html");
    let given = answer(200, &[html, ("Content-Length", "3500"), ("ETag", "\"a\"")], Body::Empty);
    let sent = compression(|_| ()).applied(&request, given).await;
    assert_eq!(
        shown(&sent.headers),
        "Content-Type: text/html | Content-Encoding: br | ETag: W/\"a\" | Vary: Accept-Encoding"
    );
    let short = answer(200, &[html, ("Content-Length", "35")], Body::Empty);
    let sent = compression(|_| ()).applied(&request, short).await;
    assert_eq!(shown(&sent.headers), "Content-Type: text/html | Content-Length: 35");
}

#[tokio::test]
async fn a_304_has_the_tag_that_its_client_holds() {
    for (held, said) in [
        ("W/\"a\"", "ETag: W/\"a\" | Vary: Cookie, Accept-Encoding"),
        ("\"b\", W/\"a\"", "ETag: W/\"a\" | Vary: Cookie, Accept-Encoding"),
        ("\"a\"", "Vary: Cookie | ETag: \"a\""),
        ("W/\"a\", \"a\"", "Vary: Cookie | ETag: \"a\""),
        ("*", "Vary: Cookie | ETag: \"a\""),
    ] {
        let given = answer(304, &[("Vary", "Cookie"), ("ETag", "\"a\"")], Body::Empty);
        let sent = compression(|_| ()).applied(&asking(&[("if-none-match", held)]), given).await;
        assert_eq!(shown(&sent.headers), said, "{held}");
    }
}

#[tokio::test]
async fn vary_is_merged() {
    for (vary, merged) in [
        (&[][..], "Vary: Accept-Encoding"),
        (&["Accept-Language, accept-encoding"], "Vary: Accept-Language, accept-encoding"),
        (&["*"], "Vary: *"),
        (&["Cookie", "Origin"], "Vary: Cookie, Origin, Accept-Encoding"),
        (&[""], "Vary: Accept-Encoding"),
    ] {
        let mut headers = Headers::default();
        for value in vary {
            headers.push(b"vary", value.as_bytes());
        }
        head::varies(&mut headers);
        assert_eq!(shown(&headers).to_lowercase(), merged.to_lowercase());
    }
}

fn limits(memory_bytes: u64) -> SpoolLimits {
    SpoolLimits { memory_bytes, disk_bytes: 1 << 30, dir: std::env::temp_dir() }
}

/// Everything to the end.
async fn read_all(stream: &mut BodyStream) -> Result<Vec<u8>, Aborted> {
    let mut all = Vec::new();
    while let Some(piece) = timeout(SOON, stream.next()).await.expect("it goes on") {
        let Piece::Bytes(bytes) = piece? else { panic!("a piece that was not compressed") };
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

#[tokio::test]
async fn a_large_body_is_compressed_on_another_thread() {
    let page = page().repeat(300);
    for coding in ["zstd", "gzip", "br"] {
        let given = answer(200, &[("Content-Type", "text/html")], Body::Bytes(page.clone().into()));
        let sent = compression(|_| ()).applied(&asking(&[("accept-encoding", coding)]), given).await;
        let Body::Bytes(packed) = sent.body else { panic!("{:?}", sent.body) };
        assert!(packed.len() < page.len() / 50);
        assert_eq!(unpack(coding, &packed), page);
    }
}

#[tokio::test]
async fn each_piece_of_a_stream_is_there_before_the_next_is_made() {
    for coding in Coding::BY_COST {
        let (mut writer, mut stream) = spool(limits(1 << 20));
        assert!(stream.pack(coding, None));
        let (mut packed, mut plain) = (Vec::new(), Vec::new());
        for round in 0..5 {
            let piece = format!("<li>the row number {round} of a page that is long</li>\n");
            plain.extend_from_slice(piece.as_bytes());
            assert!(writer.push(piece.into(), || ()).await.unwrap());
            match timeout(SOON, stream.next()).await.expect("nothing waits") {
                Some(Ok(Piece::Bytes(bytes))) => packed.extend_from_slice(&bytes),
                other => panic!("{other:?}"),
            }
            assert!(stream.try_next().is_none(), "the app has said no more");
            assert_eq!(unpack_so_far(coding.token(), &packed), plain, "{coding:?}");
        }
        writer.trailers(testing::extra());
        writer.end(Ok(()));
        packed.extend(read_all(&mut stream).await.unwrap());
        assert_eq!(unpack(coding.token(), &packed), plain);
        assert!(stream.take_trailers().is_some());
    }
}

#[tokio::test]
async fn others_have_their_turn_while_much_is_compressed() {
    let (mut writer, mut stream) = spool(limits(8 << 20));
    assert!(stream.pack(Coding::Gzip, None));
    for _ in 0..4 {
        assert!(writer.push(vec![b'x'; 1 << 20].into(), || ()).await.unwrap());
    }
    writer.end(Ok(()));
    let reading = tokio::spawn(async move { read_all(&mut stream).await });
    let mut turns = 0;
    while !reading.is_finished() {
        turns += 1;
        tokio::task::yield_now().await;
    }
    assert_eq!(unpack("gzip", &reading.await.unwrap().unwrap()).len(), 4 << 20);
    // 4 MiB are 128 stints of 32 KiB.
    assert!(turns >= 128, "{turns} turns");
}

#[tokio::test]
async fn an_app_is_held_to_the_length_it_announced() {
    let text = page();
    let announced = text.len() as u64;
    for (said, sent) in [(announced, Ok(())), (announced + 1, Err(Aborted)), (announced - 1, Ok(()))] {
        let (mut writer, mut stream) = spool(limits(1 << 20));
        assert!(stream.pack(Coding::Zstd, Some(said)));
        assert!(writer.push(text.clone(), || ()).await.unwrap());
        writer.end(Ok(()));
        let packed = read_all(&mut stream).await;
        assert_eq!(packed.as_ref().map(|_| &()), sent.as_ref());
        if let Ok(packed) = packed {
            assert_eq!(unpack("zstd", &packed), text[..(said as usize).min(text.len())]);
        }
    }
}

#[tokio::test]
async fn what_breaks_off_is_never_ended_in_order() {
    let (mut writer, mut stream) = spool(limits(1 << 20));
    assert!(stream.pack(Coding::Gzip, None));
    assert!(writer.push(page(), || ()).await.unwrap());
    drop(writer);
    assert_eq!(read_all(&mut stream).await, Err(Aborted));

    let file = tempfile::tempfile().unwrap();
    file.write_all_at(b"short", 0).unwrap();
    let (mut writer, mut stream) = spool(limits(1 << 20));
    assert!(stream.pack(Coding::Gzip, None));
    assert!(writer.push_file(FileBody { file: Arc::new(file), offset: 0, len: 6 }));
    writer.end(Ok(()));
    assert_eq!(read_all(&mut stream).await, Err(Aborted));
}

#[tokio::test]
async fn over_http_1_0_a_stream_keeps_its_length() {
    let mut request = asking(&[("accept-encoding", "gzip")]);
    request.version = Version::Http10;
    let (_writer, stream) = spool(limits(1 << 20));
    let given =
        answer(200, &[("Content-Type", "text/csv"), ("Content-Length", "99999")], Body::Stream(stream));
    let sent = compression(|_| ()).applied(&request, given).await;
    assert_eq!(
        shown(&sent.headers),
        "Content-Type: text/csv | Content-Length: 99999 | Vary: Accept-Encoding"
    );
    let given = answer(200, &[("Content-Type", "text/csv")], Body::Bytes(page()));
    assert!(compression(|_| ()).applied(&request, given).await.headers.contains("content-encoding"));
}

#[test]
fn memory_of_encoders_has_a_bound() {
    assert!(encoder::Reserved::take(0).is_some());
    assert!(encoder::Reserved::take(encoder::MEMORY_BYTES_ALL + 1).is_none());
}

/// How a piece comes.
#[derive(Debug, Clone)]
enum Comes {
    Bytes(Vec<u8>),
    File(Vec<u8>),
    /// Whatever is there is read first.
    Later,
}

fn comes() -> impl Strategy<Value = Comes> {
    let bytes = || {
        // Some compress, some do not, some are longer than a stint.
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..600),
            2 => (any::<u8>(), 0..200_000_usize).prop_map(|(byte, len)| vec![byte; len]),
        ]
    };
    prop_oneof![4 => bytes().prop_map(Comes::Bytes), 1 => bytes().prop_map(Comes::File), 2 => Just(Comes::Later)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_unpacked_is_what_was_sent(pieces in prop::collection::vec(comes(), 0..12), memory in 0..100_000_u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for coding in Coding::BY_COST {
                let (mut writer, mut stream) = spool(limits(memory));
                prop_assert!(stream.pack(coding, None));
                let (mut plain, mut packed) = (Vec::new(), Vec::new());
                for piece in &pieces {
                    match piece {
                        Comes::Bytes(bytes) => {
                            plain.extend_from_slice(bytes);
                            prop_assert!(writer.push(bytes.clone().into(), || ()).await.unwrap());
                        }
                        Comes::File(bytes) => {
                            plain.extend_from_slice(bytes);
                            let file = tempfile::tempfile().unwrap();
                            file.write_all_at(bytes, 0).unwrap();
                            let file = FileBody { file: Arc::new(file), offset: 0, len: bytes.len() as u64 };
                            prop_assert!(writer.push_file(file));
                        }
                        Comes::Later => {
                            while let Some(Some(Ok(Piece::Bytes(bytes)))) = stream.try_next() {
                                packed.extend_from_slice(&bytes);
                            }
                        }
                    }
                }
                writer.end(Ok(()));
                packed.extend(read_all(&mut stream).await.unwrap());
                prop_assert!(unpack(coding.token(), &packed) == plain);
                let whole = encoder::whole(coding, &plain).unwrap();
                prop_assert!(unpack(coding.token(), &whole) == plain);
            }
            Ok(())
        })?;
    }
}
