//! Orders: somebody wants a worker more, or one fewer, until the next reload.
//!
//! A pool with a fixed number has another fixed number then, up to `max` where the configuration names it. One that scales has another floor: load still brings more, and quiet
//! takes none below it. A reload brings back what is configured (`fit_staff`), as does a start, and so an upgrade. An order never
//! passes a bound of the configuration: it is refused, and told why.

use ctl_admin::words::{Change, Reply};
use ctl_autoscaler::Limits;

use crate::event::{ClientId, Level};

use super::State;
use super::recycle::mebibytes;
use super::reload::Reload;
use super::scale::workers_text;

/// Of a fixed number without a bound of its own: as many as `workers.count` may say.
const WORKERS_MAX: u32 = 1024;

/// What an order ends with where nothing changes.
const REFUSED: &str = "the number of workers stays as it is";

impl State {
    pub(super) fn scale_asked(&mut self, client: Option<ClientId>, pool: Option<&str>, change: Change) {
        match self.order(pool, change) {
            Ok(text) => {
                self.log(Level::Info, text.clone());
                self.reply(client.as_slice(), &Reply::Done { text });
            }
            Err(why) => {
                // A signal that comes now is meant for an heir, which has got it as well.
                if self.stop.is_none() {
                    self.log(Level::Warn, format!("{REFUSED}: {why}"));
                }
                let text = format!("error: {REFUSED}\ndetail: {why}");
                self.reply(client.as_slice(), &Reply::Failed { text, app: false });
            }
        }
    }

    /// For status: what is not as configured.
    pub(crate) fn order_notes(&self) -> Vec<String> {
        let ordered = self.settings.pools.iter().zip(&self.staff).filter(|(_, crew)| crew.ordered);
        let notes = ordered.map(|(pool, crew)| {
            let (now, configured) = (range(crew.min, crew.max), range(pool.min, pool.max));
            format!(
                "pool {}: {now} workers as ordered, {configured} as configured; the next reload goes back to that",
                pool.name
            )
        });
        notes.collect()
    }

    /// What is now so, or why not.
    fn order(&mut self, pool: Option<&str>, change: Change) -> Result<String, String> {
        if let Some(why) = self.takes_no_orders() {
            return Err(why.to_owned());
        }
        let index = self.pool_of(pool)?;
        let (Some(limits), Some(settings)) = (self.scale_limits(index), self.settings.pools.get(index))
        else {
            return Err(String::from("there is no such pool"));
        };
        let (name, scales, fewest) =
            (settings.name.clone(), settings.min < settings.max, settings.min.min(1));
        let bound = settings.bound.unwrap_or(WORKERS_MAX);
        let limits = if scales { limits } else { Limits { max: bound, ..limits } };
        let was = self.staff[index].wanted;
        let wanted = match change {
            Change::By(by) => was.saturating_add_signed(by),
            Change::To(number) => number,
        };
        if wanted < fewest {
            return Err(format!("pool {name} has at least {}", workers_text(fewest)));
        }
        self.find_room(index, wanted, &limits)?;
        let min = match change {
            // One fewer than load has brought does not raise the floor.
            Change::By(..0) => limits.min.min(wanted),
            Change::By(_) | Change::To(_) => wanted,
        };
        let crew = &mut self.staff[index];
        (crew.min, crew.max) = if scales { (min, limits.max) } else { (wanted, wanted) };
        (crew.wanted, crew.ordered) = (wanted, true);
        "as ordered".clone_into(&mut crew.reason);
        crew.scaler.order(wanted);
        let bounds = if scales { format!(" ({})", range(min, self.most(index))) } else { String::new() };
        let before = if was == wanted { "as before".to_owned() } else { format!("instead of {was}") };
        let workers = workers_text(wanted);
        Ok(format!("pool {name}: {workers} {before}, as ordered, until the next reload{bounds}"))
    }

    fn takes_no_orders(&self) -> Option<&'static str> {
        if self.stop.is_some() {
            Some("the instance is stopping")
        } else if self.settings.dev {
            Some("`quintet dev` has one worker")
        } else if self.heir.is_some() {
            Some("an upgrade is under way, and the new program begins with what is configured")
        } else if !self.has_started() {
            Some("the instance is still starting: try again when it serves")
        } else if self.reload.as_ref().is_some_and(Reload::waits_for_config) {
            Some("a reload begins, which brings what is configured: try again in a moment")
        } else {
            None
        }
    }

    fn pool_of(&self, name: Option<&str>) -> Result<usize, String> {
        let Some(name) = name else { return Ok(0) };
        let names = || self.settings.pools.iter().map(|pool| pool.name.as_str());
        names().position(|known| known == name).ok_or_else(|| {
            format!(
                "there is no pool \"{name}\"\nhint: the pools are {}",
                names().collect::<Vec<_>>().join(", ")
            )
        })
    }

    /// Do so many stay within the bounds?
    fn find_room(&self, pool: usize, wanted: u32, limits: &Limits) -> Result<(), String> {
        let was = self.staff[pool].wanted;
        let Some(more) = wanted.checked_sub(was).filter(|more| *more > 0) else { return Ok(()) };
        if wanted > limits.max {
            let setting = if pool == 0 { "workers.max" } else { "max in its [[worker_pool]]" };
            let (name, max) = (&self.settings.pools[pool].name, workers_text(limits.max));
            return Err(format!(
                "pool {name} has {max} at most\nhint: raise {setting}, then `quintet reload`"
            ));
        }
        let seen = self.seen(pool);
        if let Some(room) = seen.memory_room(was, limits).filter(|room| *room < more) {
            let [taken, one, max] =
                [seen.memory_bytes, seen.memory_bytes_per_worker, limits.memory_bytes_max].map(mebibytes);
            return Err(format!(
                "{}: all workers together take {taken}, one more about {one}, and workers.memory_total_max is {max}",
                fits(room)
            ));
        }
        let room = seen.connections_room(was, limits);
        if room < more {
            let (open, one, max) =
                (seen.db_connections, seen.db_connections_per_worker, limits.db_connections_max);
            return Err(format!(
                "{}: all workers together may open {open} database connections, one more {one}, and \
                 workers.db_connections_max is {max}",
                fits(room)
            ));
        }
        Ok(())
    }
}

fn fits(room: u32) -> String {
    match room {
        0 => "no more fit".to_owned(),
        room => format!("only {room} more fit"),
    }
}

/// `2`, or `2 to 8`.
fn range(min: u32, max: u32) -> String {
    if min == max { min.to_string() } else { format!("{min} to {max}") }
}
