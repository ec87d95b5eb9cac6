//! How the app is asked: what a route says of it, and what holds for all requests where it says nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Dispatcher, Ready};
use crate::flight::Place;
use crate::message::RequestHead;
use crate::queue::Queue;
use crate::queue::priority::{Class, Level};

/// See the module. `None` stands for what holds for all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms<'a> {
    /// The pool by its number, whatever the path.
    pub pool: Option<u16>,
    /// `SCRIPT_NAME`.
    pub mount: Option<&'a str>,
    /// Longest request body.
    pub body_bytes_max: Option<u64>,
    /// How long the app may take to begin its answer.
    pub app_timeout: Option<Duration>,
    /// How long the request may wait for a slot.
    pub patience: Option<Duration>,
    /// How important it is.
    pub class: Option<Class>,
    /// Held until its worker is free again: see [`crate::flight`].
    pub flight: Option<&'a Arc<Place>>,
}

impl Dispatcher {
    /// Would this request be refused because of overload, so that its body need not be read?
    pub fn refuses(&self, head: &RequestHead, terms: &Terms<'_>, client: Option<IpAddr>) -> bool {
        let client = || client.map_or_else(String::new, |client| client.to_string());
        self.queue(head, terms).refuses(|| self.level(head, terms, &client()))
    }

    /// Whose app is asked: 0 is the one of `[app]`, N the Nth `[[module]]`.
    pub fn module(&self, head: &RequestHead, terms: &Terms<'_>) -> u16 {
        if self.pools.has_one_app() { 0 } else { self.pools.module_of(self.queue(head, terms).limits().pool) }
    }

    pub(super) fn queue(&self, head: &RequestHead, terms: &Terms<'_>) -> &Arc<Queue> {
        let named = terms.pool.and_then(|pool| self.pools.number(pool));
        named.unwrap_or_else(|| self.pools.pool_of(head.path()))
    }

    pub(super) fn level(&self, head: &RequestHead, terms: &Terms<'_>, client: &str) -> Level {
        self.pools.level(head, client, terms.class)
    }

    pub(super) fn app_timeout(&self, request: &Ready<'_>) -> Duration {
        let own = request.terms.app_timeout;
        own.unwrap_or_else(|| self.queue(request.head, &request.terms).limits().app_timeout)
    }

    pub(super) fn mount<'a>(&'a self, request: &Ready<'a>) -> &'a str {
        request.terms.mount.unwrap_or(&self.mount)
    }
}
