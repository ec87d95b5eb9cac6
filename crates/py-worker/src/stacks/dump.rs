//! faulthandler's dump in the form that Python's own tracebacks have: names for threads, the most recent call last.

use std::fmt::Write as _;

/// One thread of a dump.
struct Thread<'a> {
    ident: u64,
    /// As dumped: the most recent call first.
    lines: Vec<&'a str>,
}

/// Rewrites a dump. The thread `owner` comes first and is marked; `name` knows the others.
pub(super) fn readable(dump: &[u8], owner: u64, name: impl Fn(u64) -> String) -> String {
    // faulthandler escapes whatever is not ASCII.
    let text = String::from_utf8_lossy(dump);
    let mut threads: Vec<Thread<'_>> = Vec::new();
    let mut foreign = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if let Some(ident) = ident_of(line) {
            threads.push(Thread { ident, lines: Vec::new() });
        } else if let Some(thread) = threads.last_mut() {
            thread.lines.push(line);
        } else {
            // "unable to get the interpreter state", for example.
            let _ = writeln!(foreign, "{line}");
        }
    }
    threads.sort_by_key(|thread| thread.ident != owner);
    let mut out = foreign;
    for thread in &threads {
        let mark = if thread.ident == owner { ", which has the request" } else { "" };
        let _ = writeln!(out, "thread {}{mark}:", name(thread.ident));
        for line in thread.lines.iter().rev() {
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

/// `Thread 0x00007f1a2b3c4d5e (most recent call first):`, from Python 3.14 on with the thread's name in brackets.
fn ident_of(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("Current thread ").or_else(|| line.strip_prefix("Thread "))?;
    let digits = rest.strip_prefix("0x")?.split(' ').next()?;
    u64::from_str_radix(digits, 16).ok()
}
