//! What the operator sets.

use std::time::Duration;

/// Who gets the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// The quicker of two drawn at random, by what it takes and how much it has to do.
    #[default]
    PeakEwma,
    /// The one with the fewest requests.
    LeastLoaded,
    /// One after the other, evenly mixed by weight.
    RoundRobin,
    /// Always the same for the same key, unless it has much more to do than the others.
    Hash,
}

/// How servers are chosen, watched and spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Who gets the next request.
    pub policy: Policy,
    /// Requests that one server has at a time, those included that wait for a connection to it.
    pub concurrency_max: u32,
    /// How long a server that comes, or comes back, is given less than its share.
    pub slow_start: Duration,
    /// Failures in a row after which a server is taken out.
    pub eject_after: u32,
    /// For how long the first time; twice as long each time after it.
    pub eject_time: Duration,
    /// The longest of these times.
    pub eject_time_max: Duration,
    /// Of all servers, how many percent may be out because of what they answered. One always may, unless it is the last. Servers
    /// that cannot be reached at all do not count: nothing is spared by keeping them.
    pub eject_percent_max: u32,
    /// Good results of active checks in a row that bring a server back.
    pub health_rise: u32,
    /// Bad ones that take it out.
    pub health_fall: u32,
    /// Requests that may be sent again, in percent of all.
    pub retry_percent: u32,
    /// And as many besides in each second, so that a site with few requests has some.
    pub retries_per_second: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            policy: Policy::PeakEwma,
            concurrency_max: 512,
            slow_start: Duration::from_secs(10),
            // Five wrong answers in a row are no accident, and no single bad request makes so many.
            eject_after: 5,
            eject_time: Duration::from_secs(10),
            // Long enough to cost next to nothing, short enough that nobody waits for a server that has been repaired.
            eject_time_max: Duration::from_secs(300),
            // Where more than half fail, it is not the servers: taking out more would only bury the rest.
            eject_percent_max: 50,
            health_rise: 2,
            health_fall: 3,
            // Finagle's: load grows by a fifth at worst when everything fails.
            retry_percent: 20,
            retries_per_second: 10,
        }
    }
}
