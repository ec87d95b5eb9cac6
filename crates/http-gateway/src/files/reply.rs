//! From a representation and a request to a response: 200, 206, 304, 412, 416.

use bytes::Bytes;

use super::conditional::{self, Verdict};
use super::range::{self, Selected, Span};
use super::representation::{Content, Representation};
use super::root::{OpenError, Wait};
use super::{FileResponse, read};
use crate::message::{Body, Headers, Method, RequestHead};

/// Several ranges are put together in memory up to this size in all; for more the whole file is sent, which RFC 9110, 14.2
/// leaves to us. Who asks for several ranges (readers of PDF and JPEG 2000) asks for kilobytes.
const PARTS_BYTES_MAX: u64 = 1 << 20;

/// An answer, or what is still missing to one.
#[derive(Debug)]
pub(super) enum Reply {
    Ready(FileResponse),
    /// These parts have to be read from a file.
    Parts(Vec<Span>),
}

/// Answers a request with a representation. `base`: the headers to start from instead of the representation's (the app's,
/// for X-Accel-Redirect).
pub(super) fn reply(head: &RequestHead, representation: &Representation, base: Option<&Headers>) -> Reply {
    let headers = || base.unwrap_or(&representation.headers).clone();
    let size = representation.size;
    let whole = || FileResponse { status: 200, headers: headers(), body: representation.body(0, size) };
    if conditional::is_plain(&head.headers) {
        return Reply::Ready(whole());
    }
    let selected = match conditional::evaluate(head, representation.validators()) {
        Verdict::NotModified => {
            let mut headers = base.unwrap_or(&representation.not_modified).clone();
            headers.remove(|name| {
                name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"accept-ranges")
            });
            return Reply::Ready(FileResponse { status: 304, headers, body: Body::Empty });
        }
        Verdict::Failed => return Reply::Ready(FileResponse::text(412, "The file is another by now.\n")),
        Verdict::Answer { range: false } => Selected::Whole,
        Verdict::Answer { range: true } => {
            head.headers.get("range").map_or(Selected::Whole, |value| range::select(value, size))
        }
    };
    match selected {
        Selected::Whole => Reply::Ready(whole()),
        Selected::One(span) => {
            let mut headers = headers();
            headers.set("Content-Length", itoa::Buffer::new().format(span.len).as_bytes());
            headers.push(b"Content-Range", span.content_range(size).as_bytes());
            let body = representation.body(span.start, span.len);
            Reply::Ready(FileResponse { status: 206, headers, body })
        }
        Selected::Many(spans) if spans.iter().map(|span| span.len).sum::<u64>() > PARTS_BYTES_MAX => {
            Reply::Ready(whole())
        }
        Selected::Many(spans) => match &representation.content {
            Content::Memory(bytes) => {
                let part = |span: &Span| bytes.get(span.start as usize..(span.start + span.len) as usize);
                let parts: Vec<_> = spans.iter().filter_map(|span| Some((*span, part(span)?))).collect();
                Reply::Ready(join(&parts, representation, headers()))
            }
            Content::Open(_) => Reply::Parts(spans),
        },
        Selected::Unsatisfiable => {
            // RFC 9110, 15.5.17.
            let mut response = FileResponse::text(416, "The file has no such range.\n");
            response.headers.push(b"Content-Range", format!("bytes */{size}").as_bytes());
            Reply::Ready(response)
        }
    }
}

/// Reads the parts of an open file; on the blocking pool.
pub(super) fn read_parts(
    representation: &Representation,
    spans: &[Span],
    base: Option<&Headers>,
) -> Result<FileResponse, OpenError> {
    let Content::Open(file) = &representation.content else { return Err(OpenError::Missing) };
    let mut parts = Vec::with_capacity(spans.len());
    for span in spans {
        let bytes = read::read(file, span.start, span.len, Wait::Allowed)?;
        if bytes.len() as u64 != span.len {
            return Err(OpenError::Missing);
        }
        parts.push((*span, bytes));
    }
    let parts: Vec<_> = parts.iter().map(|(span, bytes)| (*span, bytes.as_slice())).collect();
    Ok(join(&parts, representation, base.unwrap_or(&representation.headers).clone()))
}

/// RFC 9110, 14.6 and 15.3.7.2: each part with its type and range, the whole without a Content-Range.
fn join(parts: &[(Span, &[u8])], representation: &Representation, mut headers: Headers) -> FileResponse {
    let media_type = headers.get("content-type").unwrap_or(representation.media_type.as_bytes()).to_vec();
    let boundary = boundary();
    let mut body = Vec::with_capacity(parts.iter().map(|(_, bytes)| bytes.len() + 256).sum());
    for (span, bytes) in parts {
        let range = span.content_range(representation.size);
        for piece in [
            b"--",
            boundary.as_bytes(),
            b"\r\nContent-Type: ",
            &media_type,
            b"\r\nContent-Range: ",
            range.as_bytes(),
            b"\r\n\r\n",
            bytes,
            b"\r\n",
        ] {
            body.extend_from_slice(piece);
        }
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    headers.set("Content-Type", format!("multipart/byteranges; boundary={boundary}").as_bytes());
    headers.set("Content-Length", itoa::Buffer::new().format(body.len()).as_bytes());
    FileResponse { status: 206, headers, body: Body::Bytes(Bytes::from(body)) }
}

/// 128 random bits: RFC 2046, 5.1.1 wants what does not occur in the parts.
fn boundary() -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = || RandomState::new().hash_one(std::time::Instant::now());
    format!("{:016x}{:016x}", random(), random())
}

/// The answer to a method that files do not have (RFC 9110, 15.5.6), or to OPTIONS (9.3.7).
pub(super) fn other_method(method: &Method) -> FileResponse {
    let mut response = if *method == Method::Options {
        FileResponse { status: 204, headers: Headers::default(), body: Body::Empty }
    } else {
        FileResponse::text(405, "A file can be read, nothing else.\n")
    };
    response.headers.push(b"Allow", b"GET, HEAD, OPTIONS");
    response
}
