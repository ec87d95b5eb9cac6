//! `forward_auth`: asks whether a request may pass. What is asked and what an answer means is `route/forward_auth.rs`'s.
//!
//! Without a yes nobody passes: no answer in time, too busy, an answer that is neither yes nor no, and one that says too much are
//! errors of ours, never a way in. The app and upstreams are asked as for any request, except that no route looks at the
//! question: asking never makes another question.

use ctl_telemetry::metrics as m;
use tracing::warn;

use super::{Asks, Gateway, NoBody, RequestHead, Response, Terms, Trail, error_for};
use crate::message::{AnsweredBy, Headers};
use crate::route::forward_auth::{ForwardAuth, Meaning, TooLong, Whom, add_cookies, cookies};

/// What a request gets that may pass.
#[derive(Debug, Default)]
pub(super) struct Leave(Option<Box<Said>>);

#[derive(Debug)]
struct Said {
    head: Option<Box<RequestHead>>,
    cookies: Headers,
}

impl Leave {
    /// The request as it goes on.
    pub(super) fn head<'a>(&'a self, own: &'a RequestHead) -> &'a RequestHead {
        self.0.as_ref().and_then(|said| said.head.as_deref()).unwrap_or(own)
    }

    /// What its client is told besides.
    pub(super) fn tell(&self, headers: &mut Headers) {
        if let Some(said) = &self.0 {
            add_cookies(&said.cookies, headers);
        }
    }
}

impl Gateway {
    /// Asks. The error is what the client is told.
    pub(super) async fn ask_leave(
        &self,
        auth: &ForwardAuth,
        asks: Asks<'_>,
        came: &Trail,
    ) -> Result<Leave, Response> {
        let question = auth.question(asks.head, asks.identity.headers_heard);
        let identity = crate::client::Identity { headers_heard: true, ..asks.identity.clone() };
        let mut trail = came.clone();
        let pool = if let Whom::App(pool) = auth.whom { pool } else { None };
        let terms = Terms { pool, ..Terms::default() };
        let about = Some(asks.head);
        let asked = Asks { head: &question, identity: &identity, terms, about, ..asks };
        let answer = async {
            match &auth.whom {
                Whom::App(_) => self.ask_app(asked, &mut NoBody, &mut trail).await,
                Whom::Upstream(name) => self.pass_on(name, asked, &mut NoBody, &mut trail).await,
            }
        };
        let failed = |status: u16, why: &str| {
            m::FORWARD_AUTH_FAILED_TOTAL.inc();
            let (request_id, route) =
                (&*came.request_id, came.route.as_ref().map_or("", |taken| &*taken.name));
            warn!(request_id, route, status, "{why}: the client was told so, and did not pass");
            error_for(asks.head, status, came)
        };
        let Ok(answer) = tokio::time::timeout(auth.timeout, answer).await else {
            return Err(failed(504, "who decides about a request did not answer in time"));
        };
        if answer.trail.by == AnsweredBy::Gateway {
            // There is no answer. Why, has been said; this is what is said to clients then.
            m::FORWARD_AUTH_FAILED_TOTAL.inc();
            return Err(answer);
        }
        match ForwardAuth::meaning(answer.status) {
            Meaning::Passes => match auth.admit(asks.head, &answer.headers) {
                Ok(head) => {
                    m::FORWARD_AUTH_PASSED_TOTAL.inc();
                    Ok(Leave(Some(Box::new(Said { head, cookies: cookies(&answer.headers) }))))
                }
                Err(TooLong) => Err(failed(502, "who decides about a request says too much of it")),
            },
            Meaning::Refuses => {
                m::FORWARD_AUTH_REFUSED_TOTAL.inc();
                Err(answer)
            }
            Meaning::Fails(status) => {
                let why =
                    format!("who decides about a request answered {}, neither yes nor no", answer.status);
                Err(failed(status, &why))
            }
        }
    }
}
