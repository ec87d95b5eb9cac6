//! `[[limit]]`: how often clients may ask. The table of keys, and what holds between them.

use std::time::Duration;

use crate::choice::choice;
use crate::define::record;
use crate::duration::parse_duration;
use crate::load::Loaded;
use crate::pool::{check_pattern, name_of};
use crate::problem::Problem;
use crate::raw::Fault;
use crate::tables::{self, Given, Record as _, Required, Rules, holds_for_all};

/// Each limit is looked at with every request, and has a table of its own.
const LIMITS_MAX: usize = 64;

/// A request that waits for its turn holds a connection; visitors give up earlier than that.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// More in one period is no limit.
const COUNT_MAX: u64 = 1_000_000_000;

/// Longer periods want a database, not a counter.
const PERIOD_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

choice! {
    /// What happens to a request beyond the rate.
    LimitAction {
        /// Up to `burst` requests go on at once; what is more is answered 429.
        Reject = "reject",
        /// Up to `burst` requests wait until it is their turn at the rate; what is more is answered 429.
        Delay = "delay",
    }
}

record! {
    /// How often a client may ask: one request too many is answered 429 with `Retry-After` and the fields `RateLimit` and
    /// `RateLimit-Policy`. The table may be there several times; a request must fit into every limit that holds for it, and
    /// one that is refused counts for none. See docs/guides/limits.md.
    [[limit]] Limit {
        /// Its name in the fields of answers: letters, digits, `-` and `_`.
        name: String = String::new(),
            otherwise("made from the first path: \"login\" for /login/"), example("\"login\""),
            checked(check_name);
        /// For which paths it holds: `/login/` that path only, `/api/*` all below, `*` in the middle any text. The path
        /// counts as the client sent it after percent-decoding, without the query.
        path: Vec<String> = Vec::new(),
            otherwise("every path, files too"), example("[\"/login/\", \"/api/*\"]"), checked(check_pattern);
        /// For which methods it holds; `GET` stands for HEAD as well.
        method: Vec<String> = Vec::new(),
            otherwise("every method"), example("[\"POST\"]"), checked(check_method);
        /// For whom is counted: `address` (IPv4, or the /64 of IPv6), `user` (who sends the same session cookie or
        /// Authorization), `header:NAME` (the same value of a header, as an API key), `path`, `route` (all who come to the same
        /// `[[route]]` together); of several, each combination. Who sends no cookie, or not the header, is counted by address.
        /// An empty list counts all requests together.
        by: Vec<String> = vec!["address".to_owned()],
            example("[\"header:X-Api-Key\", \"path\"]"), checked(check_by);
        /// How many requests in which time: a number, `/`, and s, m, h, d or a time as 10s.
        rate: String = String::new(),
            otherwise("must be set"), example("\"10/s\""), checked(check_rate);
        /// How many of them may come at once.
        burst: Option<u32> = None,
            otherwise("as many as the rate names: 10 for 10/s"),
            between("1", "1000000", "more at once is no limit");
        /// What happens to a request beyond the rate.
        action: LimitAction = LimitAction::Reject;
        /// Every answer tells how many requests are left, in the field `RateLimit`, not only the refusals.
        announce: bool = false;
        /// Clients that are remembered at one time; 16 bytes each, when there are so many.
        keys_max: u32 = 262_144,
            between("512", "67108864", "that is a gigabyte of memory");
    }
}

impl Limit {
    /// Requests, and the time in which they may come.
    pub fn per(&self) -> (u64, Duration) {
        // The rate was checked when it was read.
        parse_rate(&self.rate).unwrap_or((1, Duration::from_secs(1)))
    }

    /// How many may come at once.
    pub fn burst(&self) -> u64 {
        self.burst.map_or_else(|| self.per().0, u64::from)
    }
}

/// `10/s`, `100/m`, `30/10s`: requests, and the time in which they may come.
pub fn parse_rate(text: &str) -> Option<(u64, Duration)> {
    let (count, period) = text.split_once('/')?;
    let period = match period.trim() {
        unit @ ("s" | "m" | "h" | "d") => parse_duration(&format!("1{unit}"))?,
        time if time.ends_with(|c: char| c.is_ascii_alphabetic()) => parse_duration(time)?,
        _ => return None,
    };
    let count = count.trim().parse().ok()?;
    let possible =
        (1..=COUNT_MAX).contains(&count) && (Duration::from_secs(1)..=PERIOD_MAX).contains(&period);
    possible.then_some((count, period))
}

impl Rules for Limit {
    const COUNT_MAX: (usize, &'static str) =
        (LIMITS_MAX, "each is looked at with every request; one limit may have several paths");
    const REQUIRED: &'static [Required] =
        &[Required { key: "rate", question: "how many requests in which time?", example: "\"10/s\"" }];

    fn complete(&mut self, given: &Given) {
        if !given.contains("name") {
            self.name = name_of(self.path.first().map_or("", String::as_str));
        }
    }

    fn together(loaded: &Loaded, problems: &mut Vec<Problem>) {
        let limits = &loaded.config.limit;
        for (index, limit) in limits.iter().enumerate() {
            let place = |key: &str| loaded.place_in(Self::TABLE, index, key);
            if limits[..index].iter().any(|other| other.name == limit.name) {
                let problem = Problem::new(format!("limit.name: there are two limits \"{}\"", limit.name))
                    .hint("clients tell them apart by their names: give one of them another name = \"…\"");
                problems.push(problem.at(place("name")));
            }
            let (count, period) = limit.per();
            let longest = period.mul_f64(limit.burst().saturating_sub(1) as f64 / count as f64);
            if limit.action == LimitAction::Delay && longest > DELAY_MAX {
                let problem = Problem::new(format!(
                    "limit.burst: the last of {} requests would wait {} s at {}",
                    limit.burst(),
                    longest.as_secs(),
                    limit.rate
                ))
                .hint(format!(
                    "with action = \"delay\" nobody waits longer than {} s: a smaller burst",
                    DELAY_MAX.as_secs()
                ));
                problems.push(problem.at(place("burst")));
            }
            let is_named = || loaded.config.route.iter().any(|route| route.limit.contains(&limit.name));
            if limit.by.iter().any(|by| by == "route") && !is_named() {
                let problem = Problem::new(format!("limit.by: no route names the limit \"{}\"", limit.name))
                    .detail("what counts by route holds for the routes that name it, and for nothing else")
                    .hint(format!("limit = [\"{}\"] in a [[route]]", limit.name));
                problems.push(problem.at(place("by")));
            }
        }
    }

    fn wanted(name: &str) -> Option<String> {
        match name {
            "match" | "paths" | "uri" => Some("which paths it holds for is said by \"path\"".to_owned()),
            "key" | "zone" | "per" => Some("for whom is counted is said by \"by\"".to_owned()),
            _ => holds_for_all(name, &["limits"], "requests"),
        }
    }
}

fn check_name(text: &str) -> Result<(), Fault> {
    tables::check_name(text, "a limit", "login")
}

fn check_method(text: &str) -> Result<(), Fault> {
    // Methods are case-sensitive (RFC 9110, 9.1), and all that are in use are written large.
    if !text.is_empty()
        && text.len() <= 32
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
    {
        return Ok(());
    }
    Err(Fault::new(format!("\"{text}\" is not a method")).hint("for example POST"))
}

pub(crate) fn check_by(text: &str) -> Result<(), Fault> {
    let is_token = |name: &str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !name.is_empty() && name.len() <= 256 && name.bytes().all(letter)
    };
    match text {
        "address" | "user" | "path" | "route" => Ok(()),
        _ if text.strip_prefix("header:").is_some_and(is_token) => Ok(()),
        _ => Err(Fault::new(format!("\"{text}\" is nothing to count by"))
            .hint("address, user, path, route, or header:NAME as header:X-Api-Key")),
    }
}

fn check_rate(text: &str) -> Result<(), Fault> {
    match parse_rate(text) {
        Some(_) => Ok(()),
        None => Err(Fault::new(format!("\"{text}\" is not a rate"))
            .hint("requests and the time for them: 10/s, 100/m, 1000/h, 5000/d, 30/10s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;
    use crate::testing::{loaded, sources, wrong};

    #[test]
    fn rates() {
        #[track_caller]
        fn check(text: &str, count: u64, seconds: u64) {
            assert_eq!(parse_rate(text), Some((count, Duration::from_secs(seconds))), "{text}");
        }
        check("10/s", 10, 1);
        check("100 / m", 100, 60);
        check("1000/h", 1000, 3600);
        check("5/d", 5, 86_400);
        check("30/10s", 30, 10);
        check("1/1h30m", 1, 5400);
        for text in
            ["", "10", "10/", "/s", "0/s", "-1/s", "10/0s", "10/500ms", "10/10", "1.5/s", "10/w", "1/400d"]
        {
            assert_eq!(parse_rate(text), None, "{text}");
        }
    }

    #[test]
    fn limits_of_a_file() {
        let text = "[[limit]]\nrate = \"100/m\"\n[[limit]]\npath = [\"/accounts/login/\"]\nmethod = [\"POST\"]\n\
                    by = [\"user\", \"header:X-Api-Key\"]\nrate = \"5/m\"\nburst = 2\naction = \"delay\"\n";
        let loaded = loaded(text);
        let [all, login] = loaded.config.limit.as_slice() else { panic!("{:?}", loaded.config.limit) };
        assert_eq!(
            (all.name.as_str(), all.burst(), all.by.as_slice()),
            ("all", 100, &["address".to_owned()][..])
        );
        assert_eq!((login.name.as_str(), login.burst()), ("accounts-login", 2));
        assert_eq!(login.action, LimitAction::Delay);
    }

    #[test]
    fn a_route_names_limits_that_are_there() {
        let text =
            "[[limit]]\nname = \"api\"\nrate = \"1/s\"\n[[route]]\npath = \"/api/*\"\nlimit = [\"api\"]\n";
        assert!(load(&sources(text)).is_ok());
        let problems = wrong(&text.replace("[\"api\"]", "[\"apis\"]"));
        insta::assert_snapshot!(problems, @r#"
        error: route.limit: there is no limit "apis"
          --> quintet.toml:6:9
           |
         6 | limit = ["apis"]
           |         ^^^^^^^^
        hint: did you mean "api"?
        "#);
    }

    #[test]
    fn who_counts_by_route_is_named_by_one() {
        let text = "[[limit]]\nname = \"api\"\nrate = \"1/s\"\nby = [\"address\", \"route\"]\n";
        let route = "[[route]]\npath = \"/api/*\"\nlimit = [\"api\"]\n";
        assert!(load(&sources(&format!("{text}{route}"))).is_ok());
        let problems = wrong(text);
        insta::assert_snapshot!(problems, @r#"
        error: limit.by: no route names the limit "api"
          --> quintet.toml:4:6
           |
         4 | by = ["address", "route"]
           |      ^^^^^^^^^^^^^^^^^^^^
        detail: what counts by route holds for the routes that name it, and for nothing else
        hint: limit = ["api"] in a [[route]]
        "#);
    }

    #[test]
    fn what_is_wrong_is_explained() {
        let text = "[[limit]]\nrate = \"often\"\nby = [\"ip\"]\nmethod = [\"post\"]\npath = [\"login\"]\n\
                    [[limit]]\nzone = 3\n[[limit]]\nname = \"all\"\nrate = \"1/m\"\nburst = 100\naction = \"delay\"\n";
        let problems = wrong(text);
        insta::assert_snapshot!(problems);
    }
}
