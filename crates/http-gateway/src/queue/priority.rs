//! How important a request is: classes, and levels within them. Pure.

use std::time::Duration;

/// How many classes there are.
pub(crate) const CLASSES: usize = 5;
/// Users of a class are spread over so many levels: refusing one of them is refusing less than a hundredth of the class.
pub(crate) const LEVELS_PER_CLASS: usize = 128;

/// Classes of requests, the most important first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// What the site cannot do without: only by `queue.priority`.
    Critical,
    /// Signed-in users who change something.
    High,
    /// Signed-in users who read.
    Normal,
    /// Everybody else.
    #[default]
    Low,
    /// Known bots.
    Lowest,
}

impl Class {
    /// How long somebody may wait in an overload before he is refused. Important ones are served first, so most of them never
    /// wait so long; but when the overload is noticed some have waited for long already, and are next.
    pub(crate) fn allowance(self, target: Duration, interval: Duration) -> Duration {
        match self {
            Self::Critical => target.max(interval * 4),
            Self::High => target.max(interval * 2),
            Self::Normal => target.max(interval / 2),
            Self::Low | Self::Lowest => target,
        }
    }

    /// 0 is the most important.
    pub(crate) fn rank(self) -> usize {
        self as usize
    }
}

/// A class and a user's number in it; the lower, the more important.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level {
    class: Class,
    user: u8,
}

impl Level {
    /// The user's hash decides between users of a class.
    pub fn new(class: Class, user_hash: u64) -> Self {
        Self { class, user: (user_hash % LEVELS_PER_CLASS as u64) as u8 }
    }

    /// Its class.
    pub(crate) fn class(self) -> Class {
        self.class
    }

    /// Among all levels.
    pub(crate) fn index(self) -> usize {
        self.class.rank() * LEVELS_PER_CLASS + usize::from(self.user)
    }
}
