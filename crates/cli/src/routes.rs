//! `quintet routes`: the table of routes, and which of them takes a request and why those before it do not.

mod asked;

use std::fmt::Write as _;

use clap::ArgMatches;
use ctl_config::pool::DEFAULT_POOL;
use ctl_config::reference::toml_text;
use ctl_config::tables::key_of;
use ctl_config::{Config, Loaded, Origin, Record as _, Route, Style, TABLES};
use http_gateway::route::forward_auth::{ForwardAuth, Whom};
use http_gateway::route::{Choice, Routes, Unmet, Verdict, Way};
use serde_json::{Map, Value as Json, json};

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::setup::Request;
use crate::{print, print_json};
use asked::Question;

/// The keys that say which requests a route takes.
const CONDITIONS: [&str; 4] = ["host", "path", "method", "header"];

/// What a route without an action does, and what happens to requests that no route takes.
const SITE: &str = "files and app, as without routes";

/// The command.
pub(crate) fn run(matches: &ArgMatches) -> Result<Exit> {
    let question = Question::from_matches(matches)?;
    let loaded = Request::from_matches(matches)?.load()?;
    let routes = Routes::new(&loaded.config).map_err(|text| Failure::new(Exit::Usage, text))?;
    let json = matches.get_flag("json");
    let Some(question) = question else {
        return if json { print_json(&table_json(&loaded)) } else { print(&table(&loaded, Style::COLOUR)) };
    };
    let answer = Answer::new(&question, routes.as_ref(), &loaded.config);
    if json {
        let mut object = table_json(&loaded);
        object["request"] = question.json();
        object["answer"] = answer.json();
        return print_json(&object);
    }
    print(&answer.text(&question, &loaded, Style::COLOUR))
}

/// The route's keys that are set: name, value in TOML.
fn set_keys(loaded: &Loaded, index: usize) -> Vec<(&'static str, Json)> {
    Route::KEYS
        .iter()
        .filter(|key| *loaded.origin(&key_of(Route::TABLE, index, key.name)) != Origin::Default)
        .map(|key| (key.name, key.json(&loaded.config, index)))
        .collect()
}

/// A list as words, one alone without brackets.
fn words(value: &Json) -> String {
    match value {
        Json::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(" or "),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn conditions(loaded: &Loaded, index: usize) -> String {
    let keys = set_keys(loaded, index);
    let one = |name: &str| {
        let (_, value) = keys.iter().find(|(key, _)| *key == name)?;
        let value = if name == "header" { words(value).replace(" or ", " and ") } else { words(value) };
        Some(format!("{name} {value}"))
    };
    let all: Vec<_> = CONDITIONS.iter().filter_map(|name| one(name)).collect();
    if all.is_empty() { "every request".to_owned() } else { all.join(", ") }
}

fn does(loaded: &Loaded, index: usize) -> String {
    let keys = set_keys(loaded, index).into_iter();
    let rest: Vec<_> = keys
        .filter(|(name, _)| *name != "name" && !CONDITIONS.contains(name))
        .map(|(name, value)| format!("{name} = {}", toml_text(&value)))
        .collect();
    if rest.is_empty() { SITE.to_owned() } else { rest.join(", ") }
}

fn place(loaded: &Loaded, index: usize) -> String {
    loaded.begins(Route::TABLE, index).unwrap_or_default()
}

fn table(loaded: &Loaded, style: Style) -> String {
    let Style { hint, quiet, reset, .. } = style;
    if loaded.config.route.is_empty() {
        return format!(
            "There are no routes: every request goes to {SITE}.\n{hint}hint{reset}: a route is a table [[route]] in quintet.toml; see the guide to routes\n"
        );
    }
    let mut text = String::from("The first route that matches takes a request.\n\n");
    let width = labels(&loaded.config).map(|label| label.len()).max().unwrap_or(0);
    for (index, label) in labels(&loaded.config).enumerate() {
        let place = place(loaded, index);
        let _ = writeln!(
            text,
            "{hint}{label:<width$}{reset}  {}  {quiet}{place}{reset}",
            conditions(loaded, index)
        );
        let _ = writeln!(text, "{:width$}    {}", "", does(loaded, index));
    }
    let _ = writeln!(text, "{:width$}  what none of them takes\n{:width$}    {SITE}", "", "");
    let _ = writeln!(
        text,
        "\n`quintet routes URL` tells which route takes a URL, and why those before it do not."
    );
    text
}

fn labels(config: &Config) -> impl Iterator<Item = String> {
    config.route.iter().enumerate().map(|(index, route)| route.label(index))
}

fn table_json(loaded: &Loaded) -> Json {
    let keys = TABLES.iter().find(|table| table.name == Route::TABLE).map_or(&[][..], |table| table.keys);
    let one = |index: usize| -> Json {
        let mut object: Map<String, Json> =
            keys.iter().map(|key| (key.name.to_owned(), key.json(&loaded.config, index))).collect();
        object.insert("label".to_owned(), loaded.config.route[index].label(index).into());
        object.insert("from".to_owned(), place(loaded, index).into());
        object.into()
    };
    json!({ "routes": (0..loaded.config.route.len()).map(one).collect::<Vec<_>>() })
}

/// What becomes of the request.
struct Answer {
    verdicts: Vec<(String, String)>,
    taken_by: Option<usize>,
    doubtful: bool,
    outcome: Vec<String>,
}

impl Answer {
    fn new(question: &Question, routes: Option<&Routes>, config: &Config) -> Self {
        let asked = question.asked();
        let mut answer = Self { verdicts: Vec::new(), taken_by: None, doubtful: false, outcome: Vec::new() };
        let Some(routes) = routes else {
            answer.outcome = vec![format!("It goes to {SITE}"), pool_of(question, config)];
            return answer;
        };
        for ((index, verdict), label) in routes.explain(&asked).into_iter().enumerate().zip(labels(config)) {
            let why = match verdict {
                Verdict::Takes if answer.taken_by.is_none() => {
                    answer.taken_by = Some(index);
                    "takes it".to_owned()
                }
                Verdict::Takes => "would take it, but is not asked".to_owned(),
                Verdict::Unmet(unmet) => question.why_not(unmet, &config.route[index]),
                Verdict::OtherReading => {
                    "does not take it as it stands, but would if its path were read as other programs read it"
                        .to_owned()
                }
            };
            answer.verdicts.push((label, why));
        }
        match routes.choose(&asked) {
            Choice::Doubtful => {
                answer.doubtful = true;
                answer.taken_by = None;
                answer.outcome = vec![
                    "It is refused with 400".to_owned(),
                    "read in another way (\"//\", \"..\", \"%2F\", \";\", \"\\\"), its path leads to another route".to_owned(),
                ];
            }
            Choice::Nobody => answer.outcome = vec![format!("It goes to {SITE}"), pool_of(question, config)],
            Choice::Route(route) => {
                let own = answer.taken_by.and_then(|index| config.route.get(index));
                answer.outcome = question.follow(|comes| {
                    if let Some(elsewhere) = route.to_https(comes) {
                        return outcome(Way::Answer(elsewhere), config);
                    }
                    let mut lines = outcome(route.way(comes), config);
                    lines.extend(route.forward_auth().map(|auth| may_it(auth, config)));
                    lines.extend(own.into_iter().flat_map(|own| sent_twice(own, &question.method())));
                    lines
                });
            }
        }
        answer
    }

    fn text(&self, question: &Question, loaded: &Loaded, style: Style) -> String {
        let Style { hint, quiet, reset, strong } = style;
        let mut text = format!("{}\n\n", question.line());
        let width = self.verdicts.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        // Those behind the one that takes it are not asked.
        let asked = self.taken_by.map_or(self.verdicts.len(), |taken| taken + 1);
        for (index, (label, why)) in self.verdicts.iter().enumerate().take(asked) {
            if self.taken_by == Some(index) {
                let place = place(loaded, index);
                let _ = writeln!(text, "  {hint}{label:<width$}  {why}{reset}  {quiet}{place}{reset}");
            } else {
                let _ = writeln!(text, "  {quiet}{label:<width$}  {why}{reset}");
            }
        }
        if !self.verdicts.is_empty() {
            text.push('\n');
        }
        let colour = if self.doubtful { strong } else { "" };
        let [first, rest @ ..] = self.outcome.as_slice() else { return text };
        let _ = writeln!(text, "{colour}{first}{reset}");
        for line in rest.iter().filter(|line| !line.is_empty()) {
            let _ = writeln!(text, "  {line}");
        }
        text
    }

    fn json(&self) -> Json {
        let verdicts: Vec<_> =
            self.verdicts.iter().map(|(label, why)| json!({ "route": label, "verdict": why })).collect();
        let taken_by = self.taken_by.and_then(|index| self.verdicts.get(index)).map(|(label, _)| label);
        json!({ "taken_by": taken_by, "refused": self.doubtful, "verdicts": verdicts, "outcome": self.outcome })
    }
}

/// Who decides whether it does.
fn may_it(auth: &ForwardAuth, config: &Config) -> String {
    let asked = String::from_utf8_lossy(auth.target());
    let pool = |number: &u16| match number.checked_sub(1) {
        None => Some(DEFAULT_POOL.to_owned()),
        Some(index) => config.pools().nth(usize::from(index)).map(|pool| pool.name.clone()),
    };
    let whom = match &auth.whom {
        Whom::App(None) => "the app".to_owned(),
        Whom::App(Some(number)) => format!("the pool {}", pool(number).unwrap_or_default()),
        Whom::Upstream(name) => format!("the upstream {name}"),
    };
    format!("if {whom} lets it pass, asked for {asked}")
}

/// What becomes of it while another is under way, and when it comes again.
fn sent_twice(route: &Route, method: &str) -> Vec<String> {
    let whose = route.single_flight_by.join(" and ");
    let alone = route.single_flight.iter().map(|how| format!("single flight by {whose}: {how}"));
    let keyed = route.idempotency.filter(|_| matches!(method, "POST" | "PATCH"));
    let keyed =
        keyed.map(|needs| format!("once for each Idempotency-Key of {whose}, which is {}", needs.word()));
    alone.chain(keyed).collect()
}

/// What a route makes of a request, in words.
fn outcome(way: Way<'_>, config: &Config) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match way {
        Way::Answer(response) => match response.headers.get("location") {
            Some(location) => {
                vec![format!("It is redirected with {} to {}", response.status, text(location))]
            }
            None => vec![format!("The route answers {} itself", response.status)],
        },
        Way::File(number, head) => {
            let dir = http_gateway::route::directories(config).nth(number);
            let dir = dir.map(|dir| dir.display().to_string()).unwrap_or_default();
            vec![format!("It goes to files: {} in {dir}", text(head.path()))]
        }
        Way::Upstream { name, head, .. } => {
            let upstream = config.upstream.iter().find(|upstream| upstream.name == name);
            let servers = upstream.map(|upstream| upstream.servers.join(" or ")).unwrap_or_default();
            let target = text(&head.target);
            vec![
                format!("It goes to the upstream {name}: {servers}"),
                format!("as {} {target}", text(head.method.as_bytes())),
            ]
        }
        Way::On { head, terms, app_only, .. } => {
            let mut lines =
                vec![if app_only { "It goes to the app".to_owned() } else { format!("It goes to {SITE}") }];
            lines.push(format!("as {} {}", text(head.method.as_bytes()), text(&head.target)));
            if let Some(mount) = terms.mount {
                lines.push(format!("with SCRIPT_NAME {mount}, where the path begins with it"));
            }
            lines.push(match terms.pool {
                Some(0) => format!("pool {DEFAULT_POOL}"),
                Some(number) => {
                    let pool = config.pools().nth(usize::from(number) - 1);
                    pool.map_or_else(String::new, |pool| match &pool.module {
                        Some(module) if *module == pool.name => format!("module {module}"),
                        Some(module) => format!("module {module}, pool {}", pool.name),
                        None => format!("pool {}", pool.name),
                    })
                }
                None => pool_of_path(head.path(), config),
            });
            lines
        }
    }
}

fn pool_of(question: &Question, config: &Config) -> String {
    question.follow(|comes| vec![pool_of_path(comes.head.path(), config)]).concat()
}

/// The pool whose `match` takes a path; worth a word only where there are several.
fn pool_of_path(path: &[u8], config: &Config) -> String {
    if config.worker_pool.is_empty() {
        return String::new();
    }
    let path = String::from_utf8_lossy(&asked::decoded(path)).into_owned();
    let pool = config.worker_pool.iter().find(|pool| pool.takes(&path));
    format!("pool {}", pool.map_or(DEFAULT_POOL, |pool| &pool.name))
}

impl Question {
    /// Why a condition of a route does not hold.
    fn why_not(&self, unmet: Unmet, route: &Route) -> String {
        match unmet {
            Unmet::Host if self.host().is_empty() => "not: the request names no host".to_owned(),
            Unmet::Host => format!("not: the host {} is not {}", self.host(), route.host.join(" or ")),
            Unmet::Path => format!("not: the path {} is not {}", self.path(), route.path.join(" or ")),
            Unmet::Method => {
                format!("not: the method {} is not {}", self.method(), route.method.join(" or "))
            }
            Unmet::Header(index) => {
                format!("not: there is no header {}", route.header.get(index).map_or("", String::as_str))
            }
        }
    }
}

#[cfg(test)]
mod tests;
