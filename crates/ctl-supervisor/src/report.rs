//! What people see on the terminal besides the log: the banner, and why the app does not start.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use ctl_admin::words::{AppReport, Interface};

use ctl_config::Style;

use crate::event::Failure;

/// Shown once requests are served.
pub(crate) fn banner(
    version: &str,
    app: &AppReport,
    urls: &[&str],
    lines: &[String],
    after: Duration,
) -> String {
    let mut text = format!("quintet {version} serves {}", app.app);
    let interface = match app.interface {
        Interface::Wsgi => "WSGI",
        Interface::Asgi => "ASGI",
    };
    let _ = write!(text, " ({interface}");
    if let Some(django) = &app.django {
        let _ = write!(text, ", Django {django}");
    }
    if !app.python.is_empty() {
        let _ = write!(text, ", Python {}", app.python);
    }
    text.push_str(")\n");
    for url in urls {
        let _ = writeln!(text, "  {url}");
    }
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
    let _ = writeln!(text, "ready in {:.1} s", after.as_secs_f64());
    text
}

/// The traceback first: it is what the developer needs. One without a single frame would only say the message twice.
pub(crate) fn failure(failure: &Failure) -> String {
    let mut text = String::new();
    let traceback = failure.traceback.trim_end();
    if !traceback.is_empty() && !failure.message.ends_with(traceback) {
        let _ = writeln!(text, "{traceback}");
    }
    let _ = writeln!(text, "error: {}", failure.message);
    if !failure.hint.is_empty() {
        let _ = writeln!(text, "hint: {}", failure.hint);
    }
    text
}

/// As [`show`], in colours where somebody looks at it.
pub(crate) fn show_failure(text: &str) {
    let plain = AutoStream::choice(&std::io::stderr()) == ColorChoice::Never;
    show(&if plain { text.to_owned() } else { Style::COLOUR.paint(text) });
}

/// To standard error, in one piece. When nobody can read it there is nobody to tell.
pub(crate) fn show(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traceback_comes_first() {
        let text = failure(&Failure {
            message: "shop.wsgi cannot be imported".into(),
            traceback: "Traceback (most recent call last):\n  …\nImportError: no\n".into(),
            hint: "install it".into(),
        });
        let expected = "Traceback (most recent call last):\n  …\nImportError: no\n\
                        error: shop.wsgi cannot be imported\nhint: install it\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn nothing_is_said_twice() {
        let text = failure(&Failure {
            message: "the app could not be imported: ModuleNotFoundError: No module named 'shp'".into(),
            traceback: "ModuleNotFoundError: No module named 'shp'\n".into(),
            hint: String::new(),
        });
        assert_eq!(
            text,
            "error: the app could not be imported: ModuleNotFoundError: No module named 'shp'\n"
        );
    }

    #[test]
    fn the_banner_says_what_where_and_how_fast() {
        let app = AppReport {
            app: "shop.wsgi:application".into(),
            python: "3.12.3".into(),
            django: Some("5.2".into()),
            ..AppReport::default()
        };
        let lines = ["2 workers of 4 threads (2 cores)".to_owned()];
        let text = banner("0.1.0", &app, &["http://127.0.0.1:8000"], &lines, Duration::from_millis(840));
        let expected = "quintet 0.1.0 serves shop.wsgi:application (WSGI, Django 5.2, Python 3.12.3)\n  \
                        http://127.0.0.1:8000\n  2 workers of 4 threads (2 cores)\nready in 0.8 s\n";
        assert_eq!(text, expected);
    }
}
