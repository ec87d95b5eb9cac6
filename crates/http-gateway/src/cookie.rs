//! A cookie by its name, as a client sends it.

/// The value of a cookie in a Cookie field (RFC 6265, 4.2.1); an empty one is none.
pub(crate) fn cookie<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = |pair: &'a [u8]| pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=");
    header.split(|&byte| byte == b';').find_map(value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let sent = b"theme=dark; sessionid=abc; xsessionid=1; sessionidx=2; empty=";
        assert_eq!(cookie(sent, b"sessionid"), Some(&b"abc"[..]));
        assert_eq!(cookie(sent, b"session"), None);
        assert_eq!(cookie(sent, b"empty"), None);
    }
}
