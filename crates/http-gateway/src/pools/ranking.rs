//! How important a request is, by what its head says. Pure; asked only when a request finds no slot free.
//!
//! Anybody can say that he is signed in: a made-up cookie lifts its sender among those who are, and a POST with one over those
//! who read; many made-up cookies are many users. So this sorts honest visitors, and keeps no attacker out: that is done
//! elsewhere. Here it is only decided who waits, and what somebody can win by a lie is what he would have had without an overload.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use super::pattern::{Pattern, decode};
use crate::cookie::{SessionCookies, first_cookie};
use crate::message::{Method, RequestHead};
use crate::queue::priority::{Class, Level};

/// Users change places in their class after this time, so that nobody is refused for ever.
const ROTATION: Duration = Duration::from_secs(3600);
/// Crawlers name themselves so; `bot` alone is in the names of telephones, too.
const BOTS: [&[u8]; 8] = [
    b"bot/",
    b"bot;",
    b"bot)",
    b"crawler",
    b"spider",
    b"slurp",
    b"facebookexternalhit",
    b"meta-externalagent",
];

/// The rules of the configuration and the app.
pub(super) struct Ranking {
    /// `queue.priority`: the first that matches decides.
    own: Box<[(Pattern, Class)]>,
    session_cookies: SessionCookies,
    hasher: RandomState,
    epoch: Instant,
}

impl Ranking {
    /// `own` is the setting, which has been checked.
    pub(super) fn new(own: &[String], now: Instant) -> Self {
        let rule = |rule: &String| {
            let (pattern, name) = rule.rsplit_once('=')?;
            Some((Pattern::new(pattern), class(name)?))
        };
        Self {
            own: own.iter().filter_map(rule).collect(),
            session_cookies: SessionCookies::default(),
            hasher: RandomState::new(),
            epoch: now,
        }
    }

    /// The name of a module's session cookie; an app without sessions has none.
    pub(super) fn set_session_cookie(&self, module: u16, name: Option<&str>) {
        self.session_cookies.set(module, name);
    }

    /// A request's level. `client` stands for a user who is not signed in; `given` is a class that is settled already.
    pub(super) fn level(
        &self,
        head: &RequestHead,
        client: &[u8],
        given: Option<Class>,
        now: Instant,
    ) -> Level {
        let names = self.session_cookies.names();
        let signed_in =
            head.headers.get("authorization").or_else(|| first_cookie(head.headers.get("cookie")?, &names));
        let own = || {
            let path = decode(head.path());
            self.own.iter().find(|(pattern, _)| pattern.matches(&path)).map(|&(_, class)| class)
        };
        let class = given.or_else(own).unwrap_or_else(|| usual(head, signed_in.is_some()));
        let hours = now.saturating_duration_since(self.epoch).as_secs() / ROTATION.as_secs();
        Level::new(class, self.hasher.hash_one((hours, signed_in.unwrap_or(client))))
    }
}

/// The class of a name in `queue.priority`.
fn class(name: &str) -> Option<Class> {
    Some(match name {
        "critical" => Class::Critical,
        "high" => Class::High,
        "normal" => Class::Normal,
        "low" => Class::Low,
        "lowest" => Class::Lowest,
        _ => return None,
    })
}

fn usual(head: &RequestHead, signed_in: bool) -> Class {
    let reads = matches!(head.method, Method::Get | Method::Head | Method::Options);
    match (signed_in, reads) {
        (true, false) => Class::High,
        (true, true) => Class::Normal,
        (false, _) if head.headers.get("user-agent").is_some_and(is_bot) => Class::Lowest,
        (false, _) => Class::Low,
    }
}

fn is_bot(agent: &[u8]) -> bool {
    let says = |word: &&[u8]| agent.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word));
    BOTS.iter().any(says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Headers, Version};

    fn head(method: &str, target: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        let (method, target) = (Method::from_bytes(method.as_bytes()), target.as_bytes().to_vec());
        RequestHead { method, target, version: Version::Http11, headers }
    }

    fn ranking() -> Ranking {
        let own = ["/checkout/*=critical", "/feed/*=lowest"].map(str::to_owned);
        Ranking::new(&own, Instant::now())
    }

    #[test]
    fn classes() {
        #[track_caller]
        fn check(method: &str, target: &str, fields: &[(&str, &str)], class: Class) {
            let level = ranking().level(&head(method, target, fields), b"192.0.2.1", None, Instant::now());
            assert_eq!(level.class(), class, "{method} {target} {fields:?}");
        }
        let session = ("cookie", "theme=dark; sessionid=abc");
        let bot = ("user-agent", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)");
        check("GET", "/", &[], Class::Low);
        check("POST", "/login", &[], Class::Low);
        check("GET", "/", &[session], Class::Normal);
        check("HEAD", "/", &[session], Class::Normal);
        check("POST", "/", &[session], Class::High);
        check("DELETE", "/", &[("authorization", "Bearer x")], Class::High);
        check("GET", "/", &[("cookie", "sessionid=; xsessionid=1; sessionidx=2")], Class::Low);
        check("GET", "/", &[bot], Class::Lowest);
        check("GET", "/", &[bot, session], Class::Normal);
        check(
            "GET",
            "/",
            &[("user-agent", "Mozilla/5.0 (Linux; Android 9; CUBOT X19) Chrome/119")],
            Class::Low,
        );
        check("GET", "/checkout/1?x=1", &[bot], Class::Critical);
        check("GET", "/%66eed/", &[session], Class::Lowest);
    }

    #[test]
    fn a_user_keeps_his_place_for_an_hour() {
        let ranking = ranking();
        let (now, hour) = (ranking.epoch, Duration::from_secs(3600));
        let at = |user: &str, now| {
            let fields = [("cookie", &*format!("sessionid={user}"))];
            ranking.level(&head("GET", "/", &fields), b"192.0.2.1", None, now)
        };
        let users: Vec<String> = (0..200).map(|user| user.to_string()).collect();
        let places = |now| users.iter().map(|user| at(user, now)).collect::<Vec<_>>();
        assert_eq!(places(now), places(now + hour / 2));
        let moved = places(now).iter().zip(places(now + hour)).filter(|(a, b)| *a != b).count();
        assert!(moved > 150, "{moved}");
        let mut distinct = places(now);
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 80, "they are spread: {}", distinct.len());
    }

    #[test]
    fn the_cookie_has_the_name_that_the_app_gave_it() {
        let ranking = ranking();
        ranking.set_session_cookie(0, Some("shop_session"));
        let class = |cookie| {
            ranking.level(&head("GET", "/", &[("cookie", cookie)]), b"", None, Instant::now()).class()
        };
        assert_eq!((class("shop_session=1"), class("sessionid=1")), (Class::Normal, Class::Low));
    }
}
