//! Which link takes an exchange that lasts. Pure.

/// A link as choosing sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) pool: u16,
    pub(super) generation: u32,
    pub(super) retiring: bool,
    /// It owes as many answers to handshakes as it may.
    pub(super) busy: bool,
    /// Exchanges it holds.
    pub(super) open: usize,
    /// Exchanges it may hold.
    pub(super) capacity: u16,
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// The link at this place.
    At(usize),
    /// All that serve are full.
    Full,
    /// None serves.
    None,
}

/// Of those that serve and have room: the newest generation (older ones are about to go, and would take the exchange with
/// them), then one that can begin at once (one whose loop hangs holds ever fewer than the others, and would draw all that come),
/// then the one that holds the fewest.
pub(super) fn choose(links: impl Iterator<Item = Seen>, pool: u16, active: Option<u32>) -> Choice {
    let mut serving = links
        .enumerate()
        .filter(|(_, link)| {
            link.pool == pool && !link.retiring && active.is_some_and(|active| link.generation <= active)
        })
        .peekable();
    if serving.peek().is_none() {
        return Choice::None;
    }
    serving
        .filter(|(_, link)| link.open < usize::from(link.capacity))
        .min_by_key(|(_, link)| (u32::MAX - link.generation, link.busy, link.open))
        .map_or(Choice::Full, |(at, _)| Choice::At(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pool.generation open/capacity`, with `r` when it retires, `b` when it is busy.
    fn check(links: &str, pool: u16, active: Option<u32>, expected: Choice) {
        let links = links.split(", ").filter(|link| !link.is_empty()).map(|link| {
            let (at, room) = link.split_once(' ').expect("a space");
            let (pool, generation) = at.split_once('.').expect("a dot");
            let (open, capacity) = room.trim_end_matches(['r', 'b']).split_once('/').expect("a slash");
            Seen {
                pool: pool.parse().expect("a number"),
                generation: generation.parse().expect("a number"),
                retiring: room.ends_with('r'),
                busy: room.ends_with('b'),
                open: open.parse().expect("a number"),
                capacity: capacity.parse().expect("a number"),
            }
        });
        assert_eq!(choose(links, pool, active), expected);
    }

    #[test]
    fn the_newest_generation_that_serves_then_the_emptiest() {
        check("0.1 3/9, 0.1 2/9, 0.1 5/9", 0, Some(1), Choice::At(1));
        check("0.1 0/9, 0.2 7/9", 0, Some(2), Choice::At(1));
        check("0.1 0/9, 0.2 0/9", 0, Some(1), Choice::At(0));
        check("0.1 0/9", 0, None, Choice::None);
        check("", 0, Some(1), Choice::None);
    }

    #[test]
    fn the_full_and_the_retiring_get_nothing() {
        check("0.1 9/9, 0.1 8/9", 0, Some(1), Choice::At(1));
        check("0.1 9/9, 0.1 9/9", 0, Some(1), Choice::Full);
        check("0.1 0/9, 0.2 9/9", 0, Some(2), Choice::At(0));
        check("0.1 0/9r", 0, Some(1), Choice::None);
        check("0.1 0/0", 0, Some(1), Choice::Full);
    }

    #[test]
    fn one_that_hangs_does_not_draw_all_that_come() {
        check("0.1 3/9b, 0.1 8/9", 0, Some(1), Choice::At(1));
        check("0.1 3/9b, 0.1 9/9", 0, Some(1), Choice::At(0));
        check("0.1 0/9, 0.2 3/9b", 0, Some(2), Choice::At(1));
    }

    #[test]
    fn pools_do_not_mix() {
        check("0.1 0/9, 1.1 5/9", 1, Some(1), Choice::At(1));
        check("0.1 0/9", 1, Some(1), Choice::None);
    }
}
