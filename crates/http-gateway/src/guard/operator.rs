//! `quintet bans`: what the operator sees and says.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ctl_admin::words::{BanRow, BansAnswer, BansRequest};
use http_limits::{Ban, Reason};

use super::Guard;

/// Bans that one answer to `quintet bans list` holds: it travels as one line.
const LISTED_MAX: usize = 2000;

impl Guard {
    /// `quintet bans`.
    pub fn answer(&self, request: &BansRequest) -> BansAnswer {
        let now = self.clock.now();
        match request {
            BansRequest::List => {
                let all = self.bans.list(now);
                let total = all.len() as u64;
                BansAnswer::List { bans: all.iter().take(LISTED_MAX).map(row).collect(), total }
            }
            BansRequest::Add { address, seconds } => self.add(*address, *seconds, now),
            BansRequest::Remove { address } => {
                let client = http_limits::client(*address);
                let was = self.bans.remove(client, now);
                self.ban_changes.fetch_add(1, Relaxed);
                let note = self.news.as_ref().map_or("", |news| {
                    news.pardoned(client);
                    news.note()
                });
                if self.lists.load().deny.contains(*address) {
                    let text = format!("{address} stands in bans.deny_file: take it out there");
                    return BansAnswer::Failed { text };
                }
                let text =
                    if was { format!("{} may come again{note}", named(client)) } else { String::new() };
                if was {
                    BansAnswer::Done { text }
                } else {
                    BansAnswer::Failed { text: format!("{} is not banned", named(client)) }
                }
            }
        }
    }

    fn add(&self, address: IpAddr, seconds: Option<u64>, now: Duration) -> BansAnswer {
        let client = http_limits::client(address);
        let time = seconds.map_or(self.ban_time, Duration::from_secs);
        if self.trusted.contains(address) {
            let text = format!(
                "{address} is a trusted proxy: a ban would shut out everybody behind it\nhint: see proxy.trusted"
            );
            return BansAnswer::Failed { text };
        }
        if self.lists.load().allow.contains(address) {
            let text = format!("{address} is never banned: it stands in bans.allow_file");
            return BansAnswer::Failed { text };
        }
        match self.bans.add(client, time, now) {
            Ok(()) => {
                self.ban_changes.fetch_add(1, Relaxed);
                let note = self.news.as_ref().map_or("", |news| {
                    news.banned(client);
                    news.note()
                });
                BansAnswer::Done {
                    text: format!("{} is banned for {} s{note}", named(client), time.as_secs()),
                }
            }
            Err(full) => BansAnswer::Failed { text: format!("{full}\nhint: see bans.clients_max") },
        }
    }
}

fn row(ban: &Ban) -> BanRow {
    BanRow {
        client: named(ban.client),
        ends_in_s: ban.ends_in.as_secs().max(1),
        times: ban.times,
        by: match ban.reason {
            Reason::Offences => "offences",
            Reason::Operator => "operator",
        }
        .to_owned(),
    }
}

/// A client as people write it: an address, or the /64 that it stands for.
fn named(client: IpAddr) -> String {
    match client {
        IpAddr::V4(addr) => addr.to_string(),
        IpAddr::V6(addr) => format!("{addr}/64"),
    }
}
