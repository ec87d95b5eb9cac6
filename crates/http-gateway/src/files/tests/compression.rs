//! Compressed files: siblings that were there before, and what is packed when it is asked for.

use std::io::Read;

use super::*;

#[tokio::test]
async fn siblings_compressed_beforehand() {
    let site = Site::new();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    site.write("static/a.js", "plain").write("static/a.js.gz", "gzip").write("static/a.js.br", "brotli");
    site.write_at("static/a.js.zst", "too old", old);
    let files = site.files();
    let check = async |accept: &str, expected: &str, coding: Option<&str>| {
        let response = get(&files, "/static/a.js", &[("Accept-Encoding", accept)]).await;
        assert_eq!(String::from_utf8(body(&response)).unwrap(), expected, "{accept}");
        assert_eq!(field(&response, "content-encoding").as_deref(), coding);
        assert_eq!(field(&response, "vary").as_deref(), Some("Accept-Encoding"));
        assert_eq!(field(&response, "content-type").unwrap(), "text/javascript; charset=utf-8");
        field(&response, "etag").unwrap()
    };
    let tags = [
        check("", "plain", None).await,
        check("gzip", "gzip", Some("gzip")).await,
        check("gzip, br", "brotli", Some("br")).await,
    ];
    assert!(tags[0] != tags[1] && tags[1] != tags[2] && tags[0] != tags[2], "RFC 9110, 8.8.3.3");
    check("zstd", "plain", None).await;
    check("gzip;q=0.5, br;q=0.1", "gzip", Some("gzip")).await;
    let response =
        get(&files, "/static/a.js", &[("Accept-Encoding", "br"), ("If-None-Match", &tags[2])]).await;
    assert_eq!((response.status, field(&response, "vary").as_deref()), (304, Some("Accept-Encoding")));
    let response = get(&files, "/static/a.js", &[("Accept-Encoding", "br"), ("Range", "bytes=0-1")]).await;
    assert_eq!((response.status, body(&response)), (206, b"pl".to_vec()));
    assert_eq!(
        field(&get(&files, "/static/a.js.gz", &[]).await, "content-type").unwrap(),
        "application/gzip"
    );
}

#[tokio::test]
async fn compression_on_the_fly() {
    let site = Site::new();
    let text = "body { color: red } /* and so on */\n".repeat(10_000);
    site.write("static/large.css", &text)
        .write("static/small.css", &text[..10_000])
        .write("static/tiny.css", "x");
    site.write("static/a.png", &text);
    let files = site.files();
    for (target, size) in [("/static/large.css", text.len()), ("/static/small.css", 10_000)] {
        for coding in ["gzip", "zstd", "br"] {
            let mut response = get(&files, target, &[("Accept-Encoding", coding)]).await;
            for _ in 0..100 {
                if field(&response, "content-encoding").is_some() {
                    break;
                }
                // It took longer than a request waits.
                response = get(&files, target, &[("Accept-Encoding", coding)]).await;
            }
            assert_eq!(field(&response, "content-encoding").as_deref(), Some(coding));
            assert_eq!(unpack(coding, &body(&response)), text.as_bytes()[..size]);
            assert!(field(&response, "etag").unwrap().ends_with(&format!("-{coding}\"")));
        }
        assert_eq!(field(&get(&files, target, &[]).await, "vary").as_deref(), Some("Accept-Encoding"));
    }
    for target in ["/static/tiny.css", "/static/a.png"] {
        let response = get(&files, target, &[("Accept-Encoding", "br")]).await;
        assert!(
            field(&response, "content-encoding").is_none() && field(&response, "vary").is_none(),
            "{target}"
        );
    }
}

fn unpack(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    match coding {
        "gzip" => drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut text).unwrap()),
        "zstd" => text = zstd::decode_all(bytes).unwrap(),
        _ => brotli::BrotliDecompress(&mut &*bytes, &mut text).unwrap(),
    }
    text
}

#[tokio::test]
async fn compressed_once_however_many_ask() {
    let site = Site::new();
    site.write("static/a.css", "body { color: red }\n".repeat(20_000));
    let files = site.files();
    let since = std::time::Instant::now();
    let mut packed = std::collections::HashMap::new();
    // Until it is compressed, however slow the machine is, and then some.
    let mut rounds_to_go = 20;
    while rounds_to_go > 0 {
        let ask = || {
            let files = files.clone();
            tokio::spawn(async move { get(&files, "/static/a.css", &[("Accept-Encoding", "zstd")]).await })
        };
        for task in (0..50).map(|_| ask()).collect::<Vec<_>>() {
            let response = task.await.unwrap();
            if let (Body::Bytes(bytes), Some(_)) = (&response.body, field(&response, "content-encoding")) {
                packed.insert(bytes.as_ptr(), bytes.clone());
            }
        }
        rounds_to_go -= usize::from(!packed.is_empty());
    }
    // A file that was just written is taken anew each time it is compared with the disk.
    let compared = since.elapsed().as_millis() as usize / RECHECK_MS as usize;
    assert!(packed.len() <= 1 + compared, "{} pieces of memory, {compared} comparisons", packed.len());
}
