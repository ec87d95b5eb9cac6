//! The waiting line: who is next, and who has waited too long. Pure; `now` is passed in.
//!
//! As long as all is well the line is first in, first out. It is **overloaded** when for a whole interval it was not empty, nobody was
//! served without a long wait, and it got no shorter (controlled delay, as Facebook's servers do it: a line that never
//! empties is no buffer any more, it only makes everybody wait; one that gets shorter holds a bunch that is being served).
//! Then the most important are served first, among them the newest, who are the likeliest to be still there; and who has waited
//! longer than the target is refused, so that he hears it while he can still do something about it. The first moment at which
//! the line is empty ends the overload.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::priority::{CLASSES, Class};

/// An overload is remembered for so many intervals.
const REMEMBERED: u32 = 4;

/// Who waits is looked at this often at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    class: Class,
    number: u64,
}

/// The line is full, and nobody in it is less important.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// How long is too long, from the configuration and the times that requests take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// A wait that is all right even under overload.
    pub(crate) target: Duration,
    /// Waits up to this come by chance: nobody concludes an overload from them.
    pub(crate) chance: Duration,
    /// More requests in line than this could never all be served in time.
    pub(crate) hopeless: usize,
    /// So long may waits be above the target before that is an overload; `None`: for ever.
    pub(crate) interval: Option<Duration>,
    /// The interval shortly after an overload: it is believed to be back sooner.
    pub(crate) relapse: Duration,
}

impl Pace {
    /// For a line in which nobody waits.
    pub(crate) const IDLE: Self = Self {
        target: Duration::ZERO,
        chance: Duration::ZERO,
        hopeless: usize::MAX,
        interval: None,
        relapse: Duration::ZERO,
    };
}

/// What becomes of one who waits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Review {
    /// He stays; look again then.
    Stay(Instant),
    /// He has waited too long and is not in the line any more.
    Refused,
    /// He is not in the line: his slot is on its way to him, or his refusal.
    Called,
}

struct Waiting<W> {
    since: Instant,
    waiter: W,
}

pub(crate) struct Line<W> {
    /// By class, the most important first; by number in each.
    classes: [BTreeMap<u64, Waiting<W>>; CLASSES],
    numbers: u64,
    len: usize,
    depth_max: usize,
    /// When last all was well.
    well: Instant,
    /// The longest it has been since then: once it gets shorter, it is a bunch that is being served.
    longest: usize,
    /// When the last overload ended.
    relieved: Option<Instant>,
}

impl<W> Line<W> {
    pub(crate) fn new(depth_max: usize, now: Instant) -> Self {
        Self {
            classes: std::array::from_fn(|_| BTreeMap::new()),
            numbers: 0,
            len: 0,
            depth_max,
            well: now,
            longest: 0,
            relieved: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All is well from now on: there were no slots that anybody could have waited for.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.well = now;
        self.longest = self.len;
    }

    /// Is waiting an overload, and not a bunch?
    pub(crate) fn is_overloaded(&self, pace: Pace, now: Instant) -> bool {
        let Some(interval) = pace.interval else { return false };
        self.len > 0
            && (self.len > pace.hopeless
                || now.saturating_duration_since(self.well) > self.interval(interval, pace, now))
    }

    /// A line that was overloaded a moment ago is believed to be so again sooner.
    fn interval(&self, interval: Duration, pace: Pace, now: Instant) -> Duration {
        let relapse = |relieved| now.saturating_duration_since(relieved) < interval * REMEMBERED;
        if self.relieved.is_some_and(relapse) { pace.relapse } else { interval }
    }

    /// Gets in line. When it is full, the least important one who has waited longest makes room for somebody more important.
    pub(crate) fn join(
        &mut self,
        class: Class,
        waiter: W,
        now: Instant,
    ) -> Result<(Ticket, Option<W>), Full> {
        let mut evicted = None;
        if self.len >= self.depth_max {
            let less = self.classes.iter_mut().skip(class.rank() + 1).rev().find(|line| !line.is_empty());
            let Some((_, waiting)) = less.and_then(BTreeMap::pop_first) else { return Err(Full) };
            evicted = Some(waiting.waiter);
            self.len -= 1;
        } else if self.len == 0 {
            self.restart(now);
        }
        self.numbers += 1;
        let ticket = Ticket { class, number: self.numbers };
        self.classes[class.rank()].insert(ticket.number, Waiting { since: now, waiter });
        self.len += 1;
        Ok((ticket, evicted))
    }

    /// Leaves the line; harmless when already called. How long he was there.
    pub(crate) fn leave(&mut self, ticket: Ticket, now: Instant) -> Option<Duration> {
        let waiting = self.classes[ticket.class.rank()].remove(&ticket.number)?;
        self.len -= 1;
        Some(now.saturating_duration_since(waiting.since))
    }

    /// Who is next, and how long he has waited.
    pub(crate) fn next(&mut self, pace: Pace, now: Instant) -> Option<(W, Duration)> {
        let overloaded = self.is_overloaded(pace, now);
        let waiting = if overloaded {
            self.classes.iter_mut().find_map(BTreeMap::pop_last)
        } else {
            let oldest = |line: &&mut BTreeMap<u64, Waiting<W>>| line.first_key_value().map(|(&at, _)| at);
            let first = self.classes.iter_mut().filter(|line| !line.is_empty()).min_by_key(oldest);
            first.and_then(BTreeMap::pop_first)
        };
        let (_, Waiting { since, waiter }) = waiting?;
        self.len -= 1;
        let waited = now.saturating_duration_since(since);
        if overloaded {
            self.relieved = Some(now);
        }
        self.longest = self.longest.max(self.len);
        if !overloaded && (waited <= pace.chance || self.len < self.longest / 4 * 3) {
            self.well = now;
            self.longest = self.len;
        }
        Some((waiter, waited))
    }

    /// Looks at one who waits.
    pub(crate) fn review(&mut self, ticket: Ticket, pace: Pace, now: Instant) -> Review {
        let overloaded = self.is_overloaded(pace, now);
        let line = &self.classes[ticket.class.rank()];
        let Some(waiting) = line.get(&ticket.number) else { return Review::Called };
        let Some(interval) = pace.interval else { return Review::Stay(now + LOOK_EVERY) };
        let late = waiting.since + ticket.class.allowance(pace.target, interval);
        if overloaded && now > late {
            self.leave(ticket, now);
            self.relieved = Some(now);
            return Review::Refused;
        }
        // When both can be true, but not never: a line can become hopeless any time. A timer fires a millisecond late rather than early.
        let both = if overloaded {
            late
        } else {
            late.max(self.well + self.interval(interval, pace, now)).min(now + LOOK_EVERY)
        };
        Review::Stay(both + Duration::from_millis(1))
    }

    /// How long the first in line has waited.
    pub(crate) fn head_wait(&self, now: Instant) -> Duration {
        let heads = self.classes.iter().filter_map(|line| line.first_key_value());
        heads.map(|(_, waiting)| now.saturating_duration_since(waiting.since)).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    /// Overloaded after a second in which all waited longer than 200 ms; then 100 ms are all right.
    const PACE: Pace = Pace {
        target: Duration::from_millis(100),
        chance: Duration::from_millis(200),
        hopeless: 50,
        interval: Some(Duration::from_secs(1)),
        relapse: Duration::from_millis(250),
    };

    struct Story {
        line: Line<&'static str>,
        start: Instant,
    }

    impl Story {
        fn new(depth_max: usize) -> Self {
            let start = Instant::now();
            Self { line: Line::new(depth_max, start), start }
        }

        fn join(&mut self, at_ms: u32, class: Class, who: &'static str) -> Ticket {
            self.line.join(class, who, self.start + MS * at_ms).expect("room").0
        }

        fn next(&mut self, at_ms: u32) -> Option<&'static str> {
            self.line.next(PACE, self.start + MS * at_ms).map(|(who, _)| who)
        }

        fn review(&mut self, at_ms: u32, ticket: Ticket) -> Review {
            self.line.review(ticket, PACE, self.start + MS * at_ms)
        }
    }

    #[test]
    fn as_long_as_all_is_well_it_is_first_in_first_out_whoever_it_is() {
        let mut story = Story::new(9);
        for (at, class, who) in
            [(0, Class::Lowest, "bot"), (1, Class::High, "writer"), (2, Class::Low, "other")]
        {
            story.join(at, class, who);
        }
        assert_eq!(
            [story.next(3), story.next(4), story.next(5), story.next(6)],
            [Some("bot"), Some("writer"), Some("other"), None]
        );
    }

    #[test]
    fn after_a_second_of_long_waits_the_important_and_the_newest_go_first_and_the_late_are_refused() {
        let mut story = Story::new(99);
        let old = story.join(0, Class::Low, "old");
        story.join(10, Class::High, "writer");
        for _ in 0..3 {
            story.join(20, Class::Low, "others");
        }
        assert_eq!(story.review(900, old), Review::Stay(story.start + MS * 1001));
        let new = story.join(990, Class::Low, "new");
        // A second has passed in which nobody was served quickly.
        assert_eq!(story.review(1002, old), Review::Refused);
        assert_eq!(story.review(1002, old), Review::Called, "he is not there any more");
        assert_eq!(story.review(1002, new), Review::Stay(story.start + MS * 1091), "he has waited for 12 ms");
        assert_eq!(
            [story.next(1003), story.next(1004), story.next(1005)],
            [Some("writer"), Some("new"), Some("others")]
        );
    }

    #[test]
    fn a_line_that_gets_shorter_is_a_bunch() {
        let mut story = Story::new(99);
        for _ in 0..8 {
            story.join(0, Class::Low, "bunch");
        }
        // One each 200 ms: slow, but they are being served.
        for at in 1..=8 {
            assert!(!story.line.is_overloaded(PACE, story.start + MS * (200 * at)), "{at}");
            assert_eq!(story.next(200 * at), Some("bunch"));
        }
    }

    #[test]
    fn what_could_never_be_served_in_time_is_an_overload_at_once() {
        let mut story = Story::new(99);
        let first = story.join(0, Class::Low, "first");
        for _ in 0..PACE.hopeless {
            story.join(1, Class::Low, "more");
        }
        assert_eq!(story.review(101, first), Review::Refused);
    }

    #[test]
    fn an_overload_is_back_sooner_than_it_came() {
        let mut story = Story::new(99);
        story.join(0, Class::Low, "a");
        assert_eq!(story.next(1100), Some("a"), "served in an overload, which ends with it");
        story.join(1200, Class::Low, "b");
        story.join(1200, Class::Low, "c");
        assert!(!story.line.is_overloaded(PACE, story.start + MS * 1440));
        assert!(story.line.is_overloaded(PACE, story.start + MS * 1460), "a quarter of a second this time");
    }

    #[test]
    fn a_full_line_makes_room_for_the_more_important_only() {
        let mut story = Story::new(2);
        story.join(0, Class::Lowest, "bot");
        story.join(1, Class::Normal, "reader");
        let at = story.start + MS * 2;
        assert_eq!(story.line.join(Class::Lowest, "another", at), Err(Full));
        let (_, evicted) = story.line.join(Class::High, "writer", at).expect("room");
        assert_eq!(evicted, Some("bot"));
        let (_, evicted) = story.line.join(Class::High, "writer", at).expect("room");
        assert_eq!(evicted, Some("reader"));
        assert_eq!(story.line.join(Class::High, "writer", at), Err(Full));
        assert_eq!(story.line.len(), 2);
    }

    #[test]
    fn without_slots_nobody_is_refused_and_their_coming_begins_anew() {
        let mut story = Story::new(9);
        let ticket = story.join(0, Class::Low, "early");
        let without = Pace { interval: None, ..PACE };
        let at = story.start + MS * 5000;
        assert_eq!(story.line.review(ticket, without, at), Review::Stay(at + LOOK_EVERY));
        story.line.restart(at);
        assert!(!story.line.is_overloaded(PACE, at + MS * 900));
        assert_eq!(story.line.head_wait(at), MS * 5000);
    }
}
