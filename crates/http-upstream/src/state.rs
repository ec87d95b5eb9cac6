//! What is behind a group's lock: who is in rotation, what an outcome changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::choose::Choice;
use crate::ejection::{Ejection, Place};
use crate::estimate::Estimate;
use crate::group::{Ask, Change, Drain, NoServer, Outcome, Server, ServerId, ServerStatus, key};
use crate::health::Health;
use crate::member::Member;
use crate::sticky::{Secret, Token};
use crate::terms::Terms;

/// How far behind its turn a server is at most, in requests of the lightest: who had none for long, because it was slow, does
/// not get all of them as soon as it is quick.
const BEHIND_MAX: f64 = 4.0;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct State<S> {
    name: String,
    terms: Terms,
    sticky: Option<Secret>,
    /// A place is kept while a request is on its way, so that it finds its server again.
    members: Vec<Option<Member<S>>>,
    /// Places of those that serve, in that order.
    rotation: Vec<usize>,
    /// By the operator, whether or not there is a server of that name now.
    drained: BTreeMap<String, Drain>,
    /// When the first of those that are out is to be looked at again.
    recheck_at: Option<Instant>,
    next_id: u64,
    /// The furthest turn that anybody has had.
    turn: f64,
    /// The smallest weight in rotation.
    lightest: f64,
    pub(crate) budget: Budget,
}

/// Who gets a request.
#[derive(Debug)]
pub(crate) struct Chosen<S> {
    pub(crate) at: usize,
    pub(crate) id: ServerId,
    /// By this one it is judged whether the server is back.
    pub(crate) probe: bool,
    pub(crate) server: S,
    pub(crate) new_token: Option<Token>,
}

impl<S> State<S> {
    pub(crate) fn new(name: &str, terms: Terms, sticky: Option<Secret>, now: Instant) -> Self {
        Self {
            name: name.to_owned(),
            budget: Budget::new(&terms, now),
            terms,
            sticky,
            members: Vec::new(),
            rotation: Vec::new(),
            drained: BTreeMap::new(),
            recheck_at: None,
            next_id: 0,
            turn: 0.0,
            lightest: 1.0,
        }
    }

    fn members(&self) -> impl Iterator<Item = &Member<S>> {
        self.members.iter().flatten()
    }

    fn member(&mut self, at: usize, id: ServerId) -> Option<&mut Member<S>> {
        self.members.get_mut(at)?.as_mut().filter(|member| member.id == id)
    }

    /// Who serves, after anything has changed that this hangs on. There is room: [`Self::set_servers`] has made it.
    fn rotate(&mut self) {
        self.rotation.clear();
        (self.lightest, self.recheck_at) = (f64::INFINITY, None);
        for (at, member) in self.members.iter().enumerate() {
            let Some(member) = member else { continue };
            if member.is_serving() {
                self.rotation.push(at);
                self.lightest = self.lightest.min(member.weight);
            }
            let out_until = match member.ejection.place() {
                Place::Out { until } => Some(until),
                Place::In | Place::Probation { .. } => None,
            };
            for moment in out_until.into_iter().chain(member.doubted_until) {
                self.recheck_at = Some(self.recheck_at.map_or(moment, |at| at.min(moment)));
            }
        }
    }

    /// Those whose time is over get a request to show that they are well. What they cost before must not keep it from them.
    fn tick(&mut self, now: Instant) {
        if self.recheck_at.is_none_or(|at| now < at) {
            return;
        }
        let turn = self.usual(|member| member.turn);
        let well =
            |member: &Member<S>| member.doubted_until.is_none().then(|| member.estimate.cost(now).latency);
        let latency = self.serving().filter_map(well).reduce(f64::min);
        let time = self.terms.eject_time;
        for member in self.members.iter_mut().flatten() {
            if member.ejection.tick(now) {
                (member.estimate, member.doubted_until) = (Estimate::default(), None);
                member.turn = turn;
            } else if member.doubted_until.is_some_and(|at| at <= now) {
                member.doubted_until = None;
                // Failures that were too few to take it out have kept requests from it: nobody knows how it is now.
                if member.pending == 0 && !member.estimate.was_heard_within(time, now) {
                    member.estimate =
                        latency.map_or_else(Estimate::default, |latency| Estimate::like(latency, now));
                } else if member.estimate.is_failing(now) {
                    member.doubted_until = Some(now + time);
                }
            }
        }
        self.rotate();
    }

    fn serving(&self) -> impl Iterator<Item = &Member<S>> {
        self.rotation.iter().filter_map(|&at| self.members.get(at)?.as_ref())
    }

    /// Something of the servers in rotation, on average.
    fn usual(&self, of: impl Fn(&Member<S>) -> f64) -> f64 {
        let (sum, count) = self.serving().fold((0.0, 0.0), |(sum, count), it| (sum + of(it), count + 1.0));
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// No turn counts as further behind than this.
    fn floor(&self) -> f64 {
        self.turn - BEHIND_MAX / self.lightest
    }

    fn choice<'a>(&'a self, ask: &'a Ask<'a>) -> Choice<'a, S> {
        let Self { members, rotation, terms, .. } = self;
        Choice { members, rotation, terms, ask, floor: self.floor() }
    }

    /// A server comes, or comes back: as one of which nothing is known but how the others are.
    fn welcome(&mut self, at: usize, now: Instant) {
        let latency = self.usual(|member| member.estimate.cost(now).latency);
        if let Some(Some(member)) = self.members.get_mut(at) {
            member.estimate = Estimate::like(latency, now);
        }
        self.begin(at, now);
    }

    /// It gets requests, slowly at first, and none for the time in which it had none.
    fn begin(&mut self, at: usize, now: Instant) {
        let turn = self.usual(|member| member.turn);
        if let Some(Some(member)) = self.members.get_mut(at) {
            (member.turn, member.warm_since) = (turn, Some(now));
        }
        self.rotate();
    }

    /// Can the group do without this one?
    fn may_go(&self, at: usize, outcome: Outcome) -> bool {
        let others = self.rotation.iter().filter(|&&other| other != at).count();
        let all = self.members().filter(|member| !member.leaving).count();
        let out = self.members().filter(|member| !member.leaving && member.ejection.is_out()).count();
        let within = out == 0 || (out + 1) * 100 <= all * self.terms.eject_percent_max as usize;
        others > 0 && (within || outcome == Outcome::NotReached)
    }

    pub(crate) fn record(
        &mut self,
        at: usize,
        id: ServerId,
        probe: bool,
        outcome: Outcome,
        latency: Duration,
        now: Instant,
    ) -> Option<Change> {
        let may_go = outcome != Outcome::Answered && self.may_go(at, outcome);
        let terms = self.terms;
        let member = self.member(at, id)?;
        if outcome == Outcome::Answered {
            member.estimate.answered(latency, now);
            if !member.ejection.succeeded(probe, now) {
                return None;
            }
            self.begin(at, now);
            return Some(Change::Returned);
        }
        member.failures += 1;
        member.estimate.failed(latency, now);
        let until = *member.doubted_until.get_or_insert(now + terms.eject_time);
        let ejected = member.ejection.failed(probe, may_go, &terms, now);
        self.recheck_at = Some(self.recheck_at.map_or(until, |at| at.min(until)));
        let time = ejected?;
        self.rotate();
        Some(Change::Ejected(time))
    }

    /// An answer that had begun well broke off.
    pub(crate) fn broke_off(&mut self, at: usize, id: ServerId, now: Instant) -> Option<Change> {
        let may_go = self.may_go(at, Outcome::Failed);
        let terms = self.terms;
        let member = self.member(at, id)?;
        member.failures += 1;
        let time = member.ejection.broke_off(may_go, &terms, now)?;
        self.rotate();
        Some(Change::Ejected(time))
    }

    /// A request is over; `whole`: its answer came to its end. Returns the server when it was the last one of a server that is gone.
    pub(crate) fn release(&mut self, at: usize, id: ServerId, probe: bool, whole: bool) -> Option<Member<S>> {
        let member = self.member(at, id)?;
        if whole {
            member.ejection.was_whole();
        }
        member.pending = member.pending.saturating_sub(1);
        if probe {
            member.ejection.probed();
        }
        if member.leaving && member.pending == 0 { self.members.get_mut(at)?.take() } else { None }
    }

    pub(crate) fn report_health(&mut self, id: ServerId, well: bool, now: Instant) -> Option<Change> {
        let (rise, fall) = (self.terms.health_rise, self.terms.health_fall);
        let at = self.members.iter().position(|it| it.as_ref().is_some_and(|it| it.id == id))?;
        let member = self.members.get_mut(at)?.as_mut()?;
        if !member.health.report(well, rise, fall) {
            return None;
        }
        if well {
            self.welcome(at, now);
            return Some(Change::Up);
        }
        self.rotate();
        Some(Change::Down)
    }

    pub(crate) fn is_up(&self, id: ServerId) -> Option<bool> {
        self.members().find(|member| member.id == id).map(|member| member.health.is_up())
    }

    pub(crate) fn drain(&mut self, name: &str, drain: Drain, now: Instant) {
        match drain {
            Drain::Off => drop(self.drained.remove(name)),
            Drain::New | Drain::All => drop(self.drained.insert(name.to_owned(), drain)),
        }
        // One that is leaving, too: it may come back as the same.
        let named = |it: &Option<Member<S>>| it.as_ref().is_some_and(|it| it.name == name);
        let Some(at) = self.members.iter().position(named) else { return };
        let Some(Some(member)) = self.members.get_mut(at) else { return };
        let was = std::mem::replace(&mut member.drain, drain);
        if was != Drain::Off && drain == Drain::Off {
            // It may be another program by now.
            (member.ejection, member.health) = (Ejection::new(), Health::new());
            self.welcome(at, now);
        } else {
            self.rotate();
        }
    }

    pub(crate) fn drained(&self) -> Vec<(String, Drain)> {
        self.drained.iter().map(|(name, drain)| (name.clone(), *drain)).collect()
    }

    pub(crate) fn set_servers(
        &mut self,
        servers: Vec<Server<S>>,
        now: Instant,
        slowly: bool,
    ) -> Vec<Member<S>> {
        for member in self.members.iter_mut().flatten() {
            member.leaving = !servers.iter().any(|server| server.name == member.name);
        }
        let free = |place: &mut Option<Member<S>>| place.take_if(|it| it.leaving && it.pending == 0);
        let gone = self.members.iter_mut().filter_map(free).collect();
        for server in servers {
            let weight = f64::from(server.weight.max(1));
            match self.members.iter_mut().flatten().find(|member| member.name == server.name) {
                Some(member) => member.weight = weight,
                None => self.add(server, weight, now, slowly),
            }
        }
        self.rotation.reserve(self.members.len());
        self.rotate();
        gone
    }

    fn add(&mut self, Server { name, server, .. }: Server<S>, weight: f64, now: Instant, slowly: bool) {
        let drain = self.drained.get(&name).copied().unwrap_or_default();
        let member = Member {
            id: ServerId(self.next_id),
            token: self.sticky.as_ref().map(|secret| Token::new(secret, &self.name, &name)),
            hash: key(name.as_bytes()),
            name,
            server,
            weight,
            pending: 0,
            estimate: Estimate::default(),
            health: Health::new(),
            ejection: Ejection::new(),
            doubted_until: None,
            drain,
            leaving: false,
            warm_since: None,
            turn: self.turn,
            requests: 0,
            failures: 0,
        };
        self.next_id += 1;
        let at = self.members.iter().position(Option::is_none).unwrap_or(self.members.len());
        match self.members.get_mut(at) {
            Some(place) => *place = Some(member),
            None => self.members.push(Some(member)),
        }
        if slowly {
            self.welcome(at, now);
        }
    }

    pub(crate) fn status(&self, now: Instant) -> Vec<ServerStatus> {
        let status = |member: &Member<S>| ServerStatus {
            name: member.name.clone(),
            weight: member.weight as u32,
            standing: member.standing(&self.terms, now),
            back_in: match member.ejection.place() {
                Place::Out { until } => Some(until.saturating_duration_since(now)),
                Place::In | Place::Probation { .. } => None,
            },
            pending: member.pending,
            latency: Duration::from_secs_f64(member.estimate.cost(now).latency),
            requests: member.requests,
            failures: member.failures,
            ejections: member.ejection.count,
        };
        let (leaving, staying): (Vec<_>, Vec<_>) = self.members().partition(|member| member.leaving);
        staying.into_iter().chain(leaving).map(status).collect()
    }
}

impl<S: Clone> State<S> {
    pub(crate) fn pick(&mut self, ask: &Ask<'_>) -> Result<Chosen<S>, NoServer> {
        self.tick(ask.now);
        let at = match self.choice(ask).choose() {
            Some(at) => at,
            None => self.none_in_rotation(ask)?,
        };
        let floor = self.floor();
        let Some(Some(member)) = self.members.get_mut(at) else { return Err(NoServer::None) };
        member.take(&self.terms, ask.now, floor);
        self.turn = self.turn.max(member.turn);
        let probe = member.ejection.picked();
        let new_token = member.token.filter(|&token| ask.sticky != Some(token));
        let chosen = Chosen { at, id: member.id, probe, server: member.server.clone(), new_token };
        if ask.tried.is_empty() {
            self.budget.request();
        }
        Ok(chosen)
    }

    /// Nobody in rotation can take it. When one of them could, but has too much to do, those that are out are no help.
    fn none_in_rotation(&self, ask: &Ask<'_>) -> Result<usize, NoServer> {
        let full = |member: &&Member<S>| member.is_full(&self.terms) && !ask.tried.contains(&member.id);
        if self.serving().any(|member| full(&member)) {
            return Err(NoServer::Full);
        }
        if let Some(at) = self.choice(ask).last_resort() {
            return Ok(at);
        }
        let mut staying = self.members().filter(|member| !member.leaving).peekable();
        if staying.peek().is_none() {
            return Err(NoServer::None);
        }
        let mut open = staying.filter(|member| member.drain == Drain::Off).peekable();
        if open.peek().is_none() {
            return Err(NoServer::Drained);
        }
        Err(if open.any(|member| full(&member)) { NoServer::Full } else { NoServer::Tried })
    }

    pub(crate) fn servers(&self) -> Vec<(ServerId, S)> {
        let staying = self.members().filter(|member| !member.leaving);
        staying.map(|member| (member.id, member.server.clone())).collect()
    }
}
