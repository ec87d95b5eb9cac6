//! The addresses behind the names of an upstream's servers, asked for again as time passes: each address is a server of its own.
//!
//! Hosts move and their number changes: a name that was resolved once at the start would be a trap in every orchestrated network. What
//! is known stays in use while it is asked for again, and also when the answer is an error: a name server that is away must not
//! take the site with it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{info, warn};

/// After a question nobody asks again for so long, whatever happens: each takes a thread that may block.
const PAUSE_LEAST: Duration = Duration::from_secs(1);

/// An answer that takes longer is a failure: what is known stays in use meanwhile.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Servers that a name can stand for. DNS over UDP brings some dozens; each has connections, a record and a row of metrics.
const ADDRESSES_MAX: usize = 256;

/// Where one server of a name is: one address, or both of a host that has one of each family.
pub(super) type Spot = Box<[SocketAddr]>;

/// A name and what is known of it.
#[derive(Debug)]
pub(super) struct Name {
    host: String,
    port: u16,
    /// How long an answer is good.
    interval: Duration,
    known: Mutex<Known>,
    /// A server of it could not be reached: it may have moved.
    hurried: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    spots: Vec<Spot>,
    /// When the resolver was last asked, successfully or not.
    at: Option<Instant>,
    /// The last answer was an error, and that was said.
    failing: bool,
    /// More than are used were there, and that was said.
    surplus: bool,
}

impl Name {
    pub(super) fn new(host: &str, port: u16, interval: Duration) -> Self {
        let (host, known) = (host.to_owned(), Mutex::default());
        Self { host, port, interval, known, hurried: AtomicBool::new(false) }
    }

    /// What is known of it.
    pub(super) fn spots(&self) -> Vec<Spot> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).spots.clone()
    }

    /// What is known may be wrong.
    pub(super) fn hurry(&self) {
        self.hurried.store(true, Relaxed);
    }

    /// Is it time to ask again?
    pub(super) fn is_due(&self) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(age) = known.at.map(|at| at.elapsed()) else { return true };
        let soon = known.spots.is_empty() || self.hurried.load(Relaxed);
        age >= if soon { PAUSE_LEAST } else { self.interval }
    }

    /// Asks the system's resolver, on a thread that may block. `true`: there is something new. Failures are told once, until it
    /// works again.
    pub(super) async fn ask(&self, upstream: &str) -> Result<bool, io::Error> {
        self.hurried.store(false, Relaxed);
        let asking = tokio::net::lookup_host((self.host.as_str(), self.port));
        let answer = match timeout(ANSWER_WAIT, asking).await {
            Ok(answer) => answer.map(|addresses| spots(addresses.collect())),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let answer = answer.and_then(|spots| {
            let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            if spots.is_empty() { Err(none()) } else { Ok(spots) }
        });
        let (host, mut known) = (&self.host, self.known.lock().unwrap_or_else(PoisonError::into_inner));
        known.at = Some(Instant::now());
        match answer {
            Ok(mut spots) => {
                let surplus = spots.len() > ADDRESSES_MAX;
                if surplus && !std::mem::replace(&mut known.surplus, surplus) {
                    warn!(upstream, host, used = ADDRESSES_MAX, "a name has more addresses than are used");
                }
                spots.truncate(ADDRESSES_MAX);
                if std::mem::replace(&mut known.failing, false) {
                    info!(upstream, host, "the name of an upstream's server is resolved again");
                }
                let is_new = known.spots != spots;
                if is_new {
                    known.spots = spots;
                }
                Ok(is_new)
            }
            Err(error) => {
                let kept = known.spots.len();
                if !std::mem::replace(&mut known.failing, true) {
                    warn!(
                        upstream,
                        host,
                        kept,
                        "the name of an upstream's server was not resolved, what is known stays: {error}"
                    );
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
impl Name {
    pub(super) fn pretend(&self, spots: &[Spot]) {
        let mut known = self.known.lock().unwrap();
        (known.spots, known.at) = (spots.to_vec(), Some(Instant::now()));
    }

    pub(super) fn forget_when(&self) {
        self.known.lock().unwrap().at = None;
    }
}

/// The servers behind the addresses of a name, in an order that does not change with the answer's. One address of each family is one
/// host that has both (`localhost` is one): IPv4 first, since whoever publishes it listens there. Of more than that nobody can
/// know which belong together.
fn spots(mut addresses: Vec<SocketAddr>) -> Vec<Spot> {
    addresses.sort_unstable();
    addresses.dedup();
    match addresses[..] {
        [four @ SocketAddr::V4(_), six @ SocketAddr::V6(_)] => vec![Box::new([four, six])],
        _ => addresses.into_iter().map(|address| -> Spot { Box::new([address]) }).collect(),
    }
}

/// An address, which needs no resolver.
pub(super) fn literal(host: &str, port: u16) -> Option<Spot> {
    let address: IpAddr = host.parse().ok()?;
    Some(Box::new([SocketAddr::new(address, port)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(addresses: &[&str]) -> Vec<String> {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let shown = |spot: &Spot| spot.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        spots(addresses).iter().map(shown).collect()
    }

    #[test]
    fn each_address_is_a_server_but_a_host_with_both_families_is_one() {
        assert_eq!(shown(&[]), [""; 0]);
        assert_eq!(shown(&["10.0.0.1:80"]), ["10.0.0.1:80"]);
        assert_eq!(shown(&["[::1]:80", "127.0.0.1:80", "[::1]:80"]), ["127.0.0.1:80 or [::1]:80"]);
        assert_eq!(shown(&["10.0.0.2:80", "10.0.0.1:80"]), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(
            shown(&["10.0.0.2:80", "[fd00::1]:80", "10.0.0.1:80"]),
            ["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"]
        );
        assert_eq!(literal("::1", 80).unwrap()[..], ["[::1]:80".parse().unwrap()]);
        assert_eq!(literal("app", 80), None);
    }

    #[tokio::test]
    async fn what_is_known_stays_when_the_answer_is_an_error() {
        // RFC 6761, 6.4: never exists.
        let name = Name::new("nowhere.invalid", 80, Duration::from_secs(3600));
        assert!(name.is_due() && name.spots().is_empty());
        assert!(name.ask("api").await.is_err());
        assert!(!name.is_due(), "it is not asked for all the time");
        let old: Vec<Spot> = vec![literal("192.0.2.1", 80).unwrap()];
        name.known.lock().unwrap().spots = old.clone();
        assert!(name.ask("api").await.is_err());
        assert_eq!(name.spots(), old);
    }

    #[tokio::test]
    async fn a_name_is_asked_for_again_when_it_is_time_or_its_server_is_away() {
        let name = Name::new("localhost", 80, Duration::from_secs(3600));
        assert!(name.ask("api").await.unwrap(), "it is new");
        assert!(!name.ask("api").await.unwrap(), "it is not");
        assert_eq!(name.spots().len(), 1, "one host, whatever its families");
        assert!(name.spots().iter().flatten().all(|address| address.ip().is_loopback()));
        assert!(!name.is_due());
        name.hurry();
        assert!(!name.is_due(), "not at once");
        let ago = Instant::now().checked_sub(2 * PAUSE_LEAST).unwrap();
        name.known.lock().unwrap().at = Some(ago);
        assert!(name.is_due());
        assert!(!name.ask("api").await.unwrap());
        name.known.lock().unwrap().at = Some(ago);
        assert!(!name.is_due(), "once is enough");
    }
}
