//! A range of addresses as administrators write it: `10.1.2.0/24`, `2001:db8::/32`, or one address. Pure.
//!
//! One rule decides: an address is in a network when both are of one family and its first `prefix` bits are the network's. IPv4 addresses
//! mapped into IPv6 (`::ffff:10.1.2.3`, what a listener on `[::]` sees of IPv4 senders) count as the IPv4 addresses they are, on both sides
//! of the comparison; so `::/0` is all of IPv6 and nothing of IPv4.

use std::net::IpAddr;

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Canonical, and zero behind the prefix.
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether the address belongs to it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => head_v4(address.to_bits(), self.prefix) == network.to_bits(),
            (IpAddr::V6(network), IpAddr::V6(address)) => head_v6(address.to_bits(), self.prefix) == network.to_bits(),
            _ => false,
        }
    }

    /// Every address of its family: a list that holds it shuts nobody out.
    pub fn is_everything(&self) -> bool {
        self.prefix == 0
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

fn head_v4(bits: u32, prefix: u8) -> u32 {
    bits & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn head_v6(bits: u128, prefix: u8) -> u128 {
    bits & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

/// The error is the end of a sentence that begins with the entry.
pub(crate) fn parse(text: &str) -> Result<Network, &'static str> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let written: IpAddr = address
        .parse()
        .map_err(|_| "is not an address or network; write them like \"10.1.2.0/24\", \"192.168.5.7\" or \"2001:db8::/32\"")?;
    let most = if written.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => most,
        Some(digits) if digits.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit()) => digits
            .parse()
            .ok()
            .filter(|prefix| *prefix <= most)
            .ok_or("has a prefix length out of range: at most 32 for IPv4, 128 for IPv6")?,
        Some(_) => return Err("has no usable prefix length behind the /; write it in bits, like /24"),
    };
    let (address, prefix) = match written.to_canonical() {
        canonical if canonical.is_ipv4() == written.is_ipv4() => (canonical, prefix),
        mapped if prefix >= 96 => (mapped, prefix - 96),
        _ => return Err("mixes IPv4 and IPv6; write the IPv4 network and the IPv6 network as two entries"),
    };
    let beyond = match address {
        IpAddr::V4(address) => head_v4(address.to_bits(), prefix) != address.to_bits(),
        IpAddr::V6(address) => head_v6(address.to_bits(), prefix) != address.to_bits(),
    };
    if beyond {
        return Err("has bits behind its prefix; write the network's first address, or leave out the / for one machine");
    }
    Ok(Network { address, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.1.2.0/24", "10.1.2.255", "10.1.3.0"),
            ("10.1.2.0/24", "::ffff:10.1.2.9", "::ffff:10.1.3.9"),
            ("192.168.5.7", "192.168.5.7", "192.168.5.6"),
            ("0.0.0.0/0", "255.1.2.3", "2001:db8::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("::/0", "::1", "::ffff:10.0.0.1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"),
            ("::ffff:10.0.0.1", "10.0.0.1", "::10.0.0.1"),
            ("fe80::1", "fe80::1", "fe80::2"),
        ] {
            let parsed = parse(network).unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{inside} is in {network}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{outside} is not in {network}");
        }
        assert!(parse("0.0.0.0/0").unwrap().is_everything() && !parse("0.0.0.0/1").unwrap().is_everything());
        assert_eq!(parse("::ffff:10.0.0.0/104").unwrap().to_string(), "10.0.0.0/8");
    }

    #[test]
    fn what_is_not_a_network_is_refused() {
        for text in [
            "",
            "/",
            "10.1.2",
            "10.1.2.0/",
            "10.1.2.0/33",
            "10.1.2.0/+8",
            "10.1.2.0/0024",
            "10.1.2.7/24",
            "::/129",
            "2001:db8::1/64",
            "host",
            "10.1.2.0/24 ",
            "10.1.2.0/24/8",
            "::ffff:0:0/95",
            "10.01.2.0/24",
            "[::1]",
            "fe80::1%eth0",
            "10.1.2.0/255.255.255.0",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        /// Against the definition, bit by bit.
        #[test]
        fn an_address_is_inside_when_its_first_bits_are_the_networks(network: u128, address: u128, common in 0u8..=128, prefix in 0u8..=128, v4: bool) {
            let (width, prefix, common) = if v4 { (32, prefix % 33, common % 33) } else { (128, prefix, common) };
            // shares its first bits with the network more often than chance would have it
            let keep = u128::MAX.checked_shl(u32::from(128 - common)).unwrap_or(0);
            let address = (network & keep) | (address & !keep);
            let ip = |bits: u128| if v4 { IpAddr::V4(Ipv4Addr::from((bits >> 96) as u32)) } else { IpAddr::V6(Ipv6Addr::from(bits)) };
            prop_assume!(ip(network).to_canonical() == ip(network) && ip(address).to_canonical() == ip(address));
            let first = network & u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
            prop_assume!(ip(first).to_canonical() == ip(first));
            let parsed = parse(&format!("{}/{prefix}", ip(first))).unwrap();
            let expected = (0..width.min(prefix)).all(|bit| (network >> (127 - bit)) & 1 == (address >> (127 - bit)) & 1);
            prop_assert_eq!(parsed.contains(ip(address)), expected);
            if let IpAddr::V4(address) = ip(address) {
                prop_assert_eq!(parsed.contains(IpAddr::V6(address.to_ipv6_mapped())), expected);
            }
        }

        #[test]
        fn no_text_makes_it_fail(text in ".{0,40}|[0-9a-f:./]{0,40}") {
            let _either = parse(&text);
        }
    }
}
