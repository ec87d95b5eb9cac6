//! How important a request is. Pure.

/// How many classes there are.
pub(crate) const CLASSES: usize = 5;

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
    /// 0 is the most important.
    pub(crate) fn rank(self) -> usize {
        self as usize
    }
}
