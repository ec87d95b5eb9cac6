//! Which part of an address is one client.

use std::net::{IpAddr, Ipv6Addr};

/// The address that stands for a client in limits and bans: of IPv4 the whole, of IPv6 the /64.
///
/// A /64 is what one subscriber gets at least (RFC 6177, 2): within it he takes a new address for each request, if he
/// likes. An IPv4 address in IPv6's clothes (RFC 4291, 2.5.5.2) is an IPv4 address.
pub fn client(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(addr) => IpAddr::V4(addr),
        IpAddr::V6(addr) => {
            let [a, b, c, d, ..] = addr.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_or_a_64() {
        #[track_caller]
        fn check(addr: &str, stands_for: &str) {
            assert_eq!(client(addr.parse().unwrap()), stands_for.parse::<IpAddr>().unwrap());
        }
        check("192.0.2.7", "192.0.2.7");
        check("::ffff:192.0.2.7", "192.0.2.7");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("2001:db8:1:2::", "2001:db8:1:2::");
        check("::1", "::");
    }
}
