//! The app, looked at by the project's own Python: `python -m quintet._check`.

use std::process::{Command, Stdio};

use ctl_admin::words::{self, AppReport};
use ctl_config::Config;
use ctl_config::settings::Interface;
use serde::Deserialize;
use serde_json::json;

use super::finding::Finding;
use crate::patience;
use crate::run::Decided;
use crate::sizing::Sizing;

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

pub(super) fn findings(decided: &Decided) -> Vec<Finding> {
    let mut command = Command::new(&decided.python.path);
    let Config { app, workers, .. } = &decided.loaded.config;
    let interface = match app.interface {
        Interface::Auto => None,
        Interface::Wsgi => Some(words::Interface::Wsgi),
        Interface::Asgi => Some(words::Interface::Asgi),
    };
    let connections = |each| decided.sizing.db_connections(each, workers.db_connections_max);
    let asked = json!({
        "dir": decided.project.dir,
        "app": decided.project.app,
        "settings": decided.project.settings,
        "interface": interface,
        "event_loop": workers.event_loop.word(),
        "workers": decided.sizing.workers,
        "threads": decided.sizing.threads,
        "connections": {
            "wsgi": connections(decided.sizing.threads),
            "asgi": connections(workers.concurrency),
        },
    });
    command.args(["-m", "quintet._check"]).env("QUINTET_CHECK", asked.to_string()).stdin(Stdio::null());
    let patience = decided.loaded.config.workers.start_timeout;
    let ended =
        match patience::output(&mut command, patience) {
            Ok(ended) => ended,
            Err(error) => {
                return vec![Finding::fail("app", format!("its import could not be checked: {error}")).hint(
                    "what does it wait for while it is imported? workers.start_timeout allows more time",
                )];
            }
        };
    if let Ok(answer) = serde_json::from_slice::<Answer>(&ended.stdout) {
        return of_answer(answer, &decided.sizing, workers.concurrency);
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let text = format!("Python ended without an answer ({})\n{}", ended.status, tail(&said));
    vec![Finding::fail("app", text).hint("does `python -X faulthandler -m quintet._check` say more?")]
}

fn of_answer(answer: Answer, sizing: &Sizing, concurrency: u32) -> Vec<Finding> {
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
            words::Interface::Wsgi => {
                let [_, why, _] = &sizing.reasons;
                Finding::ok("threads", format!("{} each: {why}", sizing.threads))
            }
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

    fn sizing() -> Sizing {
        let reasons = ["w", "why", "r"].map(str::to_owned);
        Sizing { workers: 2, workers_max: 2, pool_slots: 0, threads: 4, reactors: 1, reasons }
    }

    #[test]
    fn a_failed_import_is_a_failure_with_its_traceback() {
        let answer = serde_json::from_str(
            r#"{"failure": {"message": "NameError", "traceback": "Traceback\n  x\n", "hint": "mend"}, "findings": []}"#,
        );
        let findings = of_answer(answer.unwrap(), &sizing(), 16);
        assert_eq!(findings[0].text, "NameError\nTraceback\n  x");
        assert_eq!((findings[0].level, findings.len()), (Level::Fail, 1));
    }

    #[test]
    fn an_asgi_app_has_no_threads_to_speak_of() {
        let answer = serde_json::from_str(
            r#"{"app": {"app": "main:app", "interface": "asgi", "event_loop": "uvloop"}, "findings": []}"#,
        );
        let findings = of_answer(answer.unwrap(), &sizing(), 16);
        assert_eq!(findings[0].text, "main:app imports: ASGI on uvloop");
        assert_eq!(findings[1].text, "16 at a time in each worker");
    }

    #[test]
    fn an_app_comes_with_its_findings() {
        let answer = serde_json::from_str(
            r#"{"app": {"app": "shop.wsgi:application", "django": "5.2"},
                "findings": [{"level": "warn", "about": "settings", "text": "DEBUG", "hint": ""}]}"#,
        );
        let findings = of_answer(answer.unwrap(), &sizing(), 16);
        assert_eq!(findings[0].text, "shop.wsgi:application imports: WSGI, Django 5.2");
        assert_eq!((findings[1].about.as_str(), findings[1].text.as_str()), ("threads", "4 each: why"));
        assert_eq!(findings[2].level, Level::Warn);
    }
}
