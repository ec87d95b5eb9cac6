//! Who may get in line under overload: a cutoff over levels of importance, found from what arrives. Pure.
//!
//! After WeChat's DAGOR: time is cut into windows; a window in which those who were in line waited too long on average, or some had
//! to be refused for it, moves the cutoff so that a twentieth less gets in; any other moves it back, by a little while
//! others still wait, by more when all is well. A level is a class and within it a number of the user that changes every
//! hour: so the same users are let in for a while, and can finish what they do, instead of everybody now and then.
//!
//! The gate stands before the line, not before the slots: a request that finds a slot free is never refused.

use std::time::{Duration, Instant};

use super::priority::{CLASSES, LEVELS_PER_CLASS, Level};

const LEVELS: usize = CLASSES * LEVELS_PER_CLASS;
/// The levels of the most important class always get in line.
const CUTOFF_MIN: usize = LEVELS_PER_CLASS;
/// A window's end: by time …
const WINDOW: Duration = Duration::from_secs(1);
/// … or by number, where that is reached earlier.
const WINDOW_REQUESTS: u32 = 2000;
/// A mean wait below this is no reason to refuse anybody.
const WAIT_MIN: Duration = Duration::from_millis(20);
/// So many of a hundred less get in after a bad window …
const TIGHTEN_PERCENT: u32 = 5;
/// … so many more after a better one …
const RELAX_PERCENT: u32 = 1;
/// … and after one without any overload: what was refused then may all have been served.
const OPEN_PERCENT: u32 = 20;

/// The window that runs.
#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    /// Requests, those that found a slot at once too.
    arrived: u32,
    /// Time in line of those that have left it.
    waited: Duration,
    /// Refused in line, because they had waited too long.
    late: u32,
    /// The line was overloaded at some time.
    overloaded: bool,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { began: now, arrived: 0, waited: Duration::ZERO, late: 0, overloaded: false }
    }
}

/// The gate of one pool.
pub(crate) struct Gate {
    /// Levels below it get in line.
    cutoff: usize,
    /// Who found no slot free in this window, by level; those that were refused too.
    histogram: [u32; LEVELS],
    window: Window,
}

impl Gate {
    pub(crate) fn new(now: Instant) -> Self {
        Self { cutoff: LEVELS, histogram: [0; LEVELS], window: Window::new(now) }
    }

    /// A request came, and may have found a slot.
    pub(crate) fn arrived(&mut self) {
        self.window.arrived = self.window.arrived.saturating_add(1);
    }

    /// Somebody has left the line after so long.
    pub(crate) fn left(&mut self, waited: Duration) {
        self.window.waited += waited;
    }

    /// Somebody was refused because he had waited too long, or because the line was full.
    pub(crate) fn late(&mut self) {
        self.window.late += 1;
    }

    /// Is anybody refused?
    pub(crate) fn is_shut(&self) -> bool {
        self.cutoff < LEVELS
    }

    /// Is somebody of this level refused? Without counting him.
    pub(crate) fn refuses(&self, level: Level) -> bool {
        level.index() >= self.cutoff
    }

    /// May somebody get in line who has found no slot?
    pub(crate) fn admits(&mut self, level: Level) -> bool {
        if let Some(count) = self.histogram.get_mut(level.index()) {
            *count += 1;
        }
        !self.refuses(level)
    }

    /// Ends the window when it is over. `target` is a wait that is all right.
    pub(crate) fn roll(&mut self, target: Duration, overloaded: bool, now: Instant) {
        let window = &mut self.window;
        window.overloaded |= overloaded;
        let age = now.saturating_duration_since(window.began);
        if age < WINDOW && window.arrived < WINDOW_REQUESTS {
            return;
        }
        let Window { arrived, waited, late, overloaded: sometime, .. } =
            std::mem::replace(window, Window::new(now));
        let mean = waited / arrived.max(1);
        // A window that nobody looked at for long was a quiet one.
        if age > 2 * WINDOW {
            self.cutoff = LEVELS;
        // An overload that has ended within the window needs no more of the same: what was late then came before the last move.
        } else if overloaded && (mean > target.max(WAIT_MIN) || late * 100 > arrived) {
            self.tighten((arrived * TIGHTEN_PERCENT / 100).max(1));
        } else if self.cutoff < LEVELS {
            let percent = if sometime { RELAX_PERCENT } else { OPEN_PERCENT };
            self.relax((arrived * percent / 100).max(1));
        }
        self.histogram.fill(0);
    }

    /// Lowers the cutoff until so many fewer get in line.
    fn tighten(&mut self, fewer: u32) {
        let mut refused = 0;
        while refused < fewer && self.cutoff > CUTOFF_MIN {
            self.cutoff -= 1;
            refused += self.histogram[self.cutoff];
        }
    }

    /// Raises it until so many more get in.
    fn relax(&mut self, more: u32) {
        let mut admitted = 0;
        while admitted < more && self.cutoff < LEVELS {
            admitted += self.histogram[self.cutoff];
            self.cutoff += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::priority::Class;

    /// A window of a hundred requests, twenty of each class, as bad or good as said.
    fn play(gate: &mut Gate, at: &mut Instant, waited: Duration, overloaded: bool) -> usize {
        for number in 0..100_usize {
            let class = [Class::Critical, Class::High, Class::Normal, Class::Low, Class::Lowest][number % 5];
            gate.arrived();
            gate.admits(Level::new(class, number as u64));
            gate.left(waited);
        }
        *at += WINDOW;
        gate.roll(Duration::from_millis(5), overloaded, *at);
        gate.cutoff
    }

    #[test]
    fn bad_windows_refuse_a_twentieth_more_each_from_below_and_never_the_critical() {
        let mut at = Instant::now();
        let mut gate = Gate::new(at);
        let bad = Duration::from_millis(21);
        assert_eq!(
            play(&mut gate, &mut at, bad, false),
            LEVELS,
            "without an overload long waits are a bunch"
        );
        let first = play(&mut gate, &mut at, bad, true);
        assert!(first < LEVELS && gate.refuses(Level::new(Class::Lowest, 99)), "{first}");
        assert!(!gate.refuses(Level::new(Class::Low, 99)));
        for _ in 0..3 {
            play(&mut gate, &mut at, bad, true);
        }
        // A fifth of all: the whole class.
        assert!(gate.refuses(Level::new(Class::Lowest, 4)) && !gate.refuses(Level::new(Class::Low, 98)));
        for _ in 0..100 {
            play(&mut gate, &mut at, bad, true);
        }
        assert!(gate.refuses(Level::new(Class::High, 0)) && !gate.refuses(Level::new(Class::Critical, 127)));
    }

    #[test]
    fn it_opens_slowly_under_overload_quickly_after_it_and_at_once_after_silence() {
        let mut at = Instant::now();
        let mut gate = Gate::new(at);
        let (bad, good) = (Duration::from_millis(100), Duration::ZERO);
        let shut = |gate: &mut Gate, at: &mut Instant| {
            for _ in 0..20 {
                play(gate, at, bad, true);
            }
        };
        shut(&mut gate, &mut at);
        let low = gate.cutoff;
        let slow = play(&mut gate, &mut at, good, true) - low;
        let quick = play(&mut gate, &mut at, good, false) - low - slow;
        assert!(slow > 0 && quick > 5 * slow, "{slow} {quick}");
        shut(&mut gate, &mut at);
        at += Duration::from_secs(10);
        gate.roll(good, false, at);
        assert_eq!(gate.cutoff, LEVELS);
    }
}
