//! Why a command ends early, as people read it: message, detail, hint, and the exit code that goes with it.

use std::fmt::Write as _;

use ctl_config::{Problems, Style};

use crate::exit::Exit;

/// An error that ends a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// One error.
    One {
        /// The exit code.
        exit: Exit,
        /// What does not work.
        message: String,
        /// What is known about it.
        detail: Option<String>,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The configuration is wrong, maybe in several places.
    Config(Problems),
    /// Everything has been said already.
    Shown(Exit),
}

/// What most functions of this crate return.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with nothing more to say yet.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::One { exit, message: message.into(), detail: None, hint: None }
    }

    /// With what is known about it.
    #[must_use]
    pub(crate) fn detail(mut self, text: impl Into<String>) -> Self {
        if let Self::One { detail, .. } = &mut self {
            *detail = Some(text.into());
        }
        self
    }

    /// With what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, text: impl Into<String>) -> Self {
        if let Self::One { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// The code the process ends with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::One { exit, .. } | Self::Shown(exit) => *exit,
            Self::Config(_) => Exit::Usage,
        }
    }

    /// The whole text; empty when it was shown already.
    pub(crate) fn render(&self, style: Style) -> String {
        match self {
            Self::Config(problems) => problems.render(style),
            Self::Shown(_) => String::new(),
            Self::One { message, detail, hint, .. } => {
                let mut text = format!("{}error{}: {message}\n", style.strong, style.reset);
                if let Some(detail) = detail {
                    let _ = writeln!(text, "{}detail{}: {detail}", style.quiet, style.reset);
                }
                if let Some(hint) = hint {
                    let _ = writeln!(text, "{}hint{}: {hint}", style.hint, style.reset);
                }
                text
            }
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}
