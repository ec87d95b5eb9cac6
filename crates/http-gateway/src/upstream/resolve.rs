//! The addresses behind a server's name, asked for again as time passes.
//!
//! Hosts move: a name that was resolved once at the start would be a trap in every orchestrated network. What is known stays
//! in use while it is asked for again, and also when the answer is an error: a name server that is away must not take the site
//! with it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// After a failure nobody asks again for so long: each question takes a thread that may block.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// A name and what is known of it.
#[derive(Debug)]
pub(super) struct Name {
    host: String,
    port: u16,
    /// How long an answer is good.
    interval: Duration,
    known: Mutex<Known>,
    /// Held while the resolver is asked because nothing is known: one question for all who wait.
    asking: tokio::sync::Mutex<()>,
    refreshing: AtomicBool,
}

#[derive(Debug, Clone, Default)]
struct Known {
    addresses: Option<Arc<[SocketAddr]>>,
    /// When the resolver was last asked, successfully or not.
    at: Option<Instant>,
    /// `None`: for ever, it is an address.
    changes: bool,
}

impl Name {
    /// `host` is a name or an address, the latter without brackets.
    pub(super) fn new(host: &str, port: u16, interval: Duration) -> Self {
        let known = match host.parse::<IpAddr>() {
            Ok(address) => Known {
                addresses: Some(Arc::from([SocketAddr::new(address, port)])),
                at: None,
                changes: false,
            },
            Err(_) => Known { addresses: None, at: None, changes: true },
        };
        Self {
            host: host.to_owned(),
            port,
            interval,
            known: Mutex::new(known),
            asking: tokio::sync::Mutex::default(),
            refreshing: AtomicBool::new(false),
        }
    }

    fn known(&self) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Is this one of the addresses still, as far as is known?
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        self.known().addresses.is_none_or(|addresses| addresses.contains(&address))
    }

    /// The addresses; waits for the resolver only when there are none yet. Cancel safe.
    pub(super) async fn addresses(self: &Arc<Self>) -> io::Result<Arc<[SocketAddr]>> {
        let known = self.known();
        if let Some(addresses) = known.addresses {
            let stale = known.changes && known.at.is_none_or(|at| at.elapsed() >= self.interval);
            if stale && !self.refreshing.swap(true, Relaxed) {
                let name = Arc::clone(self);
                tokio::spawn(async move {
                    // What is known stays when this fails; it has been told.
                    let _ = name.ask().await;
                    name.refreshing.store(false, Relaxed);
                });
            }
            return Ok(addresses);
        }
        let _one_asks = self.asking.lock().await;
        let known = self.known();
        match known.addresses {
            Some(addresses) => Ok(addresses),
            None if known.at.is_some_and(|at| at.elapsed() < FAILURE_PAUSE) => {
                Err(io::Error::new(io::ErrorKind::NotFound, "the name could not be resolved a moment ago"))
            }
            None => self.ask().await,
        }
    }

    /// Asks the system's resolver, on a thread that may block.
    async fn ask(&self) -> io::Result<Arc<[SocketAddr]>> {
        let answer = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let answer = answer.and_then(|addresses| {
            let addresses: Arc<[SocketAddr]> = addresses.collect();
            if addresses.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
            }
            Ok(addresses)
        });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.at = Some(Instant::now());
        match &answer {
            Ok(addresses) => known.addresses = Some(Arc::clone(addresses)),
            Err(error) => {
                let kept = known.addresses.is_some();
                drop(known);
                let host = &self.host;
                warn!(host, kept_old = kept, "the name of an upstream's server was not resolved: {error}");
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_need_no_resolver() {
        let name = Arc::new(Name::new("::1", 80, Duration::ZERO));
        let addresses = name.addresses().await.unwrap();
        assert_eq!(&addresses[..], ["[::1]:80".parse().unwrap()]);
        assert!(name.has("[::1]:80".parse().unwrap()));
        assert!(!name.has("[::1]:81".parse().unwrap()));
    }

    #[tokio::test]
    async fn what_is_known_stays_while_it_is_asked_for_again() {
        let name = Arc::new(Name::new("localhost", 80, Duration::from_secs(1)));
        let loopback = |addresses: &[SocketAddr]| {
            !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback())
        };
        assert!(loopback(&name.addresses().await.unwrap()));
        // An answer of long ago, and another one.
        let old: SocketAddr = "192.0.2.1:80".parse().unwrap();
        {
            let mut known = name.known.lock().unwrap();
            known.addresses = Some(Arc::from([old]));
            known.at = None;
        }
        assert_eq!(&name.addresses().await.unwrap()[..], [old], "at once, what is known");
        for _ in 0..200 {
            if loopback(&name.addresses().await.unwrap()) {
                assert!(!name.has(old));
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it was never asked for again");
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_not_asked_for_all_the_time() {
        // RFC 6761, 6.4: never exists.
        let name = Arc::new(Name::new("nowhere.invalid", 80, Duration::from_secs(1)));
        assert!(name.addresses().await.is_err());
        let again = name.addresses().await.unwrap_err();
        assert!(again.to_string().contains("a moment ago"), "{again}");
    }
}
