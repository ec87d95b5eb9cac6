//! Frames by hand from clients who mean no good. What the `h2` crate bounds is here too: a newer one must not stop.

use ctl_telemetry::metrics::H2_FLOODS_TOTAL;

use super::*;

const ENHANCE_YOUR_CALM: u32 = 11;

/// `GET http://a/never`.
const NEVER: [u8; 13] = [0x82, 0x86, 0x04, 0x06, b'/', b'n', b'e', b'v', b'e', b'r', 0x01, 0x01, b'a'];

/// Writes `flood` while it takes what comes; the error code of the last GOAWAY.
async fn flooded(flood: Vec<u8>) -> Option<u32> {
    let (theirs, server) = raw(|_| {}).await;
    let (mut from, mut to) = tokio::io::split(theirs);
    let mut got = Vec::new();
    let writing = async {
        let _the_server_closes_meanwhile = to.write_all(&flood).await;
    };
    let reading = timeout(SOON, from.read_to_end(&mut got));
    let ((), ended) = tokio::join!(writing, reading);
    ended.expect("the connection stays").unwrap();
    server.ends().await;
    let mut goaways = parse(&got).into_iter().filter(|(kind, ..)| *kind == 7);
    goaways.next_back().map(|(_, _, payload)| u32::from_be_bytes(payload[4..8].try_into().unwrap()))
}

#[tokio::test]
async fn frames_that_ask_for_nothing_end_the_connection() {
    for (name, one) in [
        ("PING", frame(6, 0, 0, &[0; 8])),
        ("SETTINGS", frame(4, 0, 0, &[])),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 16])),
        ("WINDOW_UPDATE", frame(8, 0, 0, &1_u32.to_be_bytes())),
        ("an unknown one", frame(0x77, 0, 0, &[])),
    ] {
        let before = H2_FLOODS_TOTAL.get();
        assert_eq!(flooded(one.repeat(30_000)).await, Some(ENHANCE_YOUR_CALM), "{name}");
        assert!(H2_FLOODS_TOTAL.get() > before, "{name}");
    }
}

#[tokio::test]
async fn requests_cancelled_one_by_one_end_the_connection() {
    let (mut theirs, server) = raw(|_| {}).await;
    // Each is looked at before it is cancelled, so the crate's own count of those that were not is never reached.
    for stream in (1..4001).step_by(2) {
        let _the_server_closes_meanwhile = theirs.write_all(&frame(1, 5, stream, &NEVER)).await;
        tokio::task::yield_now().await;
        let _the_server_closes_meanwhile = theirs.write_all(&frame(3, 0, stream, &8_u32.to_be_bytes())).await;
        tokio::task::yield_now().await;
    }
    let frames = frames(theirs).await;
    let (_, _, payload) = frames.iter().rfind(|(kind, ..)| *kind == 7).expect("no GOAWAY");
    assert_eq!(payload[4..8], ENHANCE_YOUR_CALM.to_be_bytes());
    let last = u32::from_be_bytes(payload[..4].try_into().unwrap());
    assert!((2000..3900).contains(&last), "a thousand and what time gives, not a hundred: {last}");
    server.ends().await;
}

#[tokio::test]
async fn continuation_frames_without_end_end_the_connection() {
    for piece in [&b""[..], &[0x00, 0x01, b'a', 0x01, b'b'].repeat(100)] {
        let mut flood = frame(1, 1, 1, &GET);
        flood.extend(frame(9, 0, 1, piece).repeat(1000));
        assert_eq!(flooded(flood).await, Some(ENHANCE_YOUR_CALM), "{} bytes each", piece.len());
    }
}

#[tokio::test]
async fn empty_and_tiny_pieces_of_a_body_end_the_connection() {
    for piece in [&b""[..], b"x"] {
        let mut flood = frame(1, 4, 1, &NEVER);
        flood.extend(frame(0, 0, 1, piece).repeat(200_000));
        assert_eq!(flooded(flood).await, Some(ENHANCE_YOUR_CALM), "{} bytes each", piece.len());
    }
}

#[tokio::test]
async fn a_small_block_that_becomes_a_large_header_is_refused() {
    // One field of 3000 bytes goes into the table (RFC 7541, 6.2.1) and is then named again and again (6.1).
    let block = |times: usize| {
        let mut block = GET.to_vec();
        // The length of the value in three bytes (RFC 7541, 5.1): 127, then 2873 in groups of seven bits.
        block.extend([0x40, 0x01, b'x', 0x7f, 0xb9, 0x16]);
        block.extend([b'v'; 3000]);
        block.extend(vec![0xbe; times]);
        block
    };
    // Beyond limits.headers_max: an answer.
    let (mut theirs, server) = raw(|config| config.timeouts.keep_alive = Duration::from_millis(100)).await;
    theirs.write_all(&frame(1, 5, 1, &block(12))).await.unwrap();
    let frames = frames(theirs).await;
    let (_, _, head) = frames.iter().find(|(kind, stream, _)| (*kind, *stream) == (1, 1)).expect("no answer");
    // 431 in the code of RFC 7541, B.
    assert!(head.windows(3).any(|status| status == [0x69, 0x90, 0xff]), "{head:x?}");
    server.ends().await;
    // Far beyond: thirty megabytes of thirteen kilobytes.
    let code = flooded(frame(1, 5, 1, &block(10_000))).await;
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
}

/// RST_STREAM with CANCEL (RFC 9113, 7), for these streams.
fn cancelled(frames: &[(u8, u32, Vec<u8>)]) -> Vec<u32> {
    let resets = frames.iter().filter(|(kind, _, code)| *kind == 3 && code[..] == 8_u32.to_be_bytes());
    resets.map(|(_, stream, _)| *stream).collect()
}

#[tokio::test]
async fn closed_windows_are_not_kept_by_pings() {
    let (theirs, server) = raw(|config| {
        config.timeouts.write = Duration::from_millis(300);
        config.timeouts.keep_alive = Duration::from_millis(300);
    })
    .await;
    let (mut from, mut to) = tokio::io::split(theirs);
    // SETTINGS_INITIAL_WINDOW_SIZE is 0: the answer's head comes, its body never.
    to.write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])).await.unwrap();
    to.write_all(&frame(1, 5, 1, &GET)).await.unwrap();
    let pinging = async {
        while to.write_all(&frame(6, 0, 0, &[0; 8])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut got = Vec::new();
    let reading = from.read_to_end(&mut got);
    let ((), ended) =
        timeout(SOON, async { tokio::join!(pinging, reading) }).await.expect("the connection stays");
    ended.unwrap();
    server.ends().await;
    assert_eq!(cancelled(&parse(&got)), [1]);
}

#[tokio::test]
async fn closed_windows_are_not_kept_by_another_request() {
    let (mut theirs, server) = raw(|config| config.timeouts.write = Duration::from_millis(300)).await;
    theirs.write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])).await.unwrap();
    // This one runs for ever, and the answers to the others lie there.
    theirs.write_all(&frame(1, 5, 1, &NEVER)).await.unwrap();
    for stream in (3..203).step_by(2) {
        theirs.write_all(&frame(1, 5, stream, &GET)).await.unwrap();
    }
    let mut got = Vec::new();
    let reading = async {
        while cancelled(&parse_whole(&got)).len() < 100 {
            assert!(theirs.read_buf(&mut got).await.unwrap() > 0, "the connection ended");
        }
    };
    timeout(SOON, reading).await.expect("what nobody takes stays");
    assert!(!cancelled(&parse_whole(&got)).contains(&1), "it is not its fault");
    drop(theirs);
    server.ends().await;
}

/// The frames that are there whole.
fn parse_whole(bytes: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut end = 0;
    while let Some(&[high, middle, low]) = bytes.get(end..end + 3)
        && end + 9 + u32::from_be_bytes([0, high, middle, low]) as usize <= bytes.len()
    {
        end += 9 + u32::from_be_bytes([0, high, middle, low]) as usize;
    }
    parse(&bytes[..end])
}

#[tokio::test]
async fn a_busy_client_is_no_flood() {
    let (send, _server, _client) = connect(|_| {}).await;
    for _ in 0..40 {
        // The crate's client confirms as it takes; each body is a megabyte.
        assert_eq!(ask(&send, request("GET", "/large"), b"").await.unwrap().2.unwrap().len(), LARGE_BYTES);
    }
}
