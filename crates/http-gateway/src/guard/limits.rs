//! `[[limit]]`: which limits hold for a request, whom it is counted for, and what its answer tells.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use ctl_config::{Config, Limit as Setting, LimitAction};
use http_limits::{KeptLimit, Quota, Seed, Table, Verdict};

use super::answer::Refused;
use super::shared::{Digest, Held};
use super::whose::{Asks, Whose};
use crate::message::{Headers, Method};
use crate::pools::pattern::{Pattern, decode};

/// Debts below this are not kept over a restart: a restart takes longer than most of them last.
const KEPT_DEBT_MIN: Duration = Duration::from_secs(5);

/// One limit, compiled.
struct Limit {
    name: Box<str>,
    paths: Box<[Pattern]>,
    methods: Box<[Method]>,
    by: Whose,
    delays: bool,
    announces: bool,
    /// Name and terms, to tell whether what was kept was counted under the same ones.
    definition: String,
    /// The value of `RateLimit-Policy`.
    policy: Box<str>,
    table: Table,
}

/// All limits, in the order of the file.
pub(super) struct Limits {
    all: Box<[Limit]>,
    /// The numbers of those that no route names: they hold for all.
    general: Box<[usize]>,
    /// One of them looks at paths: to decode each costs more than to count it.
    read_paths: bool,
    /// One of them looks for sessions.
    read_sessions: bool,
    seed: Seed,
}

/// What all limits say to a request.
pub(super) enum Checked {
    /// It fits into all of them; its turn is after this time.
    Passes {
        turn_in: Duration,
        pass: Pass,
        /// At least one holds for it.
        counted: bool,
    },
    /// It does not.
    Refused(Refused),
}

/// What the answer is to tell of limits that announce themselves; mostly nothing.
#[derive(Debug, Default)]
pub struct Pass(Option<Box<Told>>);

#[derive(Debug, Default)]
struct Told {
    policies: String,
    limits: String,
}

impl Pass {
    /// Writes the fields.
    pub fn tell(self, headers: &mut Headers) {
        if let Some(told) = self.0 {
            headers.push(b"RateLimit-Policy", told.policies.as_bytes());
            headers.push(b"RateLimit", told.limits.as_bytes());
        }
    }

    /// draft-ietf-httpapi-ratelimit-headers-11: both fields are lists, an item a policy.
    fn add(&mut self, limit: &Limit, remaining: u64, full_in: Duration) {
        let told = self.0.get_or_insert_default();
        let comma = if told.limits.is_empty() { "" } else { ", " };
        told.policies.push_str(comma);
        told.policies.push_str(&limit.policy);
        // A String takes everything.
        let _ = write!(
            told.limits,
            "{comma}\"{}\";r={remaining};t={}",
            limit.name,
            super::answer::seconds_up(full_in)
        );
    }
}

impl Limits {
    pub(super) fn new(config: &Config, seed: Seed) -> Self {
        let of_routes = |limit: &Setting| config.route.iter().any(|route| route.limit.contains(&limit.name));
        let all = config.limit.iter().enumerate();
        let general = all.filter(|(_, limit)| !of_routes(limit)).map(|(number, _)| number).collect();
        let all: Box<[Limit]> = config.limit.iter().map(Limit::new).collect();
        let read_paths = all.iter().any(|limit| !limit.paths.is_empty() || limit.by.reads_path());
        let read_sessions = all.iter().any(|limit| limit.by.reads_session());
        Self { all, general, read_paths, read_sessions, seed }
    }

    /// Does one of them look for sessions?
    pub(super) fn read_sessions(&self) -> bool {
        self.read_sessions
    }

    /// The path of a request, where somebody looks at it.
    fn path<'a>(&self, asks: &Asks<'a>) -> Cow<'a, [u8]> {
        if self.read_paths { decode(asks.head.path()) } else { Cow::Borrowed(&[]) }
    }

    /// Nothing is counted before the route is known.
    pub(super) fn is_idle(&self) -> bool {
        self.general.is_empty()
    }

    /// Counts a request under every limit that holds whatever its route is; under none, when one of them refuses it.
    pub(super) fn check(&self, asks: &Asks<'_>, now: Duration) -> Checked {
        self.count(asks, &self.general, now)
    }

    /// The same for the limits of a route, by their numbers. Who is refused now was counted under none of the others either.
    pub(super) fn check_route(&self, asks: &Asks<'_>, numbers: &[usize], now: Duration) -> Checked {
        let checked = self.count(asks, numbers, now);
        if let Checked::Refused(_) = checked {
            self.give_back(asks, &self.general);
        }
        checked
    }

    /// Requests that were counted are not made after all.
    pub(super) fn give_back(&self, asks: &Asks<'_>, numbers: &[usize]) {
        let path = self.path(asks);
        let asker = Asker { asks, path: &path, seed: self.seed };
        for limit in numbers.iter().filter_map(|number| self.all.get(*number)) {
            if let Some(key) = limit.key(&asker) {
                limit.table.give_back(key);
            }
        }
    }

    fn count(&self, asks: &Asks<'_>, numbers: &[usize], now: Duration) -> Checked {
        let path = self.path(asks);
        let asker = Asker { asks, path: &path, seed: self.seed };
        let (mut turn_in, mut pass, mut counted) = (Duration::ZERO, Pass::default(), false);
        for (place, number) in numbers.iter().enumerate() {
            let Some(limit) = self.all.get(*number) else { continue };
            let Some(key) = limit.key(&asker) else { continue };
            counted = true;
            match limit.table.take(key, now) {
                Verdict::Passes { turn_in: turn, remaining, full_in } => {
                    limit.tell(turn, (remaining, full_in), &mut turn_in, &mut pass);
                }
                Verdict::Refused { retry_in } => {
                    self.give_back(asks, &numbers[..place]);
                    return Checked::Refused(limit.refused(retry_in));
                }
            }
        }
        Checked::Passes { turn_in, pass, counted }
    }

    /// The numbers of the limits that hold whatever the route of a request is.
    pub(super) fn general(&self) -> &[usize] {
        &self.general
    }

    /// Those of these limits that hold for a request, with the keys under which it counts.
    pub(super) fn held(&self, asks: &Asks<'_>, numbers: &[usize]) -> Vec<Held> {
        let path = self.path(asks);
        let asker = Asker { asks, path: &path, seed: self.seed };
        let held = numbers.iter().filter_map(|number| {
            let limit = self.all.get(*number)?;
            let key = limit.key(&asker)?;
            let mut digest = Digest::of(&limit.definition);
            limit.by.put(&mut digest, asks, &path)?;
            Some(Held { number: *number, key, shared: digest.key(), ticks: limit.table.quota().ticks() })
        });
        held.collect()
    }

    /// What others have said of limits, in their order, as if it had been said here.
    pub(super) fn told(&self, held: &[Held], verdicts: &[Verdict]) -> Checked {
        let (mut turn_in, mut pass) = (Duration::ZERO, Pass::default());
        for (held, verdict) in held.iter().zip(verdicts) {
            if let (Some(limit), Verdict::Passes { turn_in: turn, remaining, full_in }) =
                (self.all.get(held.number), verdict)
            {
                limit.tell(*turn, (*remaining, *full_in), &mut turn_in, &mut pass);
            }
        }
        Checked::Passes { turn_in, pass, counted: true }
    }

    /// The same of a refusal by one of them.
    pub(super) fn refusal(&self, held: &[Held], place: usize, retry_in: Duration) -> Checked {
        let limit = held.get(place).and_then(|held| self.all.get(held.number));
        match limit {
            Some(limit) => Checked::Refused(limit.refused(retry_in)),
            // There is no such limit: nobody is refused for it.
            None => Checked::Passes { turn_in: Duration::ZERO, pass: Pass::default(), counted: true },
        }
    }

    /// What was counted here counts no more.
    pub(super) fn give_back_held(&self, held: &[Held]) {
        for held in held {
            if let Some(limit) = self.all.get(held.number) {
                limit.table.give_back(held.key);
            }
        }
    }

    /// Gives memory back that a flood took.
    pub(super) fn tidy(&self, now: Duration) {
        self.all.iter().for_each(|limit| limit.table.tidy(now));
    }

    /// Memory, and debts that were forgotten for want of room.
    pub(super) fn size(&self) -> (usize, u64) {
        let tables = || self.all.iter().map(|limit| &limit.table);
        (tables().map(Table::bytes).sum(), tables().map(Table::forgotten).sum())
    }

    /// What is to outlive the process.
    pub(super) fn keep(&self, now: Duration) -> Vec<KeptLimit> {
        let kept = self.all.iter().map(|limit| KeptLimit {
            definition: limit.definition.clone(),
            debts: limit.table.debts(KEPT_DEBT_MIN, now),
        });
        kept.filter(|kept| !kept.debts.is_empty()).collect()
    }

    /// What another process counted, as long as it counted the same.
    pub(super) fn restore(&self, kept: &[KeptLimit], elapsed: Duration, now: Duration) {
        for kept in kept {
            let same = self.all.iter().find(|limit| limit.definition == kept.definition);
            let Some(limit) = same else { continue };
            for (key, debt) in &kept.debts {
                if let Some(left) = debt.checked_sub(elapsed).filter(|left| !left.is_zero()) {
                    limit.table.restore(*key, left, now);
                }
            }
        }
    }
}

/// Who asks for what, read.
struct Asker<'a> {
    asks: &'a Asks<'a>,
    path: &'a Cow<'a, [u8]>,
    seed: Seed,
}

impl Limit {
    fn new(setting: &Setting) -> Self {
        let (count, period) = setting.per();
        let quota = Quota::new(count, period, setting.burst());
        // What fits at once, and the time in which as many may come again.
        let policy = format!(
            "\"{}\";q={};w={}",
            setting.name,
            quota.burst(),
            super::answer::seconds_up(quota.window())
        );
        Self {
            name: setting.name.as_str().into(),
            paths: setting.path.iter().map(|path| Pattern::new(path)).collect(),
            methods: methods(&setting.method),
            by: Whose::new(&setting.by),
            delays: setting.action == LimitAction::Delay,
            announces: setting.announce,
            definition: format!(
                "{} {} burst {} by {}",
                setting.name,
                setting.rate,
                setting.burst(),
                setting.by.join(",")
            ),
            policy: policy.into(),
            table: Table::new(quota, setting.keys_max as usize),
        }
    }

    /// Adds what it says of a request that fits.
    fn tell(
        &self,
        turn: Duration,
        (remaining, full_in): (u64, Duration),
        turn_in: &mut Duration,
        pass: &mut Pass,
    ) {
        if self.delays {
            *turn_in = turn.max(*turn_in);
        }
        if self.announces {
            pass.add(self, remaining, full_in);
        }
    }

    fn refused(&self, retry_in: Duration) -> Refused {
        Refused::Limited { name: self.name.clone(), policy: self.policy.clone(), retry_in }
    }

    /// The key under which a request counts. `None`: the limit does not hold for it, or nothing tells who asks.
    fn key(&self, asker: &Asker<'_>) -> Option<u64> {
        let head = asker.asks.head;
        let holds = (self.methods.is_empty() || self.methods.contains(&head.method))
            && (self.paths.is_empty() || self.paths.iter().any(|path| path.matches(asker.path)));
        if !holds {
            return None;
        }
        let mut key = asker.seed.hasher();
        self.by.put(&mut key, asker.asks, asker.path)?;
        Some(key.key())
    }
}

/// GET stands for HEAD as well, as it does in routes.
fn methods(names: &[String]) -> Box<[Method]> {
    let mut methods: Vec<Method> = names.iter().map(|name| Method::from_bytes(name.as_bytes())).collect();
    if methods.contains(&Method::Get) {
        methods.push(Method::Head);
    }
    methods.into()
}
