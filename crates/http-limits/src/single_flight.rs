//! One request at a time: what becomes of a request while another of its key is under way.
//!
//! The caller makes the key: whose request it is and where it goes; for [`Policy::Join`] the whole request, since only the
//! same one may share an answer. Requests are known by tickets, numbers that never come again.
//!
//! A flight ends when its request is answered, timed out or lost its worker ([`Flights::ended`]), not when its client goes
//! away: the app works on. Who only waits may go at any time ([`Flights::gone`]).
//!
//! Invariants: a key has one leader; every ticket that joined or waits is told exactly once, or went by itself; there are
//! never more tickets than requests in flight, and a key without a request is not remembered.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use crate::seed::Seed;

/// A request, for as long as it lasts.
pub type Ticket = u64;

/// What a request does while another of its key is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It shares the other's answer; so many may.
    Join(usize),
    /// It waits for its turn, behind so many at most.
    Queue(usize),
    /// It is refused.
    Reject,
    /// It goes, and the other is broken off.
    CancelPrevious,
}

/// What becomes of a request that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It goes.
    Leads,
    /// It shares the answer of this one.
    Joins(Ticket),
    /// It waits; so many go before it.
    Waits(usize),
    /// It is one too many.
    Refused,
    /// It goes; this one is to be broken off, and will not be asked to end any more.
    Supersedes(Ticket),
}

/// Who is to be told when a flight has ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// They get its answer.
    pub joined: Vec<Ticket>,
    /// It goes now.
    pub next: Option<Ticket>,
}

/// What is under way for one key.
#[derive(Debug)]
struct Flight {
    leader: Ticket,
    joined: Vec<Ticket>,
    queue: VecDeque<Ticket>,
}

/// All that is under way. Not locked: one for each shard of the caller.
#[derive(Debug)]
pub struct Flights(HashMap<u64, Flight, Seed>);

impl Flights {
    /// Nothing is under way.
    pub fn new(seed: Seed) -> Self {
        Self(HashMap::with_hasher(seed))
    }

    /// A request arrives.
    pub fn arrive(&mut self, key: u64, ticket: Ticket, policy: Policy) -> Arrival {
        let flight = match self.0.entry(key) {
            Entry::Vacant(free) => {
                free.insert(Flight { leader: ticket, joined: Vec::new(), queue: VecDeque::new() });
                return Arrival::Leads;
            }
            Entry::Occupied(taken) => taken.into_mut(),
        };
        match policy {
            Policy::Join(most) if flight.joined.len() < most => {
                flight.joined.push(ticket);
                Arrival::Joins(flight.leader)
            }
            Policy::Queue(most) if flight.queue.len() < most => {
                flight.queue.push_back(ticket);
                Arrival::Waits(flight.queue.len())
            }
            Policy::CancelPrevious => Arrival::Supersedes(std::mem::replace(&mut flight.leader, ticket)),
            Policy::Join(_) | Policy::Queue(_) | Policy::Reject => Arrival::Refused,
        }
    }

    /// The answer of a request that went can be shared, or is known to be for itself only; it goes on. Those who joined until now.
    pub fn shared(&mut self, key: u64, ticket: Ticket) -> Vec<Ticket> {
        let flight = self.0.get_mut(&key).filter(|flight| flight.leader == ticket);
        flight.map_or_else(Vec::new, |flight| std::mem::take(&mut flight.joined))
    }

    /// A request that went has been answered, or never will be. One that was superseded ends nothing.
    pub fn ended(&mut self, key: u64, ticket: Ticket) -> Ended {
        let Entry::Occupied(mut taken) = self.0.entry(key) else { return Ended::default() };
        if taken.get().leader != ticket {
            return Ended::default();
        }
        let flight = taken.get_mut();
        let joined = std::mem::take(&mut flight.joined);
        let next = flight.queue.pop_front();
        match next {
            Some(next) => flight.leader = next,
            None => {
                taken.remove();
            }
        }
        Ended { joined, next }
    }

    /// The client of one who joined or waits has gone. For one who leads it means nothing.
    pub fn gone(&mut self, key: u64, ticket: Ticket) {
        if let Some(flight) = self.0.get_mut(&key) {
            flight.joined.retain(|other| *other != ticket);
            flight.queue.retain(|other| *other != ticket);
        }
    }

    /// Keys of which something is under way.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Nothing is under way?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn flights() -> Flights {
        Flights::new(Seed::from_bytes(*b"not that random."))
    }

    #[test]
    fn the_same_request_shares_one_answer() {
        let mut flights = flights();
        assert_eq!(flights.arrive(1, 10, Policy::Join(2)), Arrival::Leads);
        assert_eq!(flights.arrive(1, 11, Policy::Join(2)), Arrival::Joins(10));
        assert_eq!(flights.arrive(1, 12, Policy::Join(2)), Arrival::Joins(10));
        assert_eq!(flights.arrive(1, 13, Policy::Join(2)), Arrival::Refused);
        assert_eq!(flights.arrive(2, 14, Policy::Join(2)), Arrival::Leads, "another key");
        assert_eq!(flights.shared(1, 12), [], "one who only joined");
        flights.gone(1, 11);
        flights.gone(1, 10);
        assert_eq!(flights.ended(1, 10), Ended { joined: vec![12], next: None });
        assert_eq!(flights.arrive(1, 15, Policy::Join(2)), Arrival::Leads);
    }

    #[test]
    fn a_queue_goes_one_by_one() {
        let mut flights = flights();
        assert_eq!(flights.arrive(1, 10, Policy::Queue(2)), Arrival::Leads);
        assert_eq!(flights.arrive(1, 11, Policy::Queue(2)), Arrival::Waits(1));
        assert_eq!(flights.arrive(1, 12, Policy::Queue(2)), Arrival::Waits(2));
        assert_eq!(flights.arrive(1, 13, Policy::Queue(2)), Arrival::Refused);
        flights.gone(1, 11);
        assert_eq!(flights.ended(1, 10), Ended { joined: vec![], next: Some(12) });
        assert_eq!(flights.ended(1, 10), Ended::default(), "it has ended already");
        assert_eq!(flights.ended(1, 12), Ended::default());
        assert!(flights.is_empty());
    }

    #[test]
    fn the_newest_may_break_off_the_one_before() {
        let mut flights = flights();
        assert_eq!(flights.arrive(1, 10, Policy::CancelPrevious), Arrival::Leads);
        assert_eq!(flights.arrive(1, 11, Policy::CancelPrevious), Arrival::Supersedes(10));
        assert_eq!(flights.ended(1, 10), Ended::default());
        assert_eq!(flights.arrive(1, 12, Policy::Reject), Arrival::Refused, "the newest is under way");
        flights.ended(1, 11);
        assert_eq!(flights.arrive(1, 13, Policy::Reject), Arrival::Leads);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Arrives(u64, Policy),
        /// One of those that are known.
        Ends(prop::sample::Index),
        Shares(prop::sample::Index),
        Goes(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        let policy = prop_oneof![
            (0_usize..3).prop_map(Policy::Join),
            (0_usize..3).prop_map(Policy::Queue),
            Just(Policy::Reject),
            Just(Policy::CancelPrevious),
        ];
        prop_oneof![
            (0_u64..3, policy).prop_map(|(key, policy)| Step::Arrives(key, policy)),
            any::<prop::sample::Index>().prop_map(Step::Ends),
            any::<prop::sample::Index>().prop_map(Step::Shares),
            any::<prop::sample::Index>().prop_map(Step::Goes),
        ]
    }

    proptest! {
        /// Whatever happens: one leader a key, everybody who waits is told once, and nothing is left at the end.
        #[test]
        fn nobody_is_forgotten_and_nobody_told_twice(steps in prop::collection::vec(step(), 1..200)) {
            let mut flights = flights();
            let (mut leads, mut waits): (BTreeMap<u64, Ticket>, BTreeSet<(u64, Ticket)>) = Default::default();
            let end = |flights: &mut Flights, key: u64, leader: Ticket, leads: &mut BTreeMap<u64, Ticket>, waits: &mut BTreeSet<(u64, Ticket)>| {
                let ended = flights.ended(key, leader);
                leads.remove(&key);
                for told in ended.joined.iter().chain(&ended.next) {
                    assert!(waits.remove(&(key, *told)), "{told} did not wait");
                }
                if let Some(next) = ended.next {
                    leads.insert(key, next);
                }
            };
            for (ticket, step) in (1..).zip(steps) {
                match step {
                    Step::Arrives(key, policy) => match flights.arrive(key, ticket, policy) {
                        Arrival::Leads => prop_assert_eq!(leads.insert(key, ticket), None),
                        Arrival::Supersedes(before) => prop_assert_eq!(leads.insert(key, ticket), Some(before)),
                        Arrival::Joins(leader) => {
                            prop_assert_eq!(leads.get(&key), Some(&leader));
                            waits.insert((key, ticket));
                        }
                        Arrival::Waits(_) => {
                            waits.insert((key, ticket));
                        }
                        Arrival::Refused => prop_assert!(leads.contains_key(&key)),
                    },
                    Step::Ends(which) if !leads.is_empty() => {
                        let all: Vec<(u64, Ticket)> = leads.iter().map(|(key, leader)| (*key, *leader)).collect();
                        let (key, leader) = *which.get(&all);
                        end(&mut flights, key, leader, &mut leads, &mut waits);
                    }
                    Step::Shares(which) if !leads.is_empty() => {
                        let all: Vec<(u64, Ticket)> = leads.iter().map(|(key, leader)| (*key, *leader)).collect();
                        let (key, leader) = *which.get(&all);
                        for told in flights.shared(key, leader) {
                            assert!(waits.remove(&(key, told)), "{told} did not wait");
                        }
                    }
                    Step::Goes(which) if !waits.is_empty() => {
                        let all: Vec<(u64, Ticket)> = waits.iter().copied().collect();
                        let (key, ticket) = *which.get(&all);
                        flights.gone(key, ticket);
                        waits.remove(&(key, ticket));
                    }
                    Step::Ends(_) | Step::Shares(_) | Step::Goes(_) => {}
                }
                prop_assert_eq!(flights.len(), leads.len());
            }
            while let Some((&key, &leader)) = leads.iter().next() {
                end(&mut flights, key, leader, &mut leads, &mut waits);
            }
            prop_assert!(waits.is_empty() && flights.is_empty(), "{:?}", waits);
        }
    }
}
