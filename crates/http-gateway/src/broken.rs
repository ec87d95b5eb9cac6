//! `quintet dev`: while the code does not start, whoever asks for the app gets its traceback.
//!
//! Also those that already wait for the new code. Outside of development this is never turned on, and costs a load of a flag.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use tokio::sync::watch;

use crate::error_page;
use crate::message::{AnsweredBy, Body, Headers, RequestHead, Response, Trail};

/// Why the code does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// One line.
    pub message: String,
    /// Of Python; may be empty.
    pub traceback: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

/// What is known of the code.
pub struct Broken {
    develops: AtomicBool,
    why: watch::Sender<Option<Arc<Why>>>,
}

impl Default for Broken {
    fn default() -> Self {
        Self { develops: AtomicBool::new(false), why: watch::Sender::new(None) }
    }
}

impl Broken {
    /// The code does not start (`Some`), or may start again.
    pub fn set(&self, why: Option<Why>) {
        self.develops.store(true, Relaxed);
        self.why.send_replace(why.map(Arc::new));
    }

    /// Pending for ever while nothing is known to be wrong.
    pub async fn known(&self) -> Arc<Why> {
        if self.develops.load(Relaxed) {
            let mut ear = self.why.subscribe();
            // The sender is in `self`, so this ends with a value.
            if let Ok(why) = ear.wait_for(Option::is_some).await
                && let Some(why) = why.as_ref()
            {
                return Arc::clone(why);
            }
        }
        std::future::pending().await
    }
}

/// The traceback as a page for people, or as text for programs. Nothing of it is taken for markup.
pub fn page(why: &Why, head: &RequestHead, trail: &Trail) -> Response {
    let html = error_page::wants_html(head);
    let Why { message, traceback, hint } = why;
    let text = if html { as_html(why) } else { format!("{traceback}\n{message}\n{hint}\n") };
    let mut headers = Headers::with_capacity(3, 128);
    let kind: &[u8] = if html { b"text/html; charset=utf-8" } else { b"text/plain; charset=utf-8" };
    headers.push(b"content-type", kind);
    headers.push(b"cache-control", b"no-store");
    let mut trail = trail.clone();
    trail.by = AnsweredBy::Gateway;
    let body = Body::Bytes(Bytes::from(text));
    Response { status: 500, reason: Box::default(), headers, body, close: false, trail }
}

fn as_html(why: &Why) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n<title>The code does not start</title>\n\
         <style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:6vh auto;padding:0 1rem;color-scheme:light dark}\
         pre{overflow:auto;padding:1rem;border:1px solid #8886;border-radius:.4rem;font:14px/1.45 ui-monospace,monospace}\
         h1{font-size:1.3rem}</style>\n<h1>",
    );
    escape(&mut page, &why.message);
    page.push_str("</h1>\n");
    for (text, open, close) in [(&why.hint, "<p>", "</p>\n"), (&why.traceback, "<pre>", "</pre>\n")] {
        if !text.is_empty() {
            page.push_str(open);
            escape(&mut page, text.trim_end());
            page.push_str(close);
        }
    }
    page.push_str(
        "<p><small>Save a file and load this page again: it waits for the new code.</small></p>\n</html>\n",
    );
    page
}

fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '<' | '>' | '&' | '"' | '\'' => {
                let _ = write!(out, "&#{};", u32::from(character));
            }
            plain => out.push(plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_traceback_is_markup() {
        let why = Why {
            message: "NameError: <script>alert('x')</script>".into(),
            traceback: "  File \"a.py\", line 1\n    a < b && c\n".into(),
            hint: String::new(),
        };
        let page = as_html(&why);
        assert!(page.contains("&#60;script&#62;alert(&#39;x&#39;)&#60;/script&#62;"), "{page}");
        assert!(page.contains("a &#60; b &#38;&#38; c"), "{page}");
        assert!(!page.contains("<script"), "{page}");
    }

    #[tokio::test]
    async fn who_waits_hears_of_it() {
        let broken = Broken::default();
        let why = Why { message: "no".into(), traceback: String::new(), hint: String::new() };
        assert!(futures_now(broken.known()).await.is_none(), "not in development");
        broken.set(None);
        let (told, ()) = tokio::join!(broken.known(), async { broken.set(Some(why.clone())) });
        assert_eq!(*told, why);
        assert_eq!(*broken.known().await, why, "at once, from then on");
        broken.set(None);
        assert!(futures_now(broken.known()).await.is_none());
    }

    async fn futures_now<T>(future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(std::time::Duration::from_millis(5), future).await.ok()
    }
}
