//! Errors that teach: what is wrong, where it stands, what would be right. All of them at once.

use std::fmt::{self, Write as _};
use std::ops::Range;

use crate::define::Setting;
use crate::raw::Fault;
use crate::redis::without_secrets;

/// Where the value of a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Line and column count from 1, columns in characters.
    File { name: String, line: usize, column: usize, source: String, width: usize },
    /// `environment variable QUINTET_…`, `flag --bind`.
    Named(String),
}

impl Place {
    /// The place of `span` in the file `name` with this text.
    pub(crate) fn in_file(name: &str, text: &str, span: Range<usize>) -> Self {
        let start = floor(text, span.start.min(text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = floor(text, span.end.clamp(start, line_end));
        Self::File {
            name: name.to_owned(),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            source: without_secrets(text[line_start..line_end].trim_end()),
            width: text[start..end].chars().count().max(1),
        }
    }

    /// The same for a value of `setting`: where that may be a secret, the line is not shown.
    pub(crate) fn of(self, setting: &Setting) -> Self {
        match self {
            Self::File { name, line, column, .. } if setting.is_secret => {
                Self::Named(format!("{name}:{line}:{column}"))
            }
            place => place,
        }
    }

    /// The line, for places in files.
    pub(crate) fn line(&self) -> Option<usize> {
        match self {
            Self::File { line, .. } => Some(*line),
            Self::Named(_) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line, column, .. } => write!(f, "{name}:{line}:{column}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// The nearest character boundary at or below `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// One sentence.
    pub message: String,
    /// What is known about it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    pub(crate) place: Option<Place>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), detail: None, hint: None, place: None }
    }

    /// `fault` of the setting `key`.
    pub(crate) fn of(key: &str, fault: Fault) -> Self {
        Self { hint: fault.hint, ..Self::new(format!("{key}: {}", fault.message)) }
    }

    #[must_use]
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn at(mut self, place: Option<Place>) -> Self {
        self.place = place;
        self
    }

    /// `file:line:column` when it stands in a file, else the flag or variable; `None` for what stands nowhere.
    pub fn location(&self) -> Option<String> {
        self.place.as_ref().map(Place::to_string)
    }

    /// The line of the file, when it stands in one.
    pub fn line(&self) -> Option<usize> {
        self.place.as_ref().and_then(Place::line)
    }

    /// The whole text, under the word `severity` ("error" or "warning").
    pub fn render(&self, severity: &str, style: Style) -> String {
        let Style { quiet, hint, reset, .. } = style;
        let severity_style = if severity == "error" { style.strong } else { style.hint };
        let mut out = format!("{severity_style}{severity}{reset}: {}\n", self.message);
        out.push_str(&self.frame(style));
        if let Some(detail) = &self.detail {
            let _ = writeln!(out, "{quiet}detail{reset}: {detail}");
        }
        if let Some(text) = &self.hint {
            let _ = writeln!(out, "{hint}hint{reset}: {text}");
        }
        out
    }

    /// Where it stands: the place, and of a file the line with a mark below; empty for what stands nowhere.
    pub fn frame(&self, style: Style) -> String {
        let Style { strong, quiet, reset, .. } = style;
        let Some(place) = &self.place else { return String::new() };
        let Place::File { line, column, source, width, .. } = place else {
            return format!("{quiet}  -->{reset} {place}\n");
        };
        let blank = " ".repeat(line.to_string().len());
        let source = source.replace('\t', " ");
        let (before, caret) = (" ".repeat(column - 1), "^".repeat((*width).min(60)));
        format!(
            "{quiet} {blank}-->{reset} {place}\n\
             {quiet} {blank} |{reset}\n\
             {quiet} {line} |{reset} {source}\n\
             {quiet} {blank} |{reset} {before}{strong}{caret}{reset}\n"
        )
    }
}

/// The escape sequences of [`Problem::render`]; empty ones for plain text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// "error" and the caret.
    pub strong: &'static str,
    /// The frame.
    pub quiet: &'static str,
    /// "hint".
    pub hint: &'static str,
    /// Back to normal.
    pub reset: &'static str,
}

impl Style {
    /// ANSI colours.
    pub const COLOUR: Self =
        Self { strong: "\x1b[1;31m", quiet: "\x1b[2m", hint: "\x1b[1;36m", reset: "\x1b[0m" };

    /// A plain text in these colours, for what another process has written: the words at the beginning of a line.
    pub fn paint(self, text: &str) -> String {
        let words =
            [("error", self.strong), ("detail", self.quiet), ("hint", self.hint), ("note", self.hint)];
        let paint = |line: &str| {
            let word = words
                .iter()
                .find(|(word, _)| line.strip_prefix(word).is_some_and(|rest| rest.starts_with(": ")));
            match word {
                Some((word, colour)) => format!("{colour}{word}{}{}", self.reset, &line[word.len()..]),
                None => line.to_owned(),
            }
        };
        text.split_inclusive('\n').map(paint).collect()
    }
}

/// Everything that is wrong, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// All of them, one under the other.
    pub fn render(&self, style: Style) -> String {
        self.0.iter().map(|problem| problem.render("error", style)).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::default()))
    }
}

impl std::error::Error for Problems {}

/// The word that `typo` was probably meant to be.
pub fn nearest<'a>(typo: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Two random words of this size are rarely nearer than this; `wrokers` and `workers` are (0.95).
    const LIKENESS_MIN: f64 = 0.8;
    let typo = typo.to_ascii_lowercase().replace('-', "_");
    words
        .into_iter()
        .map(|word| (strsim::jaro_winkler(&typo, word), word))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}
