//! docs/reference/import.md, made from the tables.

use std::fmt::Write as _;

use super::row::{Becomes, Row};
use super::{nginx, shell, unit};

const HEAD: &str = "\
<!-- Made from the tables in crates/cli/src/import by `make docs`. Do not edit. -->

# What `quintet import` makes of each option

A `*` at the end of a name stands for all names that begin so. What is marked with *no* is named in the result with this reason; what is
marked with *needs nothing* is so in quintet anyway. Options that are in no table are named as unknown.
";

/// The whole page.
pub(crate) fn markdown() -> String {
    let mut page = HEAD.to_owned();
    for server in shell::SERVERS {
        push(&mut page, server.name, server.rows);
    }
    push(&mut page, "NGINX Unit: an application", unit::APPLICATION);
    push(&mut page, "NGINX Unit: settings", unit::SETTINGS);
    push(&mut page, "nginx", nginx::ROWS);
    page
}

fn push(page: &mut String, title: &str, rows: &[Row]) {
    let _ = write!(page, "\n## {title}\n\n| option | becomes |\n|---|---|\n");
    for row in rows.iter().filter(|row| !row.name.starts_with('?')) {
        let becomes = match row.becomes {
            Becomes::Set(key, _) => format!("`{key}`"),
            Becomes::By(_, text) | Becomes::Together(text) => text.to_owned(),
            Becomes::Same(why) => format!("*needs nothing*: {why}"),
            Becomes::No(why) => format!("*no*: {why}"),
        };
        let flags: Vec<_> = row.flags.split(' ').filter(|flag| !matches!(*flag, "" | "*")).collect();
        let flags = if flags.is_empty() { String::new() } else { format!(" `{}`", flags.join("`, `")) };
        let _ = writeln!(page, "| `{}`{flags} | {} |", row.name, becomes.replace('|', "\\|"));
    }
}
