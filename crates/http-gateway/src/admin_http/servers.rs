//! `POST /upstreams/NAME/drain?server=SERVER` and `undrain`: which server of which upstream is meant. Pure.

use ctl_admin::words::{Drained, UpstreamRequest};

use crate::pools::pattern::decode;

/// What a request asks for; `None`: nothing that there is.
pub(super) fn asked(target: &[u8]) -> Option<UpstreamRequest> {
    let at = target.iter().position(|&byte| byte == b'?')?;
    let (path, query) = (target.get(..at)?, target.get(at + 1..)?);
    let (upstream, what) = std::str::from_utf8(path).ok()?.strip_prefix("/upstreams/")?.split_once('/')?;
    let upstream = upstream.to_owned();
    let pairs = || query.split(|&byte| byte == b'&');
    let server = pairs().find_map(|pair| pair.strip_prefix(b"server="))?;
    let server = String::from_utf8(decode(server).into_owned()).ok().filter(|server| !server.is_empty())?;
    match what {
        "drain" => {
            let all = pairs().any(|pair| pair == b"all");
            Some(UpstreamRequest::Drain(Drained { upstream, server, all }))
        }
        "undrain" => Some(UpstreamRequest::Undrain { upstream, server }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(target: &str) -> String {
        match asked(target.as_bytes()) {
            None => "-".to_owned(),
            Some(UpstreamRequest::Undrain { upstream, server }) => format!("undrain {upstream} {server}"),
            Some(UpstreamRequest::Drain(Drained { upstream, server, all })) => {
                format!("drain {upstream} {server}{}", if all { " all" } else { "" })
            }
        }
    }

    #[test]
    fn targets() {
        for (target, expected) in [
            ("/upstreams/api/drain?server=10.0.0.1:8000", "drain api 10.0.0.1:8000"),
            ("/upstreams/api/drain?all&server=http://a:80", "drain api http://a:80 all"),
            ("/upstreams/api/undrain?server=unix%3A/run/a%20b", "undrain api unix:/run/a b"),
            ("/upstreams/api/drain", "-"),
            ("/upstreams/api/drain?server=", "-"),
            ("/upstreams/api/drain?server=%ff", "-"),
            ("/upstreams/api/stop?server=a", "-"),
            ("/upstreams/drain?server=a", "-"),
            ("/upstreams?server=a", "-"),
        ] {
            assert_eq!(show(target), expected, "{target}");
        }
    }
}
