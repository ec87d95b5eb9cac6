//! A cookie by its name, as a client sends it.

use std::borrow::Cow;

/// The value of a cookie in a Cookie field (RFC 6265, 4.2.1); an empty one is none.
pub(crate) fn cookie<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = |pair: &'a [u8]| pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=");
    header.split(|&byte| byte == b';').find_map(value).filter(|value| !value.is_empty())
}

/// A Cookie field without the cookies of that name. `None`: nothing is left of it.
pub(crate) fn without<'a>(header: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    let is_it = |pair: &&[u8]| {
        let rest = pair.trim_ascii().strip_prefix(name);
        rest.is_some_and(|rest| rest.first().is_none_or(|&byte| byte == b'='))
    };
    let pairs = || header.split(|&byte| byte == b';');
    if !pairs().any(|pair| is_it(&pair)) {
        return Some(Cow::Borrowed(header));
    }
    let left: Vec<&[u8]> = pairs().filter(|pair| !is_it(pair)).map(<[u8]>::trim_ascii).collect();
    let left = left.join(&b"; "[..]);
    (!left.is_empty()).then_some(Cow::Owned(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_taken_out_and_no_other() {
        let left = |sent: &'static str| {
            let left = without(sent.as_bytes(), b"srv")?;
            Some(String::from_utf8(left.into_owned()).unwrap())
        };
        assert_eq!(left("a=b; c=d").as_deref(), Some("a=b; c=d"));
        assert_eq!(left("srv=1"), None);
        assert_eq!(left("srv"), None);
        assert_eq!(left("a=b;srv=1; srv=2 ;xsrv=3; srvx=4").as_deref(), Some("a=b; xsrv=3; srvx=4"));
        assert_eq!(left("srv=1; a=\"b c\"").as_deref(), Some("a=\"b c\""));
        assert_eq!(left("").as_deref(), Some(""));
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let sent = b"theme=dark; sessionid=abc; xsessionid=1; sessionidx=2; empty=";
        assert_eq!(cookie(sent, b"sessionid"), Some(&b"abc"[..]));
        assert_eq!(cookie(sent, b"session"), None);
        assert_eq!(cookie(sent, b"empty"), None);
    }
}
