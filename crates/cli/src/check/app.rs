//! The app, looked at by the project's own Python: `python -m quintet._check`.

use std::path::Path;
use std::process::{Command, Stdio};

use ctl_admin::words::{self, AppReport};
use ctl_config::settings::Interface;
use ctl_config::{Config, Module};
use serde::Deserialize;
use serde_json::json;

use super::finding::Finding;
use crate::project::Project;
use crate::python::Python;
use crate::run::Decided;
use crate::{modules, patience};

/// What `quintet._check` prints.
#[derive(Debug, Deserialize)]
struct Answer {
    app: Option<AppReport>,
    failure: Option<Failed>,
    findings: Vec<Finding>,
}

/// Why the app could not be imported.
#[derive(Debug, Deserialize)]
struct Failed {
    message: String,
    traceback: String,
    hint: String,
}

/// An app as its Python is asked about it.
struct Asked<'a> {
    /// The one of `[app]`: it hears of the settings module of the environment.
    is_site: bool,
    project: &'a Project,
    python: &'a Path,
    interface: Interface,
    workers: u32,
    threads: u32,
    concurrency: u32,
    /// Database connections, when each worker has so many.
    connections: &'a dyn Fn(u32) -> u32,
    why: String,
}

pub(super) fn findings(decided: &Decided) -> Vec<Finding> {
    let Config { app, workers, .. } = &decided.loaded.config;
    let sizing = &decided.sizing;
    let [_, why, _] = &sizing.reasons;
    let site = Asked {
        is_site: true,
        project: &decided.project,
        python: &decided.python.path,
        interface: app.interface,
        workers: sizing.workers,
        threads: sizing.threads,
        concurrency: workers.concurrency,
        connections: &|each| sizing.db_connections(each, workers.db_connections_max),
        why: format!("{} each: {why}", sizing.threads),
    };
    let mut findings = ask(&site, decided, &[]);
    let modules = decided.loaded.config.module.iter().zip(&decided.modules);
    modules.for_each(|(module, own)| findings.extend(of_module(module, own, decided)));
    findings
}

/// What is found of another app, with its name.
fn of_module(module: &Module, own: &modules::Decided, decided: &Decided) -> Vec<Finding> {
    let workers = &decided.loaded.config.workers;
    let most = module.max.unwrap_or(module.min);
    let threads = module.threads.unwrap_or(decided.sizing.threads);
    let asked = Asked {
        is_site: false,
        project: &own.project,
        python: &own.python.path,
        interface: module.interface,
        workers: module.min,
        threads,
        concurrency: module.concurrency.unwrap_or(workers.concurrency),
        connections: &|each| most.saturating_mul(each).min(workers.db_connections_max),
        why: format!("{threads} each"),
    };
    let environment: Vec<_> = module.variables().collect();
    let Python { version, path, origin, .. } = &own.python;
    let python = Finding::ok("python", format!("{version} {} ({origin})", path.display()));
    let mut findings = vec![Finding::ok("module", own.project.dir.display().to_string()), python];
    findings.extend(ask(&asked, decided, &environment));
    for finding in &mut findings {
        finding.text = format!("{}: {}", own.name, finding.text);
    }
    findings
}

fn ask(app: &Asked<'_>, decided: &Decided, environment: &[(&str, &str)]) -> Vec<Finding> {
    let mut command = Command::new(app.python);
    let workers = &decided.loaded.config.workers;
    let interface = match app.interface {
        Interface::Auto => None,
        Interface::Wsgi => Some(words::Interface::Wsgi),
        Interface::Asgi => Some(words::Interface::Asgi),
    };
    let asked = json!({
        "dir": app.project.dir,
        "app": app.project.app,
        "settings": app.project.settings,
        "interface": interface,
        "event_loop": workers.event_loop.word(),
        "workers": app.workers,
        "threads": app.threads,
        "connections": {
            "wsgi": (app.connections)(app.threads),
            "asgi": (app.connections)(app.concurrency),
        },
    });
    if app.project.settings.is_none() && !app.is_site {
        command.env_remove("DJANGO_SETTINGS_MODULE");
    }
    command.envs(environment.iter().copied());
    command.args(["-m", "quintet._check"]).env("QUINTET_CHECK", asked.to_string()).stdin(Stdio::null());
    let ended =
        match patience::output(&mut command, workers.start_timeout) {
            Ok(ended) => ended,
            Err(error) => {
                return vec![Finding::fail("app", format!("its import could not be checked: {error}")).hint(
                    "what does it wait for while it is imported? workers.start_timeout allows more time",
                )];
            }
        };
    if let Ok(answer) = serde_json::from_slice::<Answer>(&ended.stdout) {
        return of_answer(answer, &app.why, app.concurrency);
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let text = format!("Python ended without an answer ({})\n{}", ended.status, tail(&said));
    vec![Finding::fail("app", text).hint("does `python -X faulthandler -m quintet._check` say more?")]
}

fn of_answer(answer: Answer, threads: &str, concurrency: u32) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(failed) = answer.failure {
        let text = format!("{}\n{}", failed.message, failed.traceback);
        findings.push(Finding::fail("app", text.trim_end()).hint(failed.hint));
    }
    if let Some(app) = answer.app {
        let called = match app.interface {
            words::Interface::Wsgi => "WSGI".to_owned(),
            words::Interface::Asgi => format!("ASGI on {}", app.event_loop),
        };
        let django = app.django.map_or_else(String::new, |version| format!(", Django {version}"));
        findings.push(Finding::ok("app", format!("{} imports: {called}{django}", app.app)));
        findings.push(match app.interface {
            words::Interface::Wsgi => Finding::ok("threads", threads),
            words::Interface::Asgi => {
                Finding::ok("requests", format!("{concurrency} at a time in each worker"))
            }
        });
    }
    findings.extend(answer.findings);
    findings
}

/// The last lines of what a process said.
fn tail(text: &str) -> String {
    const LINES: usize = 12;
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_failed_import_is_a_failure_with_its_traceback() {
        let answer = serde_json::from_str(
            r#"{"failure": {"message": "NameError", "traceback": "Traceback\n  x\n", "hint": "mend"}, "findings": []}"#,
        );
        let findings = of_answer(answer.unwrap(), "4 each: why", 16);
        assert_eq!(findings[0].text, "NameError\nTraceback\n  x");
        assert_eq!((findings[0].level, findings.len()), (Level::Fail, 1));
    }

    #[test]
    fn an_asgi_app_has_no_threads_to_speak_of() {
        let answer = serde_json::from_str(
            r#"{"app": {"app": "main:app", "interface": "asgi", "event_loop": "uvloop"}, "findings": []}"#,
        );
        let findings = of_answer(answer.unwrap(), "4 each: why", 16);
        assert_eq!(findings[0].text, "main:app imports: ASGI on uvloop");
        assert_eq!(findings[1].text, "16 at a time in each worker");
    }

    #[test]
    fn an_app_comes_with_its_findings() {
        let answer = serde_json::from_str(
            r#"{"app": {"app": "shop.wsgi:application", "django": "5.2"},
                "findings": [{"level": "warn", "about": "settings", "text": "DEBUG", "hint": ""}]}"#,
        );
        let findings = of_answer(answer.unwrap(), "4 each: why", 16);
        assert_eq!(findings[0].text, "shop.wsgi:application imports: WSGI, Django 5.2");
        assert_eq!((findings[1].about.as_str(), findings[1].text.as_str()), ("threads", "4 each: why"));
        assert_eq!(findings[2].level, Level::Warn);
    }
}
