//! Reads a client's bytes from standard input, as the gateway would, and prints what it understood as JSON:
//!
//! ```text
//! {"requests": [{"method", "target", "version", "headers": [[name, value]], "body"}], "end": "complete"}
//! ```
//!
//! `end` is `complete`, `incomplete` (more bytes would be needed), or `{"status", "why"}` of a refusal. Bytes above
//! 0x7f are printed as the Latin-1 letters. tests/contract runs other people's request files through this.
//!
//! Options: `--line-max`, `--headers-max`, `--header-count-max` (as in the settings), and `--proxy-protocol`.

use std::io::{self, Read, Write};

use bytes::BytesMut;
use http_gateway::h1::chunked::ChunkedDecoder;
use http_gateway::h1::parse::{HeadLimits, HeadParser, Parsed};
use http_gateway::message::BodyLength;
use http_gateway::proxy_protocol;
use serde_json::{Value, json};

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn refused(status: u16, why: &str) -> Value {
    json!({"status": status, "why": why})
}

/// The body at the start of `input` and its bytes on the wire.
fn read_body(length: BodyLength, input: &[u8]) -> Result<(Vec<u8>, usize), Value> {
    match length {
        BodyLength::None => Ok((Vec::new(), 0)),
        BodyLength::Known(length) => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let body = input.get(..length).ok_or(json!("incomplete"))?;
            Ok((body.to_vec(), length))
        }
        BodyLength::Unknown => {
            let mut decoder = ChunkedDecoder::new();
            let mut body = BytesMut::new();
            let used = decoder.decode(input, &mut body).map_err(|_| refused(400, "the body is malformed"))?;
            if decoder.is_done() { Ok((body.to_vec(), used)) } else { Err(json!("incomplete")) }
        }
    }
}

fn describe(parsed: &Parsed, body: &[u8]) -> Value {
    let headers: Vec<_> = parsed.head.headers.iter().map(|(n, v)| json!([latin1(n), latin1(v)])).collect();
    json!({
        "method": latin1(parsed.head.method.as_bytes()),
        "target": latin1(&parsed.head.target),
        "version": parsed.head.version as u8,
        "headers": headers,
        "body": latin1(body),
    })
}

fn read_all(
    mut input: &[u8],
    limits: &HeadLimits,
    proxy: bool,
    requests: &mut Vec<Value>,
) -> Result<(), Value> {
    if proxy {
        let header = proxy_protocol::parse(input).map_err(|error| refused(400, &error.to_string()))?;
        let (_, bytes) = header.ok_or(json!("incomplete"))?;
        input = input.get(bytes..).unwrap_or_default();
    }
    while !input.is_empty() {
        let head = HeadParser::new().advance(input, limits).map_err(|r| refused(r.status, r.why))?;
        let (parsed, bytes) = head.ok_or(json!("incomplete"))?;
        input = input.get(bytes..).unwrap_or_default();
        let (body, bytes) = read_body(parsed.body, input)?;
        input = input.get(bytes..).unwrap_or_default();
        requests.push(describe(&parsed, &body));
        if !parsed.keep_alive {
            break;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut limits = ctl_config::Limits::default();
    let mut proxy = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number =
            || arguments.next().ok_or("a number is missing")?.parse::<u32>().map_err(|e| e.to_string());
        match argument.as_str() {
            "--line-max" => limits.line_max = number()?.into(),
            "--headers-max" => limits.headers_max = number()?.into(),
            "--header-count-max" => limits.header_count_max = number()?,
            "--proxy-protocol" => proxy = true,
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    let mut requests = Vec::new();
    let end = match read_all(&input, &HeadLimits::new(&limits), proxy, &mut requests) {
        Ok(()) => json!("complete"),
        Err(end) => end,
    };
    writeln!(io::stdout(), "{}", json!({"requests": requests, "end": end}))?;
    Ok(())
}
