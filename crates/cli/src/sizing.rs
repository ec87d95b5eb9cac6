//! How many workers, threads and reactors: a decision from what the machine has and what was asked for.
//!
//! Pure; [`crate::machine`] does the looking.

/// What the machine offers to us, container limits included.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    /// Cores we may use; a quota of a container makes fractions.
    pub(crate) cores: f64,
    /// What the cores were read from: "2 cores", "a quota of 0.5 of 64 cores".
    pub(crate) cores_text: String,
    /// Bytes we may use.
    pub(crate) memory: Option<u64>,
    /// The memory limit comes from a container, not from the machine.
    pub(crate) memory_limited: bool,
}

/// What the configuration fixes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `workers.count`.
    pub(crate) workers: Option<u32>,
    /// `workers.max`.
    pub(crate) workers_max: Option<u32>,
    /// `workers.db_connections_max`; 0: no bound.
    pub(crate) db_connections_max: u32,
    /// Slots of all workers that `[[worker_pool]]` may have.
    pub(crate) pool_slots: u32,
    /// `workers.threads`.
    pub(crate) threads: Option<u32>,
    /// `server.reactors`.
    pub(crate) reactors: Option<u32>,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sizing {
    /// Worker processes.
    pub(crate) workers: u32,
    /// Worker processes when requests wait: scaling goes from `workers` up to this.
    pub(crate) workers_max: u32,
    /// Slots of all other pools.
    pub(crate) pool_slots: u32,
    /// Threads of each.
    pub(crate) threads: u32,
    /// Reactor threads of the gateway.
    pub(crate) reactors: u32,
    /// Why, in words: workers, threads, reactors.
    pub(crate) reasons: [String; 3],
}

const MIB: u64 = 1 << 20;

/// A Django project with its packages takes 60 to 150 MiB in each process; forms, images and query results come on
/// top while requests run.
const WORKER_BYTES: u64 = 160 * MIB;

/// Supervisor and gateway with full buffers and the memory of small files.
const OURSELVES_BYTES: u64 = 192 * MIB;

/// Threads that one interpreter can feed while most of them wait for a database.
const THREADS: u32 = 4;

/// Requests that should be able to wait for a database at once, even where one core allows only one worker.
const SLOTS_MIN: u32 = 8;

/// Where requests wait for something else than this machine's CPU, more workers for each core help; beyond this their
/// memory is better spent otherwise.
const WORKERS_MAX_PER_CORE: u32 = 4;

/// `auto` never goes above this; more must be asked for.
const WORKERS_MAX: u32 = 256;

/// One reactor moves tens of thousands of requests a second; more of them only contend.
const REACTORS_MAX: u32 = 16;

/// Chooses what the configuration leaves open.
pub(crate) fn choose(machine: &Machine, asked: Asked) -> Sizing {
    let (workers, workers_why) = workers(machine, asked);
    let configured = |number| (number, "as configured".to_owned());
    let (threads, threads_why) = asked.threads.map_or_else(|| threads(workers), configured);
    let (reactors, reactors_why) = asked.reactors.map_or_else(|| reactors(machine), configured);
    let workers_max = workers_max(machine, asked, workers, threads);
    let reasons = [workers_why, threads_why, reactors_why];
    Sizing { workers, workers_max, pool_slots: asked.pool_slots, threads, reactors, reasons }
}

impl Sizing {
    /// Database connections that all workers of `slots` each may come to open: scaling stays below `limit`, unless the
    /// fewest workers need more.
    pub(crate) fn db_connections(&self, slots: u32, limit: u32) -> u32 {
        let most = self.workers_max.saturating_mul(slots).saturating_add(self.pool_slots);
        most.min(limit).max(self.workers.saturating_mul(slots))
    }

    /// `2`, or `2, up to 8 while requests wait`. Each worker may open so many database connections, and all together `limit`.
    pub(crate) fn workers_text(&self, each: u32, limit: u32) -> String {
        let Self { workers, workers_max, .. } = self;
        let most = limit.checked_div(each).unwrap_or(u32::MAX).min(*workers_max);
        if most > *workers {
            format!("{workers}, up to {most} while requests wait")
        } else {
            workers.to_string()
        }
    }
}

fn workers_max(machine: &Machine, asked: Asked, workers: u32, threads: u32) -> u32 {
    if let Some(max) = asked.workers_max {
        return max.max(workers);
    }
    if asked.workers.is_some() {
        return workers;
    }
    let by_cores = (machine.cores.ceil() as u32).saturating_mul(WORKERS_MAX_PER_CORE).min(WORKERS_MAX);
    let by_memory = fitting(machine).unwrap_or(u32::MAX);
    let by_database = match asked.db_connections_max {
        0 => u32::MAX,
        max => max / threads.max(1),
    };
    by_cores.min(by_memory).min(by_database).max(workers)
}

/// Workers that the memory holds.
fn fitting(machine: &Machine) -> Option<u32> {
    machine.memory.map(|memory| {
        let fitting = memory.saturating_sub(OURSELVES_BYTES) / WORKER_BYTES;
        u32::try_from(fitting).unwrap_or(u32::MAX).max(1)
    })
}

/// Descriptors that the gateway needs: every connection is one; each slot has a stream, and may have a file for its
/// body and one for its response.
pub(crate) fn descriptors(connections: u32, sizing: &Sizing) -> u64 {
    /// Listeners, logs, the runtime's own, static files being sent.
    const OTHERS: u64 = 256;
    let slots = u64::from(sizing.workers_max) * u64::from(sizing.threads) + u64::from(sizing.pool_slots);
    u64::from(connections) + 3 * slots + OTHERS
}

/// The connections for which `limit` descriptors suffice, when `connections` are too many.
pub(crate) fn fitting_connections(connections: u32, sizing: &Sizing, limit: u64) -> Option<u32> {
    let over = descriptors(connections, sizing).saturating_sub(limit);
    // One remains even where nothing fits: the gateway then says what it lacks.
    (over > 0)
        .then(|| u32::try_from(u64::from(connections).saturating_sub(over)).unwrap_or(connections).max(1))
}

fn workers(machine: &Machine, asked: Asked) -> (u32, String) {
    let fitting = fitting(machine);
    if let Some(workers) = asked.workers {
        let warning = match fitting {
            Some(fitting) if fitting < workers => format!(
                "; memory may become short, {} hold about {fitting} of {}",
                memory_text(machine),
                mib(WORKER_BYTES)
            ),
            _ => String::new(),
        };
        return (workers, format!("as configured{warning}"));
    }
    let by_cores = (machine.cores.ceil() as u32).clamp(1, WORKERS_MAX);
    let (chosen, why) = match fitting {
        Some(fitting) if fitting < by_cores => (
            fitting,
            format!(
                "{} hold {fitting} of about {} ({})",
                memory_text(machine),
                mib(WORKER_BYTES),
                machine.cores_text
            ),
        ),
        _ => (by_cores, format!("one for each core ({})", machine.cores_text)),
    };
    // Who names the most means it, also where the machine has room for more from the start.
    match asked.workers_max {
        Some(max) if max < chosen => (max, "workers.max allows no more".to_owned()),
        _ => (chosen, why),
    }
}

fn threads(workers: u32) -> (u32, String) {
    let threads = SLOTS_MIN.div_ceil(workers).max(THREADS);
    let why = if threads > THREADS {
        format!("few workers, and {SLOTS_MIN} requests should be able to wait for the database at once")
    } else {
        "while one waits for the database, others compute".to_owned()
    };
    (threads, why)
}

fn reactors(machine: &Machine) -> (u32, String) {
    let reactors = ((machine.cores / 2.0).ceil() as u32).clamp(1, REACTORS_MAX);
    let why = if reactors == 1 { "enough for this machine" } else { "one for every two cores" };
    (reactors, why.to_owned())
}

fn memory_text(machine: &Machine) -> String {
    let whose = if machine.memory_limited { "the container's " } else { "" };
    format!("{whose}{} of memory", mib(machine.memory.unwrap_or_default()))
}

/// `512 MiB`, `2.0 GiB`.
pub(crate) fn mib(bytes: u64) -> String {
    if bytes >= 1024 * MIB {
        format!("{:.1} GiB", bytes as f64 / (1024 * MIB) as f64)
    } else {
        format!("{} MiB", bytes / MIB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cores: f64, memory_mib: u64) -> Machine {
        let memory = (memory_mib > 0).then_some(memory_mib * MIB);
        Machine { cores, cores_text: format!("{cores} cores"), memory, memory_limited: true }
    }

    #[test]
    fn the_table() {
        for (cores, memory_mib, workers, threads, reactors) in [
            (2.0, 8_192, 2, 4, 1),
            (4.0, 8_192, 4, 4, 2),
            (1.0, 4_096, 1, 8, 1),
            // A container with half a core.
            (0.5, 512, 1, 8, 1),
            (1.5, 2_048, 2, 4, 1),
            // A large machine with a small memory limit.
            (64.0, 2_048, 11, 4, 16),
            (64.0, 65_536, 64, 4, 16),
            // Less memory than we need for ourselves: one worker and hope.
            (8.0, 128, 1, 8, 4),
            (1_000.0, 0, 256, 4, 16),
            (3.0, 0, 3, 4, 2),
        ] {
            let sizing = choose(&machine(cores, memory_mib), Asked::default());
            assert_eq!(
                (sizing.workers, sizing.threads, sizing.reactors),
                (workers, threads, reactors),
                "{cores} cores, {memory_mib} MiB"
            );
        }
    }

    #[test]
    fn what_is_asked_for_is_done() {
        let asked = Asked { workers: Some(12), threads: Some(1), reactors: Some(3), ..Asked::default() };
        let sizing = choose(&machine(2.0, 1_024), asked);
        assert_eq!((sizing.workers, sizing.threads, sizing.reactors), (12, 1, 3));
        assert!(sizing.reasons[0].contains("memory may become short"), "{}", sizing.reasons[0]);
        assert_eq!(sizing.reasons[1], "as configured");
    }

    #[test]
    fn scaling_has_room_where_there_is_room() {
        let most = |cores: f64, memory_mib: u64, asked: Asked| {
            let sizing = choose(&machine(cores, memory_mib), asked);
            (sizing.workers, sizing.workers_max, sizing.workers_text(sizing.threads, 80))
        };
        let asked = Asked { db_connections_max: 80, ..Asked::default() };
        assert_eq!(most(2.0, 8_192, asked), (2, 8, "2, up to 8 while requests wait".to_owned()));
        // The database: 80 connections for 4 threads each.
        assert_eq!(most(16.0, 0, asked).1, 20);
        // The memory.
        assert_eq!(most(4.0, 1_024, asked), (4, 5, "4, up to 5 while requests wait".to_owned()));
        assert_eq!(most(8.0, 128, asked), (1, 1, "1".to_owned()));
        // Never fewer than without requests.
        assert_eq!(most(64.0, 0, asked).1, 64);
        // Who names a number gets that number.
        assert_eq!(most(2.0, 0, Asked { workers: Some(3), ..asked }).1, 3);
        assert_eq!(most(2.0, 0, Asked { workers: Some(3), workers_max: Some(9), ..asked }).1, 9);
        assert_eq!(
            most(2.0, 0, Asked { workers_max: Some(9), ..asked }),
            (2, 9, "2, up to 9 while requests wait".to_owned())
        );
        assert_eq!(most(4.0, 0, Asked { workers_max: Some(3), ..asked }), (3, 3, "3".to_owned()));
        // ASGI: one connection for each request at work; none where there is no Django.
        let sizing = choose(&machine(2.0, 8_192), asked);
        assert_eq!(sizing.workers_text(16, 80), "2, up to 5 while requests wait");
        assert_eq!(
            (sizing.workers_text(16, 32), sizing.workers_text(16, 10)),
            ("2".to_owned(), "2".to_owned())
        );
        assert_eq!(sizing.workers_text(0, 10), "2, up to 8 while requests wait");
    }

    #[test]
    fn the_database_is_asked_for_what_scaling_may_come_to() {
        let sizing = choose(&machine(2.0, 0), Asked { db_connections_max: 80, ..Asked::default() });
        assert_eq!((sizing.db_connections(4, 80), sizing.db_connections(4, 20)), (32, 20));
        assert_eq!(sizing.db_connections(4, 4), 8, "two workers there are in any case");
        assert_eq!(sizing.db_connections(16, 80), 80, "ASGI: one for each request at work");
    }

    #[test]
    fn threads_follow_the_workers_that_are_asked_for() {
        let sizing = choose(&machine(16.0, 0), Asked { workers: Some(1), ..Asked::default() });
        assert_eq!(sizing.threads, 8);
    }

    #[test]
    fn connections_fit_the_descriptors() {
        let sizing = choose(&machine(2.0, 0), Asked::default());
        // As many workers as scaling may start.
        assert_eq!(descriptors(10_000, &sizing), 10_000 + 3 * 32 + 256);
        assert_eq!(fitting_connections(10_000, &sizing, 20_000), None);
        assert_eq!(fitting_connections(10_000, &sizing, 10_352), None);
        assert_eq!(fitting_connections(10_000, &sizing, 1_024), Some(672));
        assert_eq!(fitting_connections(10_000, &sizing, 100), Some(1));
    }

    #[test]
    fn the_reasons_name_the_limit() {
        let sizing = choose(&machine(64.0, 2_048), Asked::default());
        assert_eq!(
            sizing.reasons[0],
            "the container's 2.0 GiB of memory hold 11 of about 160 MiB (64 cores)"
        );
        let sizing = choose(&machine(2.0, 8_192), Asked::default());
        assert_eq!(sizing.reasons[0], "one for each core (2 cores)");
    }
}
