//! Which types of content are compressed. Pure.

/// Besides `text/…`, `…+json` and `…+xml`: text under other names, and formats without compression of their own.
const COMPRESSIBLE: &[&str] = &[
    "application/ecmascript",
    "application/javascript",
    "application/json",
    "application/jsonl",
    "application/postscript",
    "application/rtf",
    "application/sql",
    "application/toml",
    "application/vnd.apple.mpegurl",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/x-yaml",
    "application/xml",
    "application/xml-dtd",
    "application/yaml",
    "font/collection",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/vnd.microsoft.icon",
    "image/x-icon",
];

/// Never, whatever is configured: an event stream lasts for hours, there may be ten thousand of them, and an encoder for each would
/// take gigabytes. (An app that wants it can compress its events itself.)
const EVENTS: &[u8] = b"text/event-stream";

/// Is content of this Content-Type compressed? `further` are types of the configuration, `*/*`, `text/*` or `image/bmp`.
pub(super) fn is_compressible(content_type: &[u8], further: &[Box<str>]) -> bool {
    let essence = content_type.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    if essence.eq_ignore_ascii_case(EVENTS) {
        return false;
    }
    let ends = |suffix: &[u8]| {
        essence
            .len()
            .checked_sub(suffix.len())
            .is_some_and(|at| essence.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(suffix)))
    };
    begins(essence, b"text/")
        // RFC 6839, 3.1, and RFC 7303, 8.1.
        || ends(b"+json")
        || ends(b"+xml")
        || COMPRESSIBLE.iter().any(|known| essence.eq_ignore_ascii_case(known.as_bytes()))
        || further.iter().any(|known| match known.strip_suffix('*') {
            Some(family) => begins(essence, family.as_bytes()),
            None => essence.eq_ignore_ascii_case(known.as_bytes()),
        })
}

fn begins(essence: &[u8], prefix: &[u8]) -> bool {
    essence.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let further = ["application/x-protobuf".into(), "model/*".into(), "text/event-stream".into()];
        for (content_type, yes) in [
            ("text/html; charset=utf-8", true),
            ("TEXT/HTML", true),
            ("application/json", true),
            ("application/problem+json;charset=utf-8", true),
            ("image/svg+xml", true),
            ("application/x-ndjson", true),
            ("application/x-protobuf", true),
            ("model/gltf-binary", true),
            ("text/event-stream", false),
            ("Text/Event-Stream; charset=utf-8", false),
            ("image/png", false),
            ("application/zip", false),
            ("application/octet-stream", false),
            ("application/jsonp", false),
            ("+json", true),
            ("textual/x", false),
            ("", false),
        ] {
            assert_eq!(is_compressible(content_type.as_bytes(), &further), yes, "{content_type}");
        }
        assert!(!is_compressible(b"application/x-protobuf", &[]));
    }
}
