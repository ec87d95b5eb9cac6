//! A finding of `quintet check`, and how the list of them is shown.

use std::fmt::Write as _;

use ctl_config::{Problem, Style};
use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// It runs, but something will hurt one day.
    Warn,
    /// It would not run, or not answer.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    /// The subject, one word.
    pub(crate) about: String,
    /// What was found; may have several lines.
    pub(crate) text: String,
    /// Where, when that is a place in the configuration: `quintet.toml:3:9`, a flag, a variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<String>,
    /// What to do; may be empty.
    pub(crate) hint: String,
}

impl Finding {
    fn new(level: Level, about: &str, text: impl Into<String>) -> Self {
        Self { level, about: about.into(), text: text.into(), at: None, hint: String::new() }
    }

    pub(crate) fn ok(about: &str, text: impl Into<String>) -> Self {
        Self::new(Level::Ok, about, text)
    }

    pub(crate) fn warn(about: &str, text: impl Into<String>) -> Self {
        Self::new(Level::Warn, about, text)
    }

    pub(crate) fn fail(about: &str, text: impl Into<String>) -> Self {
        Self::new(Level::Fail, about, text)
    }

    /// Something that is wrong with the configuration, with the line where it stands.
    pub(crate) fn of_problem(level: Level, problem: &Problem) -> Self {
        let mut text = format!("{}\n{}", problem.message, problem.frame(Style::default()));
        text.push_str(problem.detail.as_deref().unwrap_or_default());
        let finding = Self::new(level, "config", text.trim_end());
        Self { at: problem.location(), hint: problem.hint.clone().unwrap_or_default(), ..finding }
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// The list for people, with a line of counts below it.
pub(crate) fn render(findings: &[Finding], style: Style) -> String {
    let mut out = String::new();
    for finding in findings {
        let (colour, word) = match finding.level {
            Level::Ok => (style.quiet, "ok  "),
            Level::Warn => (style.hint, "warn"),
            Level::Fail => (style.strong, "FAIL"),
        };
        let mut lines = finding.text.lines();
        let first = lines.next().unwrap_or_default();
        let _ = writeln!(out, "{colour}{word}{}  {:<10} {first}", style.reset, finding.about);
        for line in lines {
            let _ = writeln!(out, "                 {line}");
        }
        if !finding.hint.is_empty() {
            let _ = writeln!(out, "                 {}hint{}: {}", style.hint, style.reset, finding.hint);
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (warnings, failures) = (count(Level::Warn), count(Level::Fail));
    let verdict = match (failures, warnings) {
        (0, 0) => "This project would run here.".to_owned(),
        (0, 1) => "This project would run here; 1 warning.".to_owned(),
        (0, _) => format!("This project would run here; {warnings} warnings."),
        (1, _) => "This project would not run well here: 1 failure.".to_owned(),
        _ => format!("This project would not run well here: {failures} failures."),
    };
    let _ = writeln!(out, "\n{verdict}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list() {
        let findings = [
            Finding::ok("python", "3.11.7 /srv/shop/.venv/bin/python"),
            Finding::warn("settings", "DEBUG is on").hint("turn it off in public"),
            Finding::fail("app", "it could not be imported\nNameError: oops").hint("mend it"),
        ];
        insta::assert_snapshot!(render(&findings, Style::default()));
    }

    #[test]
    fn verdicts() {
        let verdict =
            |findings: &[Finding]| render(findings, Style::default()).lines().last().unwrap().to_owned();
        assert_eq!(verdict(&[Finding::ok("a", "")]), "This project would run here.");
        assert_eq!(verdict(&[Finding::warn("a", "")]), "This project would run here; 1 warning.");
    }
}
