//! What a route asks for, compiled.

use ctl_config::route::{ANYONE, Idempotency, SingleFlight};
use http_limits::Policy;

use super::line::WAITING_MAX;
use crate::guard::Whose;
use crate::message::Method;

/// `single_flight` and `idempotency` of a route.
#[derive(Debug)]
pub(crate) struct Rules {
    /// What a request does while another is under way.
    pub(crate) policy: Option<Policy>,
    /// For whom it is another.
    pub(crate) whose: Whose,
    idempotency: Option<Idempotency>,
}

impl Rules {
    /// `None`: nothing is asked for. The settings have been checked.
    pub(crate) fn new(own: &ctl_config::Route) -> Option<Self> {
        let policy = match own.single_flight.as_deref().and_then(|text| SingleFlight::parse(text).ok()) {
            None => None,
            Some(SingleFlight::Join) => Some(Policy::Join(WAITING_MAX)),
            Some(SingleFlight::Queue(most)) => Some(Policy::Queue(most)),
            Some(SingleFlight::Reject) => Some(Policy::Reject),
            Some(SingleFlight::CancelPrevious) => Some(Policy::CancelPrevious),
        };
        if policy.is_none() && own.idempotency.is_none() {
            return None;
        }
        let whose = Whose::new(own.single_flight_by.iter().filter(|by| *by != ANYONE));
        Some(Self { policy, whose, idempotency: own.idempotency })
    }

    /// Is the field Idempotency-Key heard for such requests? `Some(true)`: it must be there.
    pub(crate) fn hears_key(&self, method: &Method) -> Option<bool> {
        // The others are idempotent by themselves (RFC 9110, 9.2.2), or nobody knows what they do.
        let idempotency = self.idempotency.filter(|_| matches!(method, Method::Post | Method::Patch))?;
        Some(idempotency == Idempotency::Required)
    }
}
