//! The exit codes of every command: one table for the code, `quintet help exit-codes` and the reference.

use std::fmt::Write as _;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what it was asked.
    Success = 0,
    /// It failed for a reason that has no code of its own.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The app could not be imported.
    App = 3,
    /// An address could not be bound.
    Bind = 4,
    /// No instance is running there.
    NotRunning = 5,
}

/// Every code with its name and meaning, in order.
pub(crate) const TABLE: [(Exit, &str, &str); 6] = [
    (Exit::Success, "success", "The command did what it was asked. `quintet run` was stopped in order."),
    (
        Exit::Failure,
        "failure",
        "Something failed; the message says what. `quintet check`: a finding is a failure. `quintet scale`: the number of workers stays as it is.",
    ),
    (
        Exit::Usage,
        "usage",
        "The command line or the configuration is wrong. Nothing was started. `quintet upgrade`: the new program did not take over; the old one still serves.",
    ),
    (
        Exit::App,
        "app",
        "The app could not be imported; its traceback was shown. `quintet reload`, `quintet upgrade`: the old code still serves.",
    ),
    (Exit::Bind, "bind", "An address could not be bound: in use, not of this machine, or not permitted."),
    (
        Exit::NotRunning,
        "not running",
        "`status`, `reload`, `scale`, `stop`, `upgrade`: no instance of this project is running.",
    ),
];

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The table for the terminal.
pub(crate) fn text() -> String {
    let mut text = String::from("Exit codes\n\n");
    for (exit, name, meaning) in TABLE {
        let _ = writeln!(text, "  {}  {name:<12} {meaning}", exit as u8);
    }
    text.push_str(
        "\nWith a signal that cannot be caught the shell reports 128 + its number: 137 after SIGKILL.\n",
    );
    text
}

/// docs/reference/exit-codes.md.
pub(crate) fn markdown() -> String {
    let mut page = String::from(
        "<!-- Made from crates/cli/src/exit.rs by `make docs`. Do not edit. -->\n\n# Exit codes\n\n\
         The same for every command.\n\n| code | name | meaning |\n|---|---|---|\n",
    );
    for (exit, name, meaning) in TABLE {
        let _ = writeln!(page, "| {} | {name} | {meaning} |", exit as u8);
    }
    page.push_str(
        "\nAfter a signal that cannot be caught the shell reports 128 + its number: 137 after SIGKILL.\n",
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_whole() {
        for (index, (exit, ..)) in TABLE.iter().enumerate() {
            assert_eq!(*exit as usize, index);
        }
    }
}
