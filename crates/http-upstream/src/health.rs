//! Active checks: how many results in a row are believed.

/// What the checks say of a server. Without checks it is up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Health {
    up: bool,
    /// Has there been a result?
    known: bool,
    /// Results in a row that say the opposite.
    against: u32,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { up: true, known: false, against: 0 }
    }

    pub(crate) fn is_up(self) -> bool {
        self.up
    }

    /// One more result; `true`: with it, up has become down or down up. The first of all is believed at once: there is nothing
    /// that it could contradict.
    pub(crate) fn report(&mut self, well: bool, rise: u32, fall: u32) -> bool {
        let first = !std::mem::replace(&mut self.known, true);
        if well == self.up {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let wanted = if self.up { fall } else { rise };
        if !first && self.against < wanted {
            return false;
        }
        (self.up, self.against) = (well, 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` and `-` are results; the answer is in which state each leaves the server, `u` or `d`.
    fn states(results: &str) -> String {
        let mut health = Health::new();
        let after = |result| {
            let before = health.is_up();
            assert_eq!(health.report(result == '+', 2, 3), before != health.is_up());
            if health.is_up() { 'u' } else { 'd' }
        };
        results.chars().map(after).collect()
    }

    #[test]
    fn as_many_in_a_row_as_the_terms_say() {
        assert_eq!(states("+--+---"), "uuuuuud");
        assert_eq!(states("+---+-++"), "uuuddddu");
        assert_eq!(states("-+-++-"), "dddduu", "the first is believed");
        assert_eq!(states("+"), "u");
    }
}
