//! Requests that meet routes: what [`crate::route`] decides is done here.

use std::sync::Arc;

use ctl_telemetry::metrics::ROUTES_DOUBTFUL_TOTAL;

use super::flown::Trip;
use super::forward_auth::Leave;
use super::{
    Answer, AnsweredBy, Asks, Gateway, Identity, RequestBody, RequestHead, Response, Routes, Terms, Trail,
    error_for, error_saying, from_file,
};
use crate::client::AddressText;
use crate::error_page::wants_html;
use crate::guard::Pass;
use crate::route::{Asked, Choice, Comes, Route, Way, below_mount};

/// Why a request is refused whose path leads to different routes for those who read it differently.
const DOUBTFUL: &str = "The address can be read as that of another page.";

/// Why a request is refused whose client should have shown a certificate.
const NO_CERTIFICATE: &str = "This page is for clients that show a certificate.";

impl Gateway {
    /// Answers a request: the first route that takes it, or files and app where none does.
    pub(super) async fn routed<B: RequestBody>(
        &self,
        routes: &Routes,
        asks: Asks<'_>,
        body: &mut B,
        trail: &mut Trail,
    ) -> Response {
        let honest = routes.without_claims(asks.head);
        let asks = Asks { head: honest.as_deref().unwrap_or(asks.head), ..asks };
        let route = match choose(routes, asks, trail) {
            Ok(Some(route)) => route,
            Ok(None) => return self.site(asks, body, trail).await,
            Err(refusal) => return *refusal,
        };
        let (client, came) = (client(trail), trail.clone());
        let comes = comes(asks, &client, &came);
        // Before passwords are looked at: that costs more than anything else here.
        let mut response = match self.enter_route(route, asks.head, trail).await {
            Err(refused) => refused,
            Ok(pass) => {
                let mut response = match self.keep_out(route, asks, comes).await {
                    Err(refusal) => refusal,
                    Ok(leave) => {
                        let head = leave.head(asks.head);
                        let (comes, asks) = (Comes { head, ..comes }, Asks { head, ..asks });
                        let mut response = match route.flight() {
                            None => self.follow(route.way(comes), asks, body, trail).await,
                            // Boxed: few routes look at what is sent twice, and all requests would carry it.
                            Some(rules) => {
                                let trip = Trip { rules, route, comes, asks };
                                Box::pin(self.flown(trip, body, trail)).await
                            }
                        };
                        leave.tell(&mut response.headers);
                        response
                    }
                };
                pass.tell(&mut response.headers);
                response
            }
        };
        route.finish(comes, &mut response.headers);
        response
    }

    /// May a request pass the route? The error is the answer to who must not: he comes over plain HTTP, is not known, or
    /// somebody else says no.
    async fn keep_out(&self, route: &Route, asks: Asks<'_>, comes: Comes<'_>) -> Result<Leave, Response> {
        // First of all: a password is not to be asked for over plain HTTP.
        if let Some(elsewhere) = route.to_https(comes) {
            return Err(elsewhere);
        }
        if route.lacks_certificate(comes) {
            return Err(error_saying(comes.head, 403, NO_CERTIFICATE, comes.trail));
        }
        // Boxed, both: few routes ask, and all requests would carry it.
        if let Some(users) = route.users() {
            // No users is nobody.
            let Some(passwords) = self.passwords.get(users) else {
                return Err(error_for(comes.head, 500, comes.trail));
            };
            if let Some(refusal) = Box::pin(passwords.keep_out(&self.turns, comes.head, comes.trail)).await {
                return Err(refusal);
            }
        }
        match route.forward_auth() {
            Some(auth) => Box::pin(self.ask_leave(auth, asks, comes.trail)).await,
            None => Ok(Leave::default()),
        }
    }

    /// Does what the route has decided.
    pub(super) async fn follow<B: RequestBody>(
        &self,
        way: Way<'_>,
        asks: Asks<'_>,
        body: &mut B,
        trail: &mut Trail,
    ) -> Response {
        match way {
            Way::Answer(response) => response,
            Way::File(number, head) => self.file_of_route(number, &head, &asks.head.target, trail).await,
            Way::Upstream { name, head, body_bytes_max } => {
                let terms = Terms { body_bytes_max, ..asks.terms };
                self.pass_on(name, Asks { head: &head, terms, ..asks }, body, trail).await
            }
            Way::On { head, headers_heard, terms, app_only } => {
                let terms = Terms { flight: asks.terms.flight, ..terms };
                let (identity, came) = (Identity { headers_heard, ..asks.identity.clone() }, asks.head);
                let asks = Asks { head: &head, identity: &identity, terms, ..asks };
                if app_only {
                    let module = self.dispatcher.module(asks.head, &asks.terms);
                    // Boxed: few sites have modules, and all requests would carry it.
                    if module != 0
                        && let Some(file) = Box::pin(self.file_of_module(module, came, asks, trail)).await
                    {
                        return file;
                    }
                    return self.ask_app(asks, body, trail).await;
                }
                match self.file_below(asks, trail).await {
                    Some(response) => response,
                    None => self.site(asks, body, trail).await,
                }
            }
        }
    }

    /// A file whose URL the app has put below its mount, as Django does with a relative `STATIC_URL`. What is not there may be the
    /// app's.
    async fn file_below(&self, asks: Asks<'_>, trail: &Trail) -> Option<Response> {
        let below = below_mount(asks.head, asks.terms.mount?)?;
        let file = self.files()?.answer(&below).await?;
        (!matches!(file.status, 404 | 405)).then(|| from_file(file, trail.clone()))
    }

    /// A file of the module that a route leads to: as its app sees the path, below its mount, or as the client sent it, since an app
    /// that does not know of a stripped prefix has it in its STATIC_URL.
    async fn file_of_module(
        &self,
        module: u16,
        came: &RequestHead,
        asks: Asks<'_>,
        trail: &Trail,
    ) -> Option<Response> {
        let files = self.files.of(module)?;
        let below = asks.terms.mount.and_then(|mount| below_mount(asks.head, mount));
        for head in [Some(asks.head), below.as_ref(), Some(came)].into_iter().flatten() {
            let file = files.answer(head).await.filter(|file| !matches!(file.status, 404 | 405));
            if let Some(file) = file {
                return Some(from_file(file, trail.clone()));
            }
        }
        None
    }

    /// The limits that a route names.
    async fn enter_route(&self, route: &Route, head: &RequestHead, trail: &Trail) -> Result<Pass, Response> {
        if route.limits().is_empty() {
            return Ok(Pass::default());
        }
        self.in_turn(self.guard.enter_route(route.limits(), head, trail), head, trail).await
    }

    /// Asks for a WebSocket. `None`: it is to be answered like any other request.
    pub(super) async fn routed_websocket(
        &self,
        routes: &Routes,
        asks: Asks<'_>,
        trail: &mut Trail,
    ) -> Option<Answer> {
        let honest = routes.without_claims(asks.head);
        let asks = Asks { head: honest.as_deref().unwrap_or(asks.head), ..asks };
        let route = match choose(routes, asks, trail) {
            Ok(Some(route)) => route,
            Ok(None) => return self.open(asks, trail).await,
            Err(refusal) => return Some(Answer::Refused(*refusal)),
        };
        let (client, came) = (client(trail), trail.clone());
        let comes = comes(asks, &client, &came);
        let entered = match self.enter_route(route, asks.head, trail).await {
            Err(refused) => Err(refused),
            Ok(_) => self.keep_out(route, asks, comes).await,
        };
        let leave = match entered {
            Ok(leave) => leave,
            Err(mut refusal) => {
                route.finish(comes, &mut refusal.headers);
                return Some(Answer::Refused(refusal));
            }
        };
        let head = leave.head(asks.head);
        let opened = match route.way(Comes { head, ..comes }) {
            Way::On { head, headers_heard, terms, .. } => {
                let identity = Identity { headers_heard, ..asks.identity.clone() };
                self.open(Asks { head: &head, identity: &identity, terms, ..asks }, trail).await
            }
            Way::Upstream { name, head, .. } => {
                Some(self.pass_through(name, Asks { head: &head, ..asks }, trail).await)
            }
            Way::Answer(_) | Way::File(..) => None,
        };
        let Some(mut answer) = opened else {
            // As a request like any other it comes again, and is counted then.
            self.guard.leave_route(route.limits(), asks.head, &came);
            return None;
        };
        let headers = match &mut answer {
            Answer::Accepted { headers, .. } | Answer::Tunnel { headers, .. } => headers,
            Answer::Refused(response) => &mut response.headers,
        };
        leave.tell(headers);
        route.finish(comes, headers);
        Some(answer)
    }

    async fn file_of_route(
        &self,
        number: usize,
        head: &RequestHead,
        asked: &[u8],
        trail: &Trail,
    ) -> Response {
        match self.files() {
            Some(files) => from_file(files.routed(number, head, asked).await, trail.clone()),
            // Before the first generation serves, nobody is let in.
            None => error_for(head, 503, trail),
        }
    }
}

/// The route that takes a request, and notes it in the trail. The error is the answer to a path that nobody should send.
fn choose<'a>(
    routes: &'a Routes,
    asks: Asks<'_>,
    trail: &mut Trail,
) -> Result<Option<&'a Route>, Box<Response>> {
    let asked = Asked::new(asks.head, &asks.identity.host, asks.identity.headers_heard);
    match routes.choose(&asked) {
        Choice::Nobody => Ok(None),
        Choice::Route(route) => {
            trail.route = Some(Arc::clone(route.taken()));
            Ok(Some(route))
        }
        Choice::Doubtful => {
            ROUTES_DOUBTFUL_TOTAL.inc();
            trail.by = AnsweredBy::Gateway;
            Err(Box::new(error_saying(asks.head, 400, DOUBTFUL, trail)))
        }
    }
}

fn client(trail: &Trail) -> AddressText {
    trail.client.into()
}

fn comes<'a>(asks: Asks<'a>, client: &'a str, trail: &'a Trail) -> Comes<'a> {
    Comes {
        head: asks.head,
        identity: asks.identity,
        certificate: asks.connection.certificate.as_deref(),
        client,
        trail,
        html: wants_html(asks.head),
    }
}
