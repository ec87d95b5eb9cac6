//! What a source says before it is understood: the common ground of TOML, environment and flags.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// A value as written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Raw {
    /// From the environment or a flag: may mean anything.
    Word(String),
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML float.
    Float(f64),
    /// A TOML boolean.
    Switch(bool),
    /// A TOML array, or the values of a flag given more than once; each with its place in the file.
    List(Vec<(Raw, Option<Range<usize>>)>),
    /// A TOML date or table, which no setting is.
    Foreign(&'static str),
}

impl Raw {
    /// As a person would name it in an error.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Word(text) | Self::Text(text) => format!("\"{text}\""),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Switch(on) => on.to_string(),
            Self::List(_) => "a list".into(),
            Self::Foreign(kind) => format!("a {kind}"),
        }
    }
}

/// A value as written, and where relative paths in it start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) raw: &'a Raw,
    pub(crate) base: &'a Path,
}

impl Input<'_> {
    /// `path`, below the directory of the file that names it (or the current directory for flags).
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        let joined = self.base.join(path);
        // `./site` and `site/.` name the same place; `..` stays, because it may cross a symbolic link.
        joined.components().collect()
    }
}

/// Why a value was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Without the key: `"10x" is not a duration`.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
    /// The place inside the value, when it is more exact than the whole.
    pub(crate) span: Option<Range<usize>>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, span: None }
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn at(mut self, span: Option<Range<usize>>) -> Self {
        self.span = self.span.or(span);
        self
    }
}
