//! A cookie by its name, as a client sends it; and by which cookies users are known.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};

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

/// The value of the first of several cookies that is there. Their names stand in one text with spaces between them, which no name
/// may hold (RFC 6265, 4.1.1).
pub(crate) fn first_cookie<'a>(header: &'a [u8], names: &[u8]) -> Option<&'a [u8]> {
    names.split(|&byte| byte == b' ').find_map(|name| cookie(header, name))
}

/// Django's own default for SESSION_COOKIE_NAME.
const SESSION_COOKIE: &str = "sessionid";

/// The names of the apps' session cookies.
pub(crate) struct SessionCookies {
    by_module: Mutex<BTreeMap<u16, String>>,
    /// For [`first_cookie`]: the site's first, each once.
    names: ArcSwap<Vec<u8>>,
}

impl Default for SessionCookies {
    fn default() -> Self {
        Self { by_module: Mutex::default(), names: ArcSwap::from_pointee(SESSION_COOKIE.into()) }
    }
}

impl SessionCookies {
    /// What an app reports; one without sessions has none.
    pub(crate) fn set(&self, module: u16, name: Option<&str>) {
        let mut by_module = self.by_module.lock().unwrap_or_else(PoisonError::into_inner);
        match name.filter(|name| !name.is_empty() && !name.contains(' ')) {
            Some(name) => by_module.insert(module, name.to_owned()),
            None => by_module.remove(&module),
        };
        let mut names: Vec<&str> = Vec::new();
        for name in by_module.values() {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        if names.is_empty() {
            names.push(SESSION_COOKIE);
        }
        self.names.store(Arc::new(names.join(" ").into_bytes()));
    }

    /// For [`first_cookie`].
    pub(crate) fn names(&self) -> Guard<Arc<Vec<u8>>> {
        self.names.load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_each_app_are_known_by_its_cookie() {
        let cookies = SessionCookies::default();
        let user = |sent: &'static str| first_cookie(sent.as_bytes(), &cookies.names());
        assert_eq!(user("sessionid=a"), Some(&b"a"[..]));
        cookies.set(1, Some("api_session"));
        assert_eq!(user("sessionid=a; api_session=b"), Some(&b"b"[..]));
        cookies.set(0, Some("shop"));
        cookies.set(2, Some("shop"));
        cookies.set(3, Some("a b"));
        assert_eq!(cookies.names().as_slice(), b"shop api_session");
        assert_eq!(user("api_session=b; shop=c"), Some(&b"c"[..]));
        assert_eq!(user("api_session=b"), Some(&b"b"[..]));
        cookies.set(1, None);
        assert_eq!(user("api_session=b"), None);
    }

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
