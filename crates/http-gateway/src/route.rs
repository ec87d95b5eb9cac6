//! `[[route]]`: which route takes a request, and what it makes of it.
//!
//! Pure: what a route decides, [`crate::service`] does. [`Routes::choose`] compares a request with one route after another
//! (`condition`), in all the ways in which its path may be read (`reading`); [`Route`] then says what is changed on the way
//! (`change`) and who answers ([`Action`], `answer`). Without a `[[route]]` there are no [`Routes`], and nothing is done at all.
//!
//! Promises: a choice takes time linear in path and routes (no backtracking); what a client sends is never part of an expression, of
//! another header field, or of the host of a redirect.

mod answer;
mod change;
mod condition;
pub mod forward_auth;
mod htpasswd;
mod reading;
mod vouched;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ctl_config::route::{Importance, Rewrite, Template};
use ctl_config::{Config, Fault};

use crate::client::{Identity, Scheme};
use crate::dispatch::Terms;
use crate::flight;
use crate::message::{Headers, RequestHead, Response, Taken, Trail};
use crate::pace::Bandwidth;
pub use crate::pools::pattern::decode;
use crate::queue::priority::Class;
use crate::tls::ClientCertificate;
pub(crate) use answer::one_slash;
use change::{Edits, RequestChange, Says};
use condition::Conditions;
pub use condition::{Asked, Unmet};
use forward_auth::ForwardAuth;
pub use htpasswd::{Credentials, Users};
use reading::Reading;
use vouched::Vouched;

/// Status of a redirect that does not say another: for now, and with the same method (RFC 9110, 15.4.8).
const REDIRECT_STATUS: u16 = 307;

/// All routes, in the order of the file.
#[derive(Debug)]
pub struct Routes {
    routes: Box<[Route]>,
    vouched: Vouched,
}

/// Which route takes a request.
#[derive(Debug, Clone, Copy)]
pub enum Choice<'a> {
    /// None: files and app, as without routes.
    Nobody,
    /// This one.
    Route(&'a Route),
    /// Read in another way, its path would lead to another route: 400.
    Doubtful,
}

/// One route's word on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It takes it.
    Takes,
    /// Why not.
    Unmet(Unmet),
    /// It would take it if its path were read in another way.
    OtherReading,
}

/// Who answers.
#[derive(Debug)]
enum Action {
    /// Files and app as without routes.
    Site,
    /// Workers of the pool in the terms.
    App,
    /// The files of this number among those of routes.
    Files(usize),
    /// The upstream of this name.
    Upstream(Box<str>),
    Redirect {
        to: Template,
        status: u16,
    },
    Respond {
        text: Bytes,
        status: u16,
    },
}

/// A route.
#[derive(Debug)]
pub struct Route {
    taken: Arc<Taken>,
    conditions: Conditions,
    action: Action,
    request: RequestChange,
    response: Edits,
    https: bool,
    client_certificate: bool,
    hsts: Option<Box<[u8]>>,
    /// The file of users of this number must know who asks.
    users: Option<usize>,
    /// Who decides besides.
    forward_auth: Option<Box<ForwardAuth>>,
    mount: Option<Box<str>>,
    terms: Terms<'static>,
    /// The numbers of the limits that it names.
    limits: Box<[usize]>,
    /// What is done about requests that are sent twice.
    flight: Option<Box<flight::Rules>>,
    number: usize,
}

/// What becomes of a request.
pub enum Way<'a> {
    /// This is the answer.
    Answer(Response),
    /// A file of the directory of this number, asked for by this head.
    File(usize, Cow<'a, RequestHead>),
    /// The servers of an upstream.
    Upstream {
        /// Its name.
        name: &'a str,
        /// The request as it goes on.
        head: Cow<'a, RequestHead>,
        /// Longest body, where it is not as elsewhere.
        body_bytes_max: Option<u64>,
    },
    /// Files and app, or the app alone.
    On {
        /// The request as it goes on.
        head: Cow<'a, RequestHead>,
        /// Its forwarded headers may be heard.
        headers_heard: bool,
        /// How the app is asked.
        terms: Terms<'a>,
        /// Files are not looked for.
        app_only: bool,
    },
}

/// A request, who asks, and under which id.
#[derive(Debug, Clone, Copy)]
pub struct Comes<'a> {
    /// As it came.
    pub head: &'a RequestHead,
    /// Who asks.
    pub identity: &'a Identity<'a>,
    /// Who that is by his certificate.
    pub certificate: Option<&'a ClientCertificate>,
    /// The client's address as text.
    pub client: &'a str,
    /// So far.
    pub trail: &'a Trail,
    /// An error is to be read by a person.
    pub html: bool,
}

impl<'a> Comes<'a> {
    fn says(&self, target: &'a [u8]) -> Says<'a> {
        Says {
            https: self.identity.scheme == Scheme::Https,
            host: if self.identity.host.is_empty() { &[] } else { &self.identity.server_name },
            target,
            client: self.client,
            request_id: self.trail.request_id.as_bytes(),
            certificate: self.certificate,
        }
    }
}

impl Routes {
    /// The routes of a configuration, which has been checked; `None`: it has none.
    pub fn new(config: &Config) -> Result<Option<Self>, String> {
        let mut numbers = Numbers::default();
        let mut routes = Vec::with_capacity(config.route.len());
        for (index, own) in config.route.iter().enumerate() {
            let label = own.label(index);
            let route = Route::new(own, (&label, index), config, &mut numbers)
                .map_err(|fault| format!("route {label}: {}", fault.message))?;
            routes.push(route);
        }
        let vouched = Vouched::new(config);
        Ok((!routes.is_empty()).then(|| Self { routes: routes.into(), vouched }))
    }

    /// A request without the fields that only quintet may write; `None`: it has none of them.
    pub fn without_claims(&self, head: &RequestHead) -> Option<Box<RequestHead>> {
        self.vouched.without(head)
    }

    /// The first route that takes a request.
    pub fn choose(&self, asked: &Asked<'_>) -> Choice<'_> {
        let as_app = Reading::of(asked.path);
        let first = self.first(asked, &as_app);
        let others = reading::others(asked.path, &as_app);
        if others.iter().any(|other| self.first(asked, other) != first) {
            return Choice::Doubtful;
        }
        first.and_then(|index| self.routes.get(index)).map_or(Choice::Nobody, Choice::Route)
    }

    /// The route of this number.
    pub(crate) fn number(&self, number: usize) -> Option<&Route> {
        self.routes.get(number)
    }

    fn first(&self, asked: &Asked<'_>, path: &Reading<'_>) -> Option<usize> {
        self.routes.iter().position(|route| route.conditions.unmet(asked, path).is_none())
    }

    /// What each route says to a request, whoever is before it.
    pub fn explain(&self, asked: &Asked<'_>) -> Vec<Verdict> {
        let as_app = Reading::of(asked.path);
        let others = reading::others(asked.path, &as_app);
        let verdict = |route: &Route| match route.conditions.unmet(asked, &as_app) {
            None => Verdict::Takes,
            Some(_) if others.iter().any(|other| route.conditions.unmet(asked, other).is_none()) => {
                Verdict::OtherReading
            }
            Some(unmet) => Verdict::Unmet(unmet),
        };
        self.routes.iter().map(verdict).collect()
    }
}

impl Route {
    fn new(
        own: &ctl_config::Route,
        (label, number): (&str, usize),
        config: &Config,
        numbers: &mut Numbers,
    ) -> Result<Self, Fault> {
        let status =
            |otherwise: u16| own.status.and_then(|status| u16::try_from(status).ok()).unwrap_or(otherwise);
        let action = if let Some(to) = &own.redirect {
            Action::Redirect { to: Template::parse(to)?, status: status(REDIRECT_STATUS) }
        } else if let Some(text) = &own.respond {
            Action::Respond { text: Bytes::from(text.clone()), status: status(200) }
        } else if own.files.is_some() {
            Action::Files(next(&mut numbers.files))
        } else if let Some(name) = &own.upstream {
            Action::Upstream(name.as_str().into())
        } else if own.app.is_some() {
            Action::App
        } else {
            Action::Site
        };
        let pool = own.app.as_ref().and_then(|name| config.pool_number(name));
        Ok(Self {
            taken: Arc::new(Taken {
                name: label.into(),
                compress: own.compress,
                bandwidth: own.bandwidth.map(|rate| Bandwidth {
                    rate,
                    after: own.bandwidth_after.unwrap_or(config.limits.bandwidth_after),
                }),
            }),
            conditions: Conditions::new(own)?,
            action,
            request: RequestChange {
                strip_prefix: own.strip_prefix.as_deref().map(Box::from),
                rewrite: own.rewrite.as_deref().map(Rewrite::parse).transpose()?,
                headers: Edits::new(&own.request_headers, true)?,
            },
            response: Edits::new(&own.response_headers, false)?,
            https: own.https,
            client_certificate: own.client_certificate,
            forward_auth: ForwardAuth::new(own, config)?.map(Box::new),
            users: own.basic_auth.as_ref().map(|_| next(&mut numbers.users)),
            hsts: own.hsts.map(|age| format!("max-age={}", age.as_secs()).into_bytes().into()),
            mount: own.mount.as_deref().map(Box::from),
            terms: Terms {
                pool,
                mount: None,
                body_bytes_max: own.body_max,
                app_timeout: own.app_timeout,
                patience: own.queue_timeout,
                class: own.priority.map(class),
                flight: None,
            },
            limits: own
                .limit
                .iter()
                .filter_map(|name| config.limit.iter().position(|limit| limit.name == *name))
                .collect(),
            flight: flight::Rules::new(own).map(Box::new),
            number,
        })
    }

    /// What of it goes along with the answer.
    pub fn taken(&self) -> &Arc<Taken> {
        &self.taken
    }

    /// What is done about requests that are sent twice.
    pub(crate) fn flight(&self) -> Option<&flight::Rules> {
        self.flight.as_deref()
    }

    /// Its place among the routes: see [`Routes::number`].
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// The longest body, where it is not as elsewhere.
    pub(crate) fn body_bytes_max(&self) -> Option<u64> {
        self.terms.body_bytes_max
    }

    /// How long the app may take, where it is not as elsewhere.
    pub(crate) fn app_timeout(&self) -> Option<Duration> {
        self.terms.app_timeout
    }

    /// How long a request may wait, where it is not as elsewhere.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.terms.patience
    }

    /// The limits that hold for its requests besides those that hold for all, by their numbers.
    pub fn limits(&self) -> &[usize] {
        &self.limits
    }

    /// The answer to a request that comes over plain HTTP, where this route is for https only.
    pub fn to_https(&self, comes: Comes<'_>) -> Option<Response> {
        let says = comes.says(&comes.head.target);
        if !self.https || says.https {
            return None;
        }
        if says.host.is_empty() {
            return Some(answer::respond(400, &Bytes::new(), comes.html, comes.trail.clone()));
        }
        let secure = [b"https://", says.host, &bare(says)].concat();
        Some(answer::to_https(comes.head, &secure, comes.trail.clone()))
    }

    /// Must a client have shown a certificate, and has not?
    pub fn lacks_certificate(&self, comes: Comes<'_>) -> bool {
        self.client_certificate && comes.certificate.is_none()
    }

    /// The number of the file of users that must know who asks.
    pub fn users(&self) -> Option<usize> {
        self.users
    }

    /// Who is asked whether a request may pass.
    pub fn forward_auth(&self) -> Option<&ForwardAuth> {
        self.forward_auth.as_deref()
    }

    /// What becomes of a request that it takes, and that may pass.
    pub fn way<'a>(&'a self, comes: Comes<'a>) -> Way<'a> {
        let says = comes.says(&comes.head.target);
        let (head, headers_heard) = self.request.apply(comes.head, comes.identity.headers_heard, says);
        match &self.action {
            Action::Redirect { to, status } => {
                let location = answer::location(to, Says { target: &head.target, ..says });
                Way::Answer(answer::redirect(*status, &location, comes.trail.clone()))
            }
            Action::Respond { text, status } => {
                Way::Answer(answer::respond(*status, text, comes.html, comes.trail.clone()))
            }
            Action::Files(number) => Way::File(*number, head),
            Action::Upstream(name) => Way::Upstream { name, head, body_bytes_max: self.terms.body_bytes_max },
            Action::App | Action::Site => Way::On {
                head,
                headers_heard,
                terms: Terms { mount: self.mount.as_deref(), ..self.terms },
                app_only: matches!(self.action, Action::App),
            },
        }
    }

    /// Changes an answer's fields as the route says, whoever gave it.
    pub fn finish(&self, comes: Comes<'_>, headers: &mut Headers) {
        let says = comes.says(&comes.head.target);
        // RFC 6797, 7.2: not over plain HTTP, where anybody could have written it.
        if let Some(hsts) = self.hsts.as_deref().filter(|_| says.https)
            && !headers.contains("strict-transport-security")
        {
            headers.push(b"Strict-Transport-Security", hsts);
        }
        self.response.apply(headers, says);
    }
}

/// A request as it would be without its mount; `None`: it is not below it.
pub(crate) fn below_mount(head: &RequestHead, mount: &str) -> Option<RequestHead> {
    let target = change::strip(&head.target, mount.as_bytes())?;
    Some(RequestHead { target, ..head.clone() })
}

/// How many there are so far.
#[derive(Default)]
struct Numbers {
    files: usize,
    users: usize,
}

/// The next number, from 0.
fn next(count: &mut usize) -> usize {
    *count += 1;
    *count - 1
}

/// Path and query.
fn bare(says: Says<'_>) -> Vec<u8> {
    use ctl_config::route::Placeholder::{Path, Query};
    [says.of(Path), says.of(Query)].concat()
}

fn class(importance: Importance) -> Class {
    match importance {
        Importance::Critical => Class::Critical,
        Importance::High => Class::High,
        Importance::Normal => Class::Normal,
        Importance::Low => Class::Low,
        Importance::Lowest => Class::Lowest,
    }
}

/// The directories of routes, in their order: [`Way::File`] has the number.
pub fn directories(config: &Config) -> impl Iterator<Item = &std::path::PathBuf> {
    config
        .route
        .iter()
        .filter(|route| route.redirect.is_none() && route.respond.is_none())
        .filter_map(|route| route.files.as_ref())
}

/// The files of users, in the order of the routes, with the labels of these: [`Route::users`] has the number.
pub fn users_files(config: &Config) -> impl Iterator<Item = (&std::path::PathBuf, String)> {
    let labelled = config.route.iter().enumerate();
    labelled.filter_map(|(index, route)| Some((route.basic_auth.as_ref()?, route.label(index))))
}

#[cfg(test)]
mod tests;
