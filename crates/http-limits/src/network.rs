//! Addresses, CIDR ranges (RFC 4632) and lists of them.

use std::net::IpAddr;

/// A range of addresses; one address is the narrowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix_bits: u8,
}

/// What cannot be read as an address or a range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} is no address range")]
pub struct BadNetwork {
    /// As written.
    pub entry: String,
    /// What to write instead.
    pub hint: String,
}

/// A line of a list that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: BadNetwork,
}

impl Network {
    /// Reads `192.0.2.1`, `10.0.0.0/8`, `2001:db8::/32`. A range begins where it says: `10.0.0.1/8` may mean two things.
    pub fn parse(entry: &str) -> Result<Self, BadNetwork> {
        let bad = |hint: &str| BadNetwork { entry: entry.to_owned(), hint: hint.to_owned() };
        let (addr, prefix) =
            entry.split_once('/').map_or((entry, None), |(addr, prefix)| (addr, Some(prefix)));
        let first: IpAddr = addr.parse().map_err(|_| {
            bad(match entry {
                "localhost" => "write \"127.0.0.1\" and \"::1\"",
                _ if addr.contains(']') => "write the address without brackets",
                _ if addr.matches(':').count() == 1 => "write the address without its port",
                _ => "write an address (\"192.0.2.1\") or a range (\"10.0.0.0/8\", \"fd00::/8\")",
            })
        })?;
        let bits_max = if first.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => bits_max,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|bits| *bits <= bits_max && !digits.starts_with('+'))
                .ok_or_else(|| bad(&format!("behind the slash stands a number from 0 to {bits_max}")))?,
        };
        let network = Self { first, prefix_bits };
        let begins = network.masked(first);
        if begins != first {
            return Err(bad(&format!("the range starts at \"{begins}/{prefix_bits}\"")));
        }
        Ok(network)
    }

    /// Is this address in it? One of IPv4 in IPv6's clothes is to be undressed before (`to_canonical`).
    pub fn contains(self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.first.is_ipv4() && self.masked(addr) == self.first
    }

    /// The first address of the range of this size that `addr` is in.
    fn masked(self, addr: IpAddr) -> IpAddr {
        let bits = u32::from(self.prefix_bits);
        match addr {
            IpAddr::V4(addr) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits)).unwrap_or(0);
                IpAddr::V4((u32::from(addr) & mask).into())
            }
            IpAddr::V6(addr) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits)).unwrap_or(0);
                IpAddr::V6((u128::from(addr) & mask).into())
            }
        }
    }

    /// First and last as numbers, and whether they are of IPv4.
    fn span(self) -> (bool, u128, u128) {
        let bits = u32::from(self.prefix_bits);
        match self.first {
            IpAddr::V4(first) => {
                let first = u32::from(first);
                let rest = u32::MAX.checked_shr(bits).unwrap_or(0);
                (true, first.into(), (first | rest).into())
            }
            IpAddr::V6(first) => {
                let first = u128::from(first);
                (false, first, first | u128::MAX.checked_shr(bits).unwrap_or(0))
            }
        }
    }
}

/// A list of networks, sorted and merged: a hundred thousand of them are searched in seventeen steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl NetworkSet {
    /// Of these networks.
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network.span() {
                // An IPv4 address has 32 bits.
                (true, first, last) => v4.push((first as u32, last as u32)),
                (false, first, last) => v6.push((first, last)),
            }
        }
        Self { v4: merged(v4, |last| last.checked_add(1)), v6: merged(v6, |last| last.checked_add(1)) }
    }

    /// Reads a file: an address or a range a line. What stands behind `#` or `;` is for people.
    pub fn parse(text: &str) -> Result<Self, BadLine> {
        let mut networks = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let entry = line.split(['#', ';']).next().unwrap_or_default().trim();
            if !entry.is_empty() {
                let network = Network::parse(entry).map_err(|why| BadLine { line: index + 1, why })?;
                networks.push(network);
            }
        }
        Ok(Self::new(networks))
    }

    /// Is this address in one of them?
    pub fn contains(&self, addr: IpAddr) -> bool {
        match addr.to_canonical() {
            IpAddr::V4(addr) => within(&self.v4, u32::from(addr)),
            IpAddr::V6(addr) => within(&self.v6, u128::from(addr)),
        }
    }

    /// No network?
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Ranges after merging.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }
}

/// Sorts spans and joins those that touch. `next` is the number after one.
fn merged<T: Ord + Copy>(mut spans: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Box<[(T, T)]> {
    spans.sort_unstable();
    let mut joined: Vec<(T, T)> = Vec::with_capacity(spans.len());
    for (first, last) in spans {
        match joined.last_mut() {
            // No number after the end: nothing lies beyond it.
            Some((_, end)) if next(*end).is_none_or(|after| first <= after) => *end = (*end).max(last),
            _ => joined.push((first, last)),
        }
    }
    joined.into()
}

fn within<T: Ord + Copy>(spans: &[(T, T)], addr: T) -> bool {
    let behind = spans.partition_point(|(first, _)| *first <= addr);
    behind.checked_sub(1).and_then(|place| spans.get(place)).is_some_and(|(_, last)| addr <= *last)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges() {
        #[track_caller]
        fn check(network: &str, inside: &[&str], outside: &[&str]) {
            let network = Network::parse(network).unwrap();
            let set = NetworkSet::new([network]);
            for (addresses, contains) in [(inside, true), (outside, false)] {
                for text in addresses {
                    assert_eq!(network.contains(addr(text)), contains, "{network:?} {text}");
                    assert_eq!(set.contains(addr(text)), contains, "{set:?} {text}");
                }
            }
        }
        check("192.0.2.1", &["192.0.2.1"], &["192.0.2.0", "192.0.2.2", "::1"]);
        check("10.0.0.0/8", &["10.0.0.0", "10.255.255.255"], &["9.255.255.255", "11.0.0.0"]);
        check("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::", "::1"]);
        check("::/0", &["::", "ffff::1"], &["0.0.0.0"]);
        check("2001:db8::/32", &["2001:db8::", "2001:db8:ffff::1"], &["2001:db9::", "32.1.13.184"]);
    }

    #[test]
    fn what_cannot_be_read_is_explained() {
        #[track_caller]
        fn check(entry: &str, hint: &str) {
            assert_eq!(Network::parse(entry).unwrap_err().hint, hint);
        }
        check("localhost", "write \"127.0.0.1\" and \"::1\"");
        check("[::1]", "write the address without brackets");
        check("192.0.2.1:80", "write the address without its port");
        check("192.0.2.1/33", "behind the slash stands a number from 0 to 32");
        check("::/+8", "behind the slash stands a number from 0 to 128");
        check("10.0.0.1/8", "the range starts at \"10.0.0.0/8\"");
        check("example.org", "write an address (\"192.0.2.1\") or a range (\"10.0.0.0/8\", \"fd00::/8\")");
    }

    #[test]
    fn a_list_is_a_line_each() {
        let text = "# those who scan\n192.0.2.1\n192.0.2.0 ; neighbours\n\n  198.51.100.0/24  # all of them\r\n2001:db8::/32\n";
        let list = NetworkSet::parse(text).unwrap();
        assert_eq!(list.len(), 3, "neighbours are one range");
        for inside in ["192.0.2.0", "192.0.2.1", "198.51.100.77", "2001:db8::7", "::ffff:192.0.2.1"] {
            assert!(list.contains(addr(inside)), "{inside}");
        }
        assert!(!list.contains(addr("192.0.2.2")) && !list.contains(addr("::1")));
        assert!(NetworkSet::parse("").unwrap().is_empty());
        let bad = NetworkSet::parse("192.0.2.1\n# fine\n192.0.2.300\n").unwrap_err();
        assert_eq!((bad.line, bad.to_string().as_str()), (3, "line 3: \"192.0.2.300\" is no address range"));
    }

    fn network() -> impl Strategy<Value = Network> {
        let v4 = (0_u32..1024, 20_u8..=32).prop_map(|(addr, bits)| (IpAddr::V4(Ipv4Addr::from(addr)), bits));
        let v6 =
            (0_u128..1024, 116_u8..=128).prop_map(|(addr, bits)| (IpAddr::V6(Ipv6Addr::from(addr)), bits));
        prop_oneof![v4, v6].prop_map(|(addr, prefix_bits)| {
            let any = Network { first: addr, prefix_bits };
            Network { first: any.masked(addr), prefix_bits }
        })
    }

    proptest! {
        #[test]
        fn a_set_contains_what_its_networks_contain(
            networks in prop::collection::vec(network(), 0..20),
            probes in prop::collection::vec(0_u32..1100, 50),
        ) {
            let set = NetworkSet::new(networks.iter().copied());
            for probe in probes {
                for addr in [IpAddr::V4(probe.into()), IpAddr::V6(u128::from(probe).into())] {
                    let contains = networks.iter().any(|network| network.contains(addr));
                    prop_assert_eq!(set.contains(addr), contains, "{}", addr);
                }
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = Network::parse(&text);
            let _ = NetworkSet::parse(&text);
        }
    }
}
