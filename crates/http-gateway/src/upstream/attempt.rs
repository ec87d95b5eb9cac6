//! One request on one connection, whichever protocol it speaks, up to the head of the answer.

use std::sync::Arc;

use http_upstream::{Pick, Token};
use tokio::time::Instant;

use super::exchange::{Lost, Patience, ask};
use super::group::{Failure, Forward, Upstream};
use super::outgoing::{Content, Outgoing};
use super::parse::{Answer, Asked};
use super::request::{BadRequest, Terms, convert, encode};
use super::server::{Lasting, Lease, NoConnection, Server, Wanted};
use super::settings::HostRule;
use super::{h2, session};
use crate::message::RequestBody;

/// What all attempts of a request share.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) request: &'a Forward<'a>,
    pub(super) content: &'a Content,
    pub(super) asked: Asked,
    /// Of a WebSocket's handshake.
    pub(super) key: Option<&'a str>,
}

/// A connection for a request, by its protocol.
pub(super) enum Line {
    One(Lease),
    Two(session::Lease),
}

impl Line {
    pub(super) fn server(&self) -> &Arc<Server> {
        match self {
            Self::One(lease) => lease.server(),
            Self::Two(lease) => &lease.server,
        }
    }
}

/// The head of an answer, and the way on which the rest of it comes.
pub(super) struct Heard {
    pub(super) answer: Answer,
    pub(super) way: Way,
}

pub(super) enum Way {
    One(Lease, Outgoing),
    Two(session::Lease, ::h2::RecvStream, h2::Sending),
}

impl Way {
    pub(super) fn server(&self) -> &Arc<Server> {
        match self {
            Self::One(lease, _) => lease.server(),
            Self::Two(lease, ..) => &lease.server,
        }
    }

    /// What the client should bring next time, when it is not what it brought.
    pub(super) fn new_token(&self) -> Option<Token> {
        match self {
            Self::One(lease, _) => lease.pick.as_ref()?.new_token(),
            Self::Two(lease, ..) => lease.pick.as_ref()?.new_token(),
        }
    }

    /// It is counted as what lasts until all is said.
    pub(super) fn lasts(&mut self, lasting: Lasting) {
        match self {
            Self::One(lease, _) => lease.lasts = Some(lasting),
            Self::Two(lease, ..) => lease.lasts = Some(lasting),
        }
    }

    /// The request's place with its server is kept until all is said.
    pub(super) fn hold(&mut self, pick: Pick<Arc<Server>>) {
        match self {
            Self::One(lease, _) => lease.pick = Some(pick),
            Self::Two(lease, ..) => lease.pick = Some(pick),
        }
    }
}

/// An attempt that came to nothing.
pub(super) struct Missed {
    pub(super) lost: Lost,
    /// The connection had served before, or was not looked at: this may say nothing of the server.
    pub(super) stale: bool,
    /// No harm is done when it is sent again.
    pub(super) again: bool,
}

impl Upstream {
    /// A connection to a server. WebSockets go over HTTP/1.1 always.
    pub(super) async fn line(
        &self,
        server: &Arc<Server>,
        wanted: Wanted,
        websocket: bool,
        now: Instant,
    ) -> Result<Line, NoConnection> {
        if self.settings.http2 && !websocket {
            server.lease_stream(wanted, now).await.map(Line::Two)
        } else {
            server.lease(wanted, now).await.map(Line::One)
        }
    }

    /// One request on one connection.
    pub(super) async fn attempt<B: RequestBody>(
        &self,
        line: Line,
        Ask { request: Forward { head, origin, body_bytes_max }, content, asked, key }: Ask<'_>,
        body: &mut B,
    ) -> Result<Heard, Result<Missed, Failure>> {
        let server = Arc::clone(line.server());
        let host: &[u8] = match &self.settings.host {
            HostRule::Client if !origin.host.is_empty() => origin.host,
            HostRule::Client | HostRule::Server => server.authority.as_bytes(),
            HostRule::Name(name) => name.as_bytes(),
        };
        let expects_continue = content.is_streamed() && head.headers.contains("expect");
        let terms = Terms {
            origin,
            host,
            sends: content.sends(),
            expects_continue,
            websocket_key: key,
            via: self.settings.via,
            own_cookie: self.settings.sticky.as_ref().map(|sticky| sticky.cookie.as_bytes()),
        };
        let patience =
            Patience { response: self.settings.response_timeout, idle: self.settings.idle_timeout };
        let refused = |BadRequest(why)| Err(Failure::Refused(why));
        let mut pulled = false;
        let (lost, reused, untouched) = match line {
            Line::One(mut lease) => {
                let written = encode(head, &terms).map_err(refused)?;
                let mut out = Outgoing::new(written, content, expects_continue, *body_bytes_max);
                match ask(lease.stream(), &mut out, asked, body, patience, &mut pulled).await {
                    Ok(answer) => return Ok(Heard { answer, way: Way::One(lease, out) }),
                    Err(lost) => (lost, lease.reused, out.is_untouched()),
                }
            }
            Line::Two(mut lease) => {
                let request = convert(head, &terms, lease.server.scheme()).map_err(refused)?;
                let out = Outgoing::unframed(content, expects_continue, *body_bytes_max);
                let answered = h2::ask(&mut lease, request, out, body, patience, &mut pulled).await;
                let (lost, untouched) = match answered {
                    Ok((response, sending)) => match h2::answer(&response, asked.head_only) {
                        Ok(answer) => {
                            let way = Way::Two(lease, response.into_body(), sending);
                            return Ok(Heard { answer, way });
                        }
                        Err(bad) => (Lost::Bad(bad), false),
                    },
                    Err(lost) => lost,
                };
                if matches!(lost, Lost::TimedOut | Lost::Stalled) {
                    lease.forsake();
                }
                (lost, lease.reused, untouched)
            }
        };
        match lost {
            Lost::Client(error) => Err(Err(Failure::Body(error))),
            Lost::ClientGone => Err(Err(Failure::ClientGone)),
            lost => {
                let broke = matches!(lost, Lost::Closed | Lost::Cut);
                let harmless = head.method.is_idempotent() || untouched;
                let stale = matches!(lost, Lost::Closed) && (reused || untouched);
                Err(Ok(Missed { lost, stale, again: broke && harmless && !pulled }))
            }
        }
    }
}
