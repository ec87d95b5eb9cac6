//! Ini files as uWSGI reads them: a key may be there many times, values may name other keys (`%(name)`), parts of the file's
//! own path (`%d`) and variables of the environment (`$(NAME)`).

use std::path::Path;

/// A line `key = value`; a key alone has the value `true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) value: String,
}

/// The pairs of the section, and lines that are none, with their numbers.
pub(super) fn read(text: &str, section: &str, file: &Path) -> (Vec<Pair>, Vec<(usize, String)>) {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut odd = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = header.trim() == section;
            continue;
        }
        if !inside {
            odd.push((index + 1, line.to_owned()));
            continue;
        }
        let (key, value) =
            line.split_once('=').map_or((line, "true"), |(key, value)| (key.trim(), value.trim()));
        let value = fill_in(value, &pairs, file);
        pairs.push(Pair { line: index + 1, key: key.replace('_', "-"), value });
    }
    (pairs, odd)
}

/// Replaces `%(name)`, `%d`, `%n` and the like; what is not known stays as it is.
fn fill_in(value: &str, pairs: &[Pair], file: &Path) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (replaced, length) = placeholder(rest, pairs, file);
        match replaced {
            Some(text) => out.push_str(&text),
            None => out.push_str(&rest[..length]),
        }
        rest = &rest[length..];
    }
    out + rest
}

/// What the placeholder at the start of `text` stands for, and its length.
fn placeholder(text: &str, pairs: &[Pair], file: &Path) -> (Option<String>, usize) {
    if let Some(inner) = text.strip_prefix("%(")
        && let Some(end) = inner.find(')')
    {
        let name = inner[..end].replace('_', "-");
        let value = pairs.iter().rev().find(|pair| pair.key == name).map(|pair| pair.value.clone());
        return (value, end + 3);
    }
    let part = |path: Option<&Path>| path.map(|path| path.display().to_string());
    let name = |text: Option<&std::ffi::OsStr>| text.map(|text| text.to_string_lossy().into_owned());
    // https://uwsgi-docs.readthedocs.io/en/latest/Configuration.html, "Magic variables"
    let replaced = match text.as_bytes().get(1) {
        Some(b'%') => Some("%".to_owned()),
        Some(b'd') => part(file.parent()).map(|dir| format!("{}/", dir.trim_end_matches('/'))),
        Some(b'p') => part(Some(file)),
        Some(b's') => name(file.file_name()),
        Some(b'n') => name(file.file_stem()),
        Some(b'e') => name(file.extension()),
        Some(b'c') => name(file.parent().and_then(Path::file_name)),
        _ => return (None, 1),
    };
    (replaced, 2)
}
