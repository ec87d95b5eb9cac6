//! Content-Type by a file's extension, the same on every machine: no `/etc/mime.types` is read.

/// What an extension tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MediaType {
    /// The field's value.
    pub(super) value: &'static str,
    /// Worth compressing: text, and formats without compression of their own.
    pub(super) compresses: bool,
    /// A browser runs what is inside, so an uploaded one could act in the site's name.
    pub(super) active: bool,
}

const fn row(value: &'static str, compresses: bool) -> MediaType {
    MediaType { value, compresses, active: false }
}

const fn active(value: &'static str) -> MediaType {
    MediaType { value, compresses: true, active: true }
}

/// For what the table does not know. It may be anything, so it is not compressed.
const UNKNOWN: MediaType = row("application/octet-stream", false);

/// The type of the file with this path.
pub(super) fn of(path: &[u8]) -> MediaType {
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    // Fixed by Apple: a JSON file without an extension, looked for below .well-known.
    if name == b"apple-app-site-association" {
        return row("application/json", true);
    }
    let Some(dot) = memchr::memrchr(b'.', name) else { return UNKNOWN };
    let extension = name.get(dot + 1..).unwrap_or_default();
    let is_it = |known: &&str| extension.eq_ignore_ascii_case(known.as_bytes());
    TABLE.iter().find(|(extensions, _)| extensions.iter().any(is_it)).map_or(UNKNOWN, |row| row.1)
}

/// Text carries `charset=utf-8`, which Django's own files and nearly all others are written in. JSON and its kin have no
/// charset parameter (RFC 8259, 11); XML and SVG name theirs inside.
static TABLE: &[(&[&str], MediaType)] = &[
    (&["css"], row("text/css; charset=utf-8", true)),
    // RFC 9239, 6.
    (&["js", "mjs"], row("text/javascript; charset=utf-8", true)),
    (&["html", "htm"], active("text/html; charset=utf-8")),
    (&["xhtml"], active("application/xhtml+xml")),
    (&["svg"], active("image/svg+xml")),
    (&["xml", "xsl", "xslt"], active("text/xml")),
    (&["json", "map"], row("application/json", true)),
    (&["jsonld"], row("application/ld+json", true)),
    (&["geojson"], row("application/geo+json", true)),
    (&["webmanifest"], row("application/manifest+json", true)),
    (&["atom"], row("application/atom+xml", true)),
    (&["rss"], row("application/rss+xml", true)),
    (&["txt", "text", "log"], row("text/plain; charset=utf-8", true)),
    (&["md"], row("text/markdown; charset=utf-8", true)),
    (&["csv"], row("text/csv; charset=utf-8", true)),
    (&["ics"], row("text/calendar; charset=utf-8", true)),
    (&["vcf"], row("text/vcard; charset=utf-8", true)),
    (&["vtt"], row("text/vtt; charset=utf-8", true)),
    (&["wasm"], row("application/wasm", true)),
    (&["rtf"], row("application/rtf", true)),
    (&["ps", "eps", "ai"], row("application/postscript", true)),
    (&["ttf"], row("font/ttf", true)),
    (&["otf"], row("font/otf", true)),
    (&["ttc"], row("font/collection", true)),
    (&["eot"], row("application/vnd.ms-fontobject", true)),
    (&["woff"], row("font/woff", false)),
    (&["woff2"], row("font/woff2", false)),
    (&["ico"], row("image/x-icon", true)),
    (&["bmp"], row("image/bmp", true)),
    (&["png"], row("image/png", false)),
    (&["apng"], row("image/apng", false)),
    (&["jpg", "jpeg"], row("image/jpeg", false)),
    (&["gif"], row("image/gif", false)),
    (&["webp"], row("image/webp", false)),
    (&["avif"], row("image/avif", false)),
    (&["heic"], row("image/heic", false)),
    (&["jxl"], row("image/jxl", false)),
    (&["tif", "tiff"], row("image/tiff", false)),
    (&["mp3"], row("audio/mpeg", false)),
    (&["m4a"], row("audio/mp4", false)),
    (&["aac"], row("audio/aac", false)),
    (&["oga", "ogg", "opus"], row("audio/ogg", false)),
    (&["wav"], row("audio/wav", false)),
    (&["flac"], row("audio/flac", false)),
    (&["weba"], row("audio/webm", false)),
    (&["mid", "midi"], row("audio/midi", false)),
    (&["mp4", "m4v"], row("video/mp4", false)),
    (&["webm"], row("video/webm", false)),
    (&["ogv"], row("video/ogg", false)),
    (&["mov"], row("video/quicktime", false)),
    (&["mpeg", "mpg"], row("video/mpeg", false)),
    (&["avi"], row("video/x-msvideo", false)),
    (&["mkv"], row("video/x-matroska", false)),
    (&["ts"], row("video/mp2t", false)),
    (&["m3u8"], row("application/vnd.apple.mpegurl", true)),
    (&["mpd"], row("application/dash+xml", true)),
    (&["pdf"], row("application/pdf", false)),
    (&["epub"], row("application/epub+zip", false)),
    (&["zip"], row("application/zip", false)),
    (&["gz", "tgz"], row("application/gzip", false)),
    (&["bz2"], row("application/x-bzip2", false)),
    (&["xz"], row("application/x-xz", false)),
    (&["zst"], row("application/zstd", false)),
    (&["7z"], row("application/x-7z-compressed", false)),
    (&["rar"], row("application/vnd.rar", false)),
    (&["tar"], row("application/x-tar", true)),
    (&["doc"], row("application/msword", true)),
    (&["xls"], row("application/vnd.ms-excel", true)),
    (&["ppt"], row("application/vnd.ms-powerpoint", true)),
    (&["docx"], row("application/vnd.openxmlformats-officedocument.wordprocessingml.document", false)),
    (&["xlsx"], row("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", false)),
    (&["pptx"], row("application/vnd.openxmlformats-officedocument.presentationml.presentation", false)),
    (&["odt"], row("application/vnd.oasis.opendocument.text", false)),
    (&["ods"], row("application/vnd.oasis.opendocument.spreadsheet", false)),
    (&["odp"], row("application/vnd.oasis.opendocument.presentation", false)),
    (&["apk"], row("application/vnd.android.package-archive", false)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        for (path, value) in [
            ("css/app.css", "text/css; charset=utf-8"),
            ("js/APP.JS", "text/javascript; charset=utf-8"),
            ("app.min.mjs", "text/javascript; charset=utf-8"),
            ("fonts.v2/x.woff2", "font/woff2"),
            ("site.webmanifest", "application/manifest+json"),
            (".well-known/apple-app-site-association", "application/json"),
            ("archive.tar.gz", "application/gzip"),
            ("noextension", "application/octet-stream"),
            ("dir.css/noextension", "application/octet-stream"),
            ("trailing.", "application/octet-stream"),
            ("x.anextensionthatislong", "application/octet-stream"),
        ] {
            assert_eq!(of(path.as_bytes()).value, value, "{path}");
        }
    }

    #[test]
    fn what_a_browser_runs_is_marked() {
        assert!(["a.html", "a.svg", "a.xml", "a.xhtml"].iter().all(|path| of(path.as_bytes()).active));
        assert!(!of(b"a.png").active);
    }
}
