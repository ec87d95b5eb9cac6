//! `forward_auth`: who is asked whether a request may pass. How it is written, and what holds between it and the rest.

use super::Route;
use super::condition::is_field_name;
use super::edit::FRAMING;
use crate::address::BindAddress;
use crate::load::Loaded;
use crate::pool::DEFAULT_POOL;
use crate::problem::{Place, Problem, nearest};
use crate::raw::Fault;
use crate::upstream::ServerAddress;

/// As the description of the key says it.
const FORM: &str = "\"/auth/check\" asks the app, \"NAME /auth/check\" an upstream or a pool of that name";

/// Whom a route asks, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuth {
    /// An upstream, or a pool of workers; `None`: the pool whose `match` takes the path.
    pub whom: Option<String>,
    /// Path and query, as they are sent.
    pub target: String,
}

impl ForwardAuth {
    /// `/path`, or `NAME /path`.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let fault = || Fault::new(format!("\"{text}\" says not whom to ask for what")).hint(FORM);
        let (whom, target) = match text.split_once(' ') {
            Some((whom, target)) => (Some(whom), target.trim_start()),
            None => (None, text),
        };
        let good = target.starts_with('/')
            && !target.starts_with("//")
            && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
            && whom.is_none_or(|name| !name.is_empty());
        if !good {
            let fault = fault();
            let url = text.starts_with("http://") || text.starts_with("https://");
            return Err(if url {
                fault.hint("write its server into an [[upstream]] and name that")
            } else {
                fault
            });
        }
        Ok(Self { whom: whom.map(str::to_owned), target: target.to_owned() })
    }
}

pub(super) fn check_forward_auth(text: &str) -> Result<(), Fault> {
    ForwardAuth::parse(text).map(drop)
}

/// The name of a field that goes from the answer onto the request.
pub(super) fn check_copied(name: &str) -> Result<(), Fault> {
    let fault = || Fault::new(format!("\"{name}\" cannot be taken over"));
    if !is_field_name(name) {
        return Err(fault().hint("the name of a header field, for example X-User"));
    }
    let lower = name.to_ascii_lowercase();
    let written_here =
        matches!(lower.as_str(), "host" | "x-request-id" | "proxy" | "forwarded" | "x-real-ip")
            || FRAMING.contains(&lower.as_str())
            || lower.starts_with("x-forwarded-")
            || lower.starts_with("sec-websocket-");
    if written_here {
        return Err(fault().hint("quintet writes this field as it must be"));
    }
    if lower == "set-cookie" {
        return Err(fault().hint("the cookies of an answer that lets pass go to the client by themselves"));
    }
    // Two names that differ in `-` and `_` are one variable of the environ; so the worker does not take the latter.
    if name.contains('_') {
        return Err(fault().hint(format!("with dashes: {}", name.replace('_', "-"))));
    }
    Ok(())
}

/// What holds between the keys, upstreams and pools.
pub(super) fn together(
    route: &Route,
    loaded: &Loaded,
    place: impl Fn(&str) -> Option<Place>,
    problems: &mut Vec<Problem>,
) {
    let Some(text) = &route.forward_auth else {
        let idle = [
            ("forward_auth_headers", !route.forward_auth_headers.is_empty()),
            ("forward_auth_timeout", route.forward_auth_timeout.is_some()),
        ];
        for (key, _) in idle.into_iter().filter(|(_, there)| *there) {
            let problem = Problem::new(format!("route.{key}: nobody is asked"))
                .hint("it goes with forward_auth, or leave it away");
            problems.push(problem.at(place(key)));
        }
        return;
    };
    // What is wrong with the text itself has been told.
    let Ok(ForwardAuth { whom: Some(whom), .. }) = ForwardAuth::parse(text) else { return };
    let upstreams = || loaded.config.upstream.iter().map(|upstream| upstream.name.as_str());
    let named: Vec<_> = loaded.config.pools().map(|pool| pool.name.clone()).collect();
    let pools = || named.iter().map(String::as_str).chain([DEFAULT_POOL]);
    let (is_upstream, is_pool) = (upstreams().any(|name| name == whom), pools().any(|name| name == whom));
    let problem = match (is_upstream, is_pool) {
        (true, true) => Problem::new(format!("route.forward_auth: \"{whom}\" is an upstream and a pool"))
            .hint("give one of them another name"),
        (false, false) => {
            let problem =
                Problem::new(format!("route.forward_auth: there is no upstream or pool \"{whom}\""));
            match nearest(&whom, upstreams().chain(pools())) {
                Some(near) => problem.hint(format!("did you mean \"{near}\"?")),
                None => {
                    problem.hint(format!("write a table [[upstream]] with name = \"{whom}\" and its servers"))
                }
            }
        }
        (true, false) if comes_back(loaded, &whom) => {
            Problem::new(format!("route.forward_auth: the upstream \"{whom}\" is this instance itself"))
                .detail("each question would come in as a request that is asked about again")
                .hint("to let the app of this site decide, write the path alone: it is asked directly")
        }
        _ => return,
    };
    problems.push(problem.at(place("forward_auth")));
}

/// Is one of its servers an address that we listen on?
fn comes_back(loaded: &Loaded, upstream: &str) -> bool {
    let servers =
        loaded.config.upstream.iter().filter(|own| own.name == upstream).flat_map(|own| &own.servers);
    let is_ours = |server: &ServerAddress| {
        loaded.config.server.bind.iter().any(|bind| match (bind, server) {
            (BindAddress::Tcp { host, port }, ServerAddress::Tcp { host: to, port: to_port, .. }) => {
                port == to_port && (host == to || (is_local(host) && is_local(to)))
            }
            (BindAddress::Unix(path), ServerAddress::Unix(to)) => path == to,
            _ => false,
        })
    };
    servers.filter_map(|text| ServerAddress::weighted(text).ok()).any(|(server, _)| is_ours(&server))
}

/// This machine, under whichever name.
fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || host.is_empty() || address.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{loaded, wrong};

    #[test]
    fn forms() {
        let parse = |text| ForwardAuth::parse(text).ok().map(|auth| (auth.whom, auth.target));
        assert_eq!(parse("/auth/check/?level=2"), Some((None, "/auth/check/?level=2".into())));
        assert_eq!(parse("sso /verify"), Some((Some("sso".into()), "/verify".into())));
        for bad in ["", "sso", "sso verify", " /a", "//a", "/a b", "/a#b", "/ä", "https://sso.example.org/"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
        for bad in ["X User", "Host", "X-Forwarded-For", "Connection", "X_User", "Set-Cookie", "Proxy", ""] {
            assert!(check_copied(bad).is_err(), "{bad}");
        }
        for good in ["X-User", "Remote-User", "Authorization"] {
            assert_eq!(check_copied(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_is_wrong_is_explained() {
        let problems = wrong(
            r#"
[[route]]
path = "/a"
forward_auth = "https://sso.example.org/check"
forward_auth_headers = ["Host", "X_User"]
"#,
        );
        insta::assert_snapshot!(problems);
        let problems = wrong(
            r#"
[server]
bind = ["0.0.0.0:8000", "unix:/run/shop.sock"]

[[worker_pool]]
name = "both"
match = "/x"

[[upstream]]
name = "both"
servers = ["10.0.0.1:80"]

[[upstream]]
name = "itself"
servers = ["localhost:8000"]

[[upstream]]
name = "itself_too"
servers = ["unix:/run/shop.sock"]

[[route]]
path = "/b"
forward_auth_headers = "X-User"
forward_auth_timeout = "1s"

[[route]]
path = "/c"
forward_auth = "both /check"

[[route]]
path = "/d"
forward_auth = "itsel /check"

[[route]]
path = "/e"
forward_auth = "itself /check"

[[route]]
path = "/f"
forward_auth = "itself_too /check"
"#,
        );
        insta::assert_snapshot!(problems);
    }

    #[test]
    fn an_upstream_a_pool_or_the_app() {
        let loaded = loaded(
            r#"
[[upstream]]
name = "sso"
servers = ["127.0.0.1:9000"]

[[route]]
path = "/a"
forward_auth = "sso /check"
forward_auth_headers = ["X-User", "X-Groups"]
forward_auth_timeout = "2s"

[[route]]
path = "/b"
forward_auth = "default /check"

[[route]]
path = "/c"
forward_auth = "/check"
"#,
        );
        let [first, ..] = loaded.config.route.as_slice() else { panic!("{:?}", loaded.config.route) };
        assert_eq!(first.forward_auth_headers, ["X-User", "X-Groups"]);
    }
}
