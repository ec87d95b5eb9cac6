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

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The pairs of the section, and of those that it takes in.
    pub(super) pairs: Vec<Pair>,
    /// Lines of none of them, with their numbers.
    pub(super) outside: Vec<(usize, String)>,
}

/// Reads `section`, and where it says `ini = :other`, that one.
pub(super) fn read(text: &str, section: &str, file: &Path) -> Found {
    let mut header = "";
    let mut lines = Vec::new();
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            header = name.trim();
        } else if !line.is_empty() && !line.starts_with(['#', ';']) {
            lines.push(Line { number: index + 1, header, text: line });
        }
    }
    let mut reader = Reader { lines: &lines, file, pairs: Vec::new(), read: Vec::new() };
    reader.section(section);
    let Reader { pairs, read, .. } = reader;
    let outside = lines.iter().filter(|line| !read.contains(&line.header));
    Found { pairs, outside: outside.map(|line| (line.number, line.text.to_owned())).collect() }
}

struct Line<'a> {
    number: usize,
    header: &'a str,
    text: &'a str,
}

struct Reader<'a> {
    lines: &'a [Line<'a>],
    file: &'a Path,
    pairs: Vec<Pair>,
    /// Sections that were read: each once, so that a circle ends.
    read: Vec<&'a str>,
}

impl Reader<'_> {
    fn section(&mut self, name: &str) {
        let lines = self.lines;
        let Some(known) = lines.iter().map(|line| line.header).find(|header| *header == name) else { return };
        if self.read.contains(&known) {
            return;
        }
        self.read.push(known);
        for line in lines.iter().filter(|line| line.header == name) {
            let (key, value) = line.text.split_once('=').unwrap_or((line.text, "true"));
            let (key, value) = (key.trim().replace('_', "-"), fill_in(value.trim(), &self.pairs, self.file));
            match value.strip_prefix(':').filter(|_| key == "ini") {
                Some(other) => self.section(other),
                None => self.pairs.push(Pair { line: line.number, key, value }),
            }
        }
    }
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
