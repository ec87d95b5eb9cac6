//! `quintet check`: would this project run here, and run well? A list of findings, each with what to do about it.
//!
//! Starts nothing that stays, and changes nothing. Each finding is made by itself: one bad thing does not hide others,
//! but where the next step has nothing to stand on (no project, no Python).

mod app;
mod finding;
mod system;

use clap::ArgMatches;
use ctl_config::{Interface, Loaded, Style};
use serde_json::json;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::run::{self, Decided};
use crate::setup::Request;
use crate::{certificates, print, print_json};
use finding::{Finding, Level};

/// The command.
pub(crate) fn run(matches: &ArgMatches) -> Result<Exit> {
    let findings = all(&Request::from_matches(matches)?);
    let good = findings.iter().all(|finding| finding.level != Level::Fail);
    if matches.get_flag("json") {
        print_json(&json!({ "ok": good, "findings": findings }))?;
    } else {
        print(&finding::render(&findings, Style::COLOUR))?;
    }
    Ok(if good { Exit::Success } else { Exit::Failure })
}

fn all(request: &Request) -> Vec<Finding> {
    let mut findings = Vec::new();
    let loaded = match request.load() {
        Ok(loaded) => loaded,
        Err(failure) => return Finding::of_failure("config", &failure),
    };
    findings.push(configuration(&loaded));
    findings.extend(loaded.warnings.iter().map(|warning| Finding::of_problem(Level::Warn, warning)));
    findings.extend(tls(&loaded));
    findings.extend(system::findings(&loaded.config));
    match run::decide(loaded) {
        Ok(decided) => findings.extend(of_project(&decided)),
        Err(failure) => findings.extend(Finding::of_failure("project", &failure)),
    }
    findings
}

fn configuration(loaded: &Loaded) -> Finding {
    let changed = ctl_config::settings::all()
        .filter(|setting| {
            setting.key != "app.dir" && *loaded.origin(setting.key) != ctl_config::Origin::Default
        })
        .count();
    let file =
        loaded.file.as_ref().map_or_else(|| "no quintet.toml".into(), |path| path.display().to_string());
    let text = match changed {
        0 => format!("{file}; every setting has its default"),
        1 => format!("{file}; 1 setting is not the default"),
        _ => format!("{file}; {changed} settings are not the default"),
    };
    Finding::ok("config", text)
}

fn tls(loaded: &Loaded) -> Vec<Finding> {
    if let Err(failure) = certificates::usable(loaded) {
        return Finding::of_failure("tls", &failure);
    }
    let files = loaded.config.certificates();
    files.iter().map(|files| Finding::ok("tls", files.certificate.display().to_string())).collect()
}

fn of_project(decided: &Decided) -> Vec<Finding> {
    let Decided { project, python, sizing, loaded, runtime_dir, .. } = decided;
    let mut findings = Vec::new();
    let settings =
        project.settings.as_ref().map(|name| format!(", settings {name} from {}", project.settings_from));
    findings
        .push(Finding::ok("project", format!("{}{}", project.dir.display(), settings.unwrap_or_default())));
    let found = format!("{} {} ({})", python.version, python.path.display(), python.origin);
    findings.push(Finding::ok("python", found));
    findings
        .extend(python.passed_over.iter().map(|text| Finding::warn("python", format!("passed over {text}"))));
    let [workers_why, ..] = &sizing.reasons;
    // What the app is will be known when it has been imported; here goes what is asked for.
    let settings = &loaded.config.workers;
    let slots = match loaded.config.app.interface {
        Interface::Asgi => settings.concurrency,
        Interface::Wsgi | Interface::Auto => sizing.threads,
    };
    let each = if project.is_django() { slots } else { 0 };
    let text = sizing.workers_text(each, settings.db_connections_max);
    let workers = format!("{text}: {workers_why}");
    findings.push(if workers_why.contains("memory may become short") {
        Finding::warn("workers", workers).hint("fewer workers.count, or more memory")
    } else {
        Finding::ok("workers", workers)
    });
    findings.push(system::descriptors(&loaded.config, sizing));
    findings.push(system::supervisor(&loaded.config, runtime_dir));
    findings.extend(system::addresses(&loaded.config, runtime_dir));
    findings.extend(app::findings(decided));
    findings
}

impl Finding {
    /// A failure of a step: of the configuration, one finding for each thing that is wrong with it.
    fn of_failure(about: &str, failure: &Failure) -> Vec<Self> {
        match failure {
            Failure::One { message, detail, hint, .. } => {
                let text = match detail {
                    Some(detail) => format!("{message}\n{detail}"),
                    None => message.clone(),
                };
                vec![Self::fail(about, text).hint(hint.clone().unwrap_or_default())]
            }
            Failure::Config(problems) => {
                problems.0.iter().map(|problem| Self::of_problem(Level::Fail, problem)).collect()
            }
            Failure::Shown(_) => vec![Self::fail(about, "")],
        }
    }
}

#[cfg(test)]
mod tests {
    use ctl_config::{Sources, TextFile, load};

    use super::*;

    /// With four things wrong, in three kinds of places.
    fn findings() -> Vec<Finding> {
        let text =
            "[timeouts]\nqueue = \"soon\"\n\n[workers]\ncount = 0\ncuont = 3\n\n[proxy]\nprotocol = true\n";
        let file = Some(TextFile { path: "/srv/shop/quintet.toml".into(), text: text.into() });
        let environment = vec![("QUINTET_LOG_LEVEL".into(), "loud".into())];
        let sources = Sources { file, environment, working_dir: "/srv/shop".into(), ..Sources::default() };
        match load(&sources) {
            Ok(_) => panic!("it was accepted"),
            Err(problems) => Finding::of_failure("config", &problems.into()),
        }
    }

    #[test]
    fn every_problem_of_the_configuration_is_a_finding() {
        insta::assert_snapshot!("config_text", finding::render(&findings(), Style::default()));
        insta::assert_snapshot!("config_json", format!("{:#}", json!(findings())));
    }

    #[test]
    fn a_warning_says_where_it_stands() {
        let environment = vec![("QUINTET_TIMEOUTS_QUEUEE".into(), "1s".into())];
        let loaded = load(&Sources { environment, working_dir: "/srv".into(), ..Sources::default() });
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        let warnings: Vec<_> =
            loaded.warnings.iter().map(|problem| Finding::of_problem(Level::Warn, problem)).collect();
        insta::assert_snapshot!("config_warning", finding::render(&warnings, Style::default()));
    }
}
