//! The keys of active health checks: which values they may have, and that there is something to check.

use std::ops::RangeInclusive;

use super::{Upstream, check_host as check_host_name_and_port};
use crate::raw::Fault;

/// Longer paths are nobody's.
const PATH_BYTES_MAX: usize = 1024;

/// What a server that is well answers, where nothing else is said: as nginx, `HAProxy` and Traefik hold it.
const WELL: RangeInclusive<u16> = 200..=399;

/// An item of `health_status`.
fn statuses(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| match text.as_bytes() {
        [b'1'..=b'9', ..] => text.parse().ok().filter(|status| (200..=599).contains(status)),
        _ => None,
    };
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some(first..=last)
}

impl Upstream {
    /// Answers of a server that is well.
    pub fn healthy_statuses(&self) -> Vec<RangeInclusive<u16>> {
        let own: Vec<_> = self.health_status.iter().filter_map(|text| statuses(text)).collect();
        if own.is_empty() { vec![WELL] } else { own }
    }
}

pub(super) fn check_path(text: &str) -> Result<(), Fault> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if text.starts_with('/') && text.len() <= PATH_BYTES_MAX && text.bytes().all(plain) {
        return Ok(());
    }
    Err(Fault::new(format!("\"{text}\" is not a path")).hint("it begins with /, for example /readyz"))
}

pub(super) fn check_status(text: &str) -> Result<(), Fault> {
    match statuses(text) {
        Some(_) => Ok(()),
        None => Err(Fault::new(format!("\"{text}\" is no status of a final answer"))
            .hint("from 200 to 599, or a range as \"200-299\"")),
    }
}

pub(super) fn check_host(text: &str) -> Result<(), Fault> {
    check_host_name_and_port(text).map_err(|fault| fault.hint("a name such as shop.example.org"))
}

/// Without a path nothing is checked, and what is said of checks would be wrong.
pub(super) fn together(upstream: &Upstream, wrong: &mut impl FnMut(&str, String, String)) {
    if upstream.health_path.is_some() {
        return;
    }
    let usual = Upstream::default();
    let said = [
        ("health_interval", upstream.health_interval != usual.health_interval),
        ("health_timeout", upstream.health_timeout != usual.health_timeout),
        ("health_rise", upstream.health_rise != usual.health_rise),
        ("health_fall", upstream.health_fall != usual.health_fall),
        ("health_status", !upstream.health_status.is_empty()),
        ("health_host", upstream.health_host.is_some()),
    ];
    for (key, _) in said.into_iter().filter(|(_, said)| *said) {
        let hint = "health_path says what is asked for, for example \"/readyz\"".to_owned();
        wrong(key, format!("upstream.{key}: nothing is checked"), hint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_or_a_range() {
        for (text, expected) in [
            ("200", Some(200..=200)),
            ("200-299", Some(200..=299)),
            ("500-599", Some(500..=599)),
            ("", None),
            ("2xx", None),
            ("101", None),
            ("600", None),
            ("299-200", None),
            ("200-", None),
            ("+200", None),
            ("200 - 299", None),
        ] {
            assert_eq!(statuses(text), expected, "{text}");
            assert_eq!(check_status(text).is_ok(), expected.is_some(), "{text}");
        }
        assert_eq!(Upstream::default().healthy_statuses(), [200..=399]);
        let own = Upstream { health_status: vec!["204".into(), "300-301".into()], ..Upstream::default() };
        assert_eq!(own.healthy_statuses(), [204..=204, 300..=301]);
    }

    #[test]
    fn paths_and_hosts() {
        for (path, good) in [("/", true), ("/a?b=c", true), ("a", false), ("/a b", false), ("/\r\n", false)] {
            assert_eq!(check_path(path).is_ok(), good, "{path}");
        }
        for (host, good) in [("a.test", true), ("a.test:81", true), ("a b", false), ("", false)] {
            assert_eq!(check_host(host).is_ok(), good, "{host}");
        }
    }
}
