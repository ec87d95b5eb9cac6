//! One header line: a name that is a token, a value without control characters. Shared by heads and trailers.

use super::parse::Refusal;

/// What a byte is in a field name, as bits (RFC 9110, 5.6.2).
const NAME: [u8; 256] = {
    let mut table = [NO_TOKEN; 256];
    let tokens = b"!#$%&'*+-.^`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut i = 0;
    while i < tokens.len() {
        table[tokens[i] as usize] = 0;
        i += 1;
    }
    table[b'_' as usize] = UNDERSCORE;
    table
};

const UNDERSCORE: u8 = 1;
const NO_TOKEN: u8 = 2;

/// All bits of all bytes. Looks at every byte: a branch for each would cost more.
fn name_bits(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |bits, &b| bits | NAME[usize::from(b)])
}

/// Are all bytes token characters, and is there at least one?
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && name_bits(bytes) & NO_TOKEN == 0
}

/// Does a field name become another field's name on its way through CGI-like variables?
///
/// WSGI gives the app `HTTP_X_FORWARDED_FOR` for `X-Forwarded-For` and for `X_Forwarded_For` alike, so a client
/// could put a field past whoever filters the first. Such fields are dropped without a word, as nginx does
/// (`underscores_in_headers off`). HTTP/2 must ask here too.
pub fn is_ambiguous_name(name: &[u8]) -> bool {
    name.contains(&b'_')
}

/// Has a value no control characters but tab? Bytes above 0x7f pass (obs-text; RFC 9110, 5.5).
///
/// Looks at every byte on purpose: without an early exit the compiler makes vector instructions of it.
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |bad, &b| bad | u8::from((b < 0x20 && b != b'\t') || b == 0x7f)) == 0
}

/// Cuts spaces and tabs from both ends (OWS; RFC 9110, 5.6.3).
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// A checked header line, still in the client's letters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
    /// See [`is_ambiguous_name`].
    pub(crate) ambiguous: bool,
}

/// Checks a line that lost its CRLF.
pub(crate) fn parse_field(line: &[u8]) -> Result<Field<'_>, Refusal> {
    // RFC 9112, 5.2: obsolete line folding is refused.
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::bad("a header line is folded"));
    }
    // A colon is no token character: the name ends at the first byte that is none. Names are short; to search for the colon first
    // would cost more than to look at them.
    let end = line.iter().position(|&b| NAME[usize::from(b)] & NO_TOKEN != 0);
    let (name, value) = line.split_at(end.ok_or(Refusal::bad("a header line has no colon"))?);
    // RFC 9112, 5.1: whitespace between name and colon is refused, too.
    if name.is_empty() || value.first() != Some(&b':') {
        return Err(Refusal::bad("a header name holds a character it may not"));
    }
    let value = trim(value.get(1..).unwrap_or_default());
    if !is_value(value) {
        return Err(Refusal::bad("a header value holds a control character"));
    }
    Ok(Field { name, value, ambiguous: name_bits(name) & UNDERSCORE != 0 })
}

/// The elements of a comma-separated list (RFC 9110, 5.6.1), empty ones left out.
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<(&str, &str)>) {
        let seen = parse_field(line.as_bytes()).ok();
        let seen =
            seen.map(|f| (std::str::from_utf8(f.name).unwrap(), std::str::from_utf8(f.value).unwrap()));
        assert_eq!(seen, expected, "{line:?}");
    }

    #[test]
    fn fields() {
        check("Host: a", Some(("Host", "a")));
        check("A:", Some(("A", "")));
        check("A: \t b c \t", Some(("A", "b c")));
        check("X.Y|Z: ok", Some(("X.Y|Z", "ok")));
        check("A: é", Some(("A", "é")));
        check("A: a\tb", Some(("A", "a\tb")));
        for bad in
            ["", ":", ": a", "A", "A : b", " A: b", "\tA: b", "A\0: b", "A: \0", "A: a\rb", "A: \x7f", "é: a"]
        {
            check(bad, None);
        }
    }

    #[test]
    fn ambiguous_names_are_marked() {
        assert!(parse_field(b"X_Forwarded_For: a").unwrap().ambiguous);
        assert!(!parse_field(b"X-Forwarded-For: a_b").unwrap().ambiguous);
    }
}
