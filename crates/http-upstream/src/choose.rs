//! The policies. Each looks at the servers in rotation, passes over those that cannot take this request, and names one.

use crate::group::{Ask, Drain};
use crate::member::Member;
use crate::sticky::Token;
use crate::terms::{Policy, Terms};

/// Costs that differ by less are the same: times of equal servers do by chance. Then requests and weights decide.
const NEAR: f64 = 2.0;

/// However slow a server seems, it has its turn when the quick one has this many more requests. One report that takes a minute
/// must not take its server out for the time that estimates live.
const SLOWER_MAX: f64 = 32.0;

/// By key: nobody has more than this times its share of the requests that are on their way. Mirrokni, Thorup, Zadimoghaddam,
/// "Consistent Hashing with Bounded Loads" (2016): HAProxy and Envoy are run with 1.25 to 1.5.
const LOAD_BOUND: f64 = 1.25;

/// What is compared of a server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    /// Of a request, by estimate.
    pub(crate) latency: f64,
    /// Times that, for failures.
    pub(crate) penalty: f64,
    pub(crate) pending: f64,
    pub(crate) weight: f64,
    /// What it has been given, divided by its weight.
    pub(crate) turn: f64,
}

impl Load {
    /// Of one request, beside the other.
    fn cost(&self, other: &Self) -> f64 {
        let fails_more = self.penalty > NEAR * other.penalty;
        // That it fails quickly is no merit.
        let latency = if fails_more { self.latency.max(other.latency) } else { self.latency };
        latency.min(other.latency.max(f64::MIN_POSITIVE) * SLOWER_MAX) * self.penalty
    }

    /// As if it were so much stronger.
    fn times_weight(self, factor: f64) -> Self {
        Self { weight: self.weight * factor, ..self }
    }

    /// Would it be done sooner, with this request too?
    fn has_less_work(&self, other: &Self) -> bool {
        let work = |load: &Self, other: &Self| load.cost(other) * (load.pending + 1.0) / load.weight;
        work(self, other) < work(other, self)
    }

    /// Should this one get the request rather than the other?
    fn is_lighter(&self, other: &Self) -> bool {
        let (own, its) = (self.cost(other), other.cost(self));
        if own.max(its) > NEAR * own.min(its) {
            return self.has_less_work(other);
        }
        let (own, its) = (self.pending / self.weight, other.pending / other.weight);
        own < its || own <= its && self.turn < other.turn
    }
}

/// Numbers from one number (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// Does something of this probability happen?
    fn happens(&mut self, probability: f64) -> bool {
        unit(self.next()) < probability
    }
}

/// Each bit of the result hangs on each bit of the number.
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Between 0 and 1, neither of them.
fn unit(number: u64) -> f64 {
    // 52 bits and a half: all that a float holds below 1.
    ((number >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

/// What a policy sees.
pub(crate) struct Choice<'a, S> {
    pub(crate) members: &'a [Option<Member<S>>],
    /// Places of those that serve.
    pub(crate) rotation: &'a [usize],
    pub(crate) terms: &'a Terms,
    pub(crate) ask: &'a Ask<'a>,
    /// No turn counts as further behind than this.
    pub(crate) floor: f64,
}

impl<S> Choice<'_, S> {
    /// Who gets the request; `None`: none of them can take it.
    pub(crate) fn choose(&self) -> Option<usize> {
        let kept = self.ask.sticky.and_then(|token| self.owner(token));
        let chosen = kept.or_else(|| match (self.terms.policy, self.ask.key) {
            (Policy::Hash, Some(key)) => self.by_key(key),
            (Policy::PeakEwma, _) | (Policy::Hash, None) => self.two_choices(),
            (Policy::LeastLoaded, _) => {
                self.best(|member, other| self.load(member).is_lighter(&self.load(other)))
            }
            (Policy::RoundRobin, _) => self.best(|member, other| member.turn < other.turn),
        });
        chosen.map(|(at, _)| at)
    }

    fn load(&self, member: &Member<S>) -> Load {
        member.load(self.terms, self.ask.now, self.floor)
    }

    fn candidate(&self, at: usize) -> Option<(usize, &Member<S>)> {
        let member = self.members.get(at)?.as_ref()?;
        let can =
            !member.is_full(self.terms) && !member.is_being_probed() && !self.ask.tried.contains(&member.id);
        can.then_some((at, member))
    }

    fn candidates(&self) -> impl Iterator<Item = (usize, &Member<S>)> {
        self.rotation.iter().filter_map(|&at| self.candidate(at))
    }

    /// Whom a client belongs to. Those that are drained may keep who is theirs.
    fn owner(&self, token: Token) -> Option<(usize, &Member<S>)> {
        let is_it = |member: &Member<S>| member.token == Some(token) && member.serves_its_own();
        let at = self.members.iter().position(|member| member.as_ref().is_some_and(is_it))?;
        self.candidate(at)
    }

    fn best(&self, is_better: impl Fn(&Member<S>, &Member<S>) -> bool) -> Option<(usize, &Member<S>)> {
        self.candidates().reduce(|best, other| if is_better(other.1, best.1) { other } else { best })
    }

    /// Two different ones, drawn at random. To draw both from all keeps the slow one of three out of every pair that it would
    /// win only against itself.
    fn two_choices(&self) -> Option<(usize, &Member<S>)> {
        let count = self.rotation.len();
        if count < 2 {
            return self.candidates().next();
        }
        let mut random = Random(self.ask.random);
        let first = random.below(count);
        let second = (first + 1 + random.below(count - 1)) % count;
        let [first, second] = [first, second].map(|at| self.candidate(*self.rotation.get(at)?));
        match (first, second) {
            (Some(one), Some(other)) => {
                let [warmth, other_warmth] = [one.1, other.1].map(|it| it.warmth(self.terms, self.ask.now));
                // Slow start: it is passed over, more often the colder it is, but not while the other one drowns.
                let mut cold = |warmth: f64| warmth < 1.0 && !random.happens(warmth);
                let (load, other_load) = (self.load(one.1), self.load(other.1));
                let takes_other = match (cold(warmth), cold(other_warmth)) {
                    (true, false) => !load.times_weight(warmth).has_less_work(&other_load),
                    (false, true) => other_load.times_weight(other_warmth).has_less_work(&load),
                    _ => other_load.is_lighter(&load),
                };
                Some(if takes_other { other } else { one })
            }
            (Some(one), None) | (None, Some(one)) => Some(one),
            (None, None) => self.best(|member, other| self.load(member).is_lighter(&self.load(other))),
        }
    }

    /// Rendezvous hashing (Thaler, Ravishankar 1998): each server draws a number for the key, the highest wins. A server that
    /// comes or goes moves its own keys only. Those that are over their share are passed over.
    fn by_key(&self, key: u64) -> Option<(usize, &Member<S>)> {
        let serving = || self.rotation.iter().filter_map(|&at| self.members.get(at)?.as_ref());
        let (pending, weight) = serving().fold((1.0, 0.0), |(pending, weight), member| {
            (pending + f64::from(member.pending), weight + member.weight)
        });
        let score = |member: &Member<S>| {
            let drawn = mix(mix(key) ^ member.hash);
            // Slow start: the keys come back one by one, each once.
            let cold = unit(mix(drawn)) >= member.warmth(self.terms, self.ask.now);
            let over = f64::from(member.pending) >= (LOAD_BOUND * pending * member.weight / weight).ceil();
            (!cold, !over, -member.weight / unit(drawn).ln())
        };
        // The bound is what must hold; slow start only where it can.
        let rank = |member: &Member<S>| {
            let (warm, under, score) = score(member);
            (under, warm, score)
        };
        self.best(|member, other| rank(member) > rank(other))
    }

    /// When nobody in rotation has been left untried: one that was taken out, rather than none.
    pub(crate) fn last_resort(&self) -> Option<usize> {
        let can = |member: &Member<S>| {
            let out = member.leaving || member.drain != Drain::Off || member.is_full(self.terms);
            !out && !self.ask.tried.contains(&member.id)
        };
        let all = self.members.iter().enumerate().filter_map(|(at, member)| Some((at, member.as_ref()?)));
        all.filter(|(_, member)| can(member))
            .min_by_key(|(_, member)| (!member.health.is_up(), member.is_being_probed(), member.pending))
            .map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `latency penalty pending weight`.
    fn load(text: &str) -> Load {
        let numbers: Vec<f64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
        let [latency, penalty, pending, weight] = numbers[..] else { panic!("{text}") };
        Load { latency, penalty, pending, weight, turn: 0.0 }
    }

    fn lighter(one: &str, other: &str) -> bool {
        let (one, other) = (load(one), load(other));
        assert!(!(one.is_lighter(&other) && other.is_lighter(&one)), "{one:?} {other:?}");
        one.is_lighter(&other)
    }

    #[test]
    fn what_is_lighter() {
        assert!(lighter("0.01 1 0 1", "0.1 1 0 1"), "the quicker");
        assert!(lighter("0.1 1 0 1", "0.01 1 10 1"), "not when it has so much to do");
        assert!(lighter("0.019 1 1 1", "0.01 1 2 1"), "by chance slower: who has less to do");
        assert!(!lighter("0.01 1 0 1", "0.01 1 0 1"), "equal");
        assert!(lighter("0.02 1 5 3", "0.02 1 2 1"), "three times as strong");
        assert!(lighter("0.02 1 0 1", "0.001 100 0 1"), "quick, but it fails");
        assert!(lighter("0.02 1 90 1", "0.0001 1000 0 1"), "even when the others have much to do");
        assert!(lighter("60 1 0 1", "0.01 1 32 1"), "slow once is not slow for ever");
        assert!(lighter("0 1 0 1", "0.01 1 0 1"), "nothing is known: it is tried");
        assert!(lighter("0 1 0 1", "0 1 1 1"));
    }

    #[test]
    fn random_numbers_are_even() {
        let mut random = Random(1);
        let mut counts = [0; 3];
        for _ in 0..3000 {
            counts[random.below(3)] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
        assert!(unit(0) > 0.0 && unit(u64::MAX) < 1.0);
        assert!(!Random(3).happens(0.0) && Random(3).happens(1.0));
    }
}
