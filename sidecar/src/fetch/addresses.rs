//! Which addresses are connected to. Pure.
//!
//! Public ones are, private ones inside of the ranges that the model allows, and no others: what is on this machine or its
//! link, what clouds keep credentials at, and what is no host's address. No range of a model changes that. An IPv6 address
//! that stands for one of IPv4 is judged as what it stands for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Never connected to: this machine, its link, metadata, and what is no host's. Bits that count, beside the address.
const NEVER_V4: [(Ipv4Addr, u8); 15] = [
    // "This network"; Linux connects to itself by it.
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    // Loopback.
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // The link, and what most clouds keep credentials at.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    // Metadata of Alibaba, among addresses that may be allowed.
    (Ipv4Addr::new(100, 100, 100, 200), 32),
    // The agent of Azure, among public addresses.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    // Protocols' own; metadata of Oracle is among them.
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    // Documentation.
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Relays of 6to4, which are no more.
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    // AS112, which answers for names of private addresses.
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 175, 48, 0), 24),
    // Measurements.
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    // Multicast.
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    // Reserved, and broadcast.
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];
/// Only inside of the ranges that a model allows.
const PRIVATE_V4: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    // Behind a carrier's translation.
    (Ipv4Addr::new(100, 64, 0, 0), 10),
];
/// Metadata of Amazon and of Google, among addresses that may be allowed.
const NEVER_V6: [(Ipv6Addr, u8); 6] = [
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
    // Protocols' own; Teredo is among them, which hides an address of IPv4.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation.
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    // AS112.
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48),
];
const PRIVATE_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7);
/// All that is public. What is outside of it and not private is loopback, link, multicast, mapped, or nothing.
const PUBLIC_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// Addresses of IPv4 behind a translator; with any other prefix it is not known where they stand.
const NAT64: (Ipv6Addr, u8) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
/// Addresses of IPv4 behind a tunnel.
const SIX_TO_FOUR: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16);

/// The addresses that one model's images are fetched from.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    allowed: Vec<(IpAddr, u8)>,
}

/// An address that is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// Whatever the model allows.
    #[error(
        "leads to {0}, which is never connected to: it is public addresses that are, and private ones that spec.input.image.urls.allowedCIDRs has"
    )]
    Never(IpAddr),
    /// Unless the model allows it.
    #[error("leads to {0}, a private address outside of spec.input.image.urls.allowedCIDRs")]
    Private(IpAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Public,
    Private,
    Never,
}

// === impl AddressPolicy ===

impl AddressPolicy {
    /// The policy that allows these ranges of private addresses. What is no range, which the manifest's rules refuse,
    /// allows nothing.
    pub fn of(ranges: &[String]) -> Self {
        let range = |text: &String| {
            let (address, bits) = text.split_once('/')?;
            Some((address.parse().ok()?, bits.parse().ok()?))
        };
        AddressPolicy { allowed: ranges.iter().filter_map(range).collect() }
    }

    /// Whether an address is connected to.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self, address: IpAddr) -> Result<(), NotAllowed> {
        match standing(address) {
            Standing::Public => Ok(()),
            Standing::Private if self.has(address) => Ok(()),
            Standing::Private => Err(NotAllowed::Private(address)),
            Standing::Never => Err(NotAllowed::Never(address)),
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|(range, bits)| match (range, address.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(address)) => within(address, (*range, *bits)),
            (IpAddr::V6(range), IpAddr::V6(address)) => within_v6(address, (*range, *bits)),
            _ => false,
        })
    }
}

// === free functions ===

fn standing(address: IpAddr) -> Standing {
    match address {
        IpAddr::V4(address) => standing_v4(address),
        IpAddr::V6(address) => standing_v6(address),
    }
}

fn standing_v4(address: Ipv4Addr) -> Standing {
    if NEVER_V4.iter().any(|range| within(address, *range)) {
        Standing::Never
    } else if PRIVATE_V4.iter().any(|range| within(address, *range)) {
        Standing::Private
    } else {
        Standing::Public
    }
}

fn standing_v6(address: Ipv6Addr) -> Standing {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return standing_v4(mapped);
    }
    let [_, high, middle, .., low, last] = address.segments();
    // Where a translation leads to what is not public, nobody knows whose private address it is.
    let embedded = if within_v6(address, NAT64) {
        Some((low, last))
    } else if within_v6(address, SIX_TO_FOUR) {
        Some((high, middle))
    } else {
        None
    };
    if let Some((first, second)) = embedded {
        let embedded = Ipv4Addr::from_bits((u32::from(first) << 16) | u32::from(second));
        return match standing_v4(embedded) {
            Standing::Public => Standing::Public,
            Standing::Private | Standing::Never => Standing::Never,
        };
    }
    if NEVER_V6.iter().any(|range| within_v6(address, *range)) {
        Standing::Never
    } else if within_v6(address, PRIVATE_V6) {
        Standing::Private
    } else if within_v6(address, PUBLIC_V6) {
        Standing::Public
    } else {
        Standing::Never
    }
}

fn within(address: Ipv4Addr, (range, bits): (Ipv4Addr, u8)) -> bool {
    let differing = address.to_bits() ^ range.to_bits();
    differing.leading_zeros() >= u32::from(bits)
}

fn within_v6(address: Ipv6Addr, (range, bits): (Ipv6Addr, u8)) -> bool {
    let differing = address.to_bits() ^ range.to_bits();
    differing.leading_zeros() >= u32::from(bits)
}

#[cfg(test)]
mod tests {
    use super::{
        Standing::{Never, Private, Public},
        *,
    };

    const ADDRESSES: &[(&str, Standing)] = &[
        ("127.0.0.1", Never),
        ("127.255.255.254", Never),
        ("0.0.0.0", Never),
        ("0.1.2.3", Never),
        ("169.254.169.254", Never),
        ("169.254.170.2", Never),
        ("100.100.100.200", Never),
        ("168.63.129.16", Never),
        ("192.0.0.192", Never),
        ("192.0.2.1", Never),
        ("198.51.100.1", Never),
        ("203.0.113.1", Never),
        ("198.19.255.255", Never),
        ("192.88.99.1", Never),
        ("224.0.0.1", Never),
        ("239.255.255.255", Never),
        ("240.0.0.1", Never),
        ("255.255.255.255", Never),
        ("10.0.0.0", Private),
        ("10.255.255.255", Private),
        ("172.16.0.1", Private),
        ("172.31.255.255", Private),
        ("192.168.0.1", Private),
        ("100.64.0.1", Private),
        ("100.127.255.255", Private),
        ("9.255.255.255", Public),
        ("11.0.0.0", Public),
        ("172.15.255.255", Public),
        ("172.32.0.0", Public),
        ("192.167.255.255", Public),
        ("100.63.255.255", Public),
        ("100.128.0.0", Public),
        ("126.255.255.255", Public),
        ("128.0.0.1", Public),
        ("223.255.255.255", Public),
        ("::", Never),
        ("::1", Never),
        ("::7f00:1", Never),
        ("::ffff:127.0.0.1", Never),
        ("::ffff:169.254.169.254", Never),
        ("::ffff:10.0.0.1", Private),
        ("::ffff:11.0.0.1", Public),
        ("::ffff:0:127.0.0.1", Never),
        ("64:ff9b::127.0.0.1", Never),
        ("64:ff9b::169.254.169.254", Never),
        ("64:ff9b::10.0.0.1", Never),
        ("64:ff9b::11.0.0.1", Public),
        ("64:ff9b:1::11.0.0.1", Never),
        ("2002:7f00:1::1", Never),
        ("2002:a9fe:a9fe::", Never),
        ("2002:a00:1::1", Never),
        ("2002:b00:1::1", Public),
        ("2001::1", Never),
        ("2001:db8::1", Never),
        ("3fff::1", Never),
        ("100::1", Never),
        ("fe80::1", Never),
        ("febf::1", Never),
        ("fec0::1", Never),
        ("ff02::1", Never),
        ("fd00:ec2::254", Never),
        ("fd20:ce::254", Never),
        ("4000::1", Never),
        ("fc00::1", Private),
        ("fdff::1", Private),
        ("2600::1", Public),
        ("2a00:1450::1", Public),
    ];

    #[test]
    fn every_address_stands_where_it_is_said_to() {
        for (address, expected) in ADDRESSES {
            assert_eq!(standing(address.parse().unwrap()), *expected, "{address}");
        }
    }

    #[test]
    fn a_range_allows_private_addresses_and_no_others() {
        let everything = ["0.0.0.0/0", "::/0"].map(str::to_owned);
        let ten = ["10.1.0.0/16", "fd77::/16", "not a range"].map(str::to_owned);
        let (everything, ten) = (AddressPolicy::of(&everything), AddressPolicy::of(&ten));
        let none = AddressPolicy::default();
        let rows = [
            ("10.1.2.3", [true, true, false]),
            ("10.2.2.3", [true, false, false]),
            ("192.168.0.1", [true, false, false]),
            ("::ffff:10.1.2.3", [true, true, false]),
            ("fd77::1", [true, true, false]),
            ("fd78::1", [true, false, false]),
            ("127.0.0.1", [false; 3]),
            ("::1", [false; 3]),
            ("169.254.169.254", [false; 3]),
            ("100.100.100.200", [false; 3]),
            ("fd00:ec2::254", [false; 3]),
            ("fe80::1", [false; 3]),
            ("64:ff9b::10.1.2.3", [false; 3]),
            ("2002:a01:203::", [false; 3]),
            ("11.0.0.1", [true; 3]),
        ];
        for (address, expected) in rows {
            let address: IpAddr = address.parse().unwrap();
            let found = [&everything, &ten, &none].map(|policy| policy.check(address).is_ok());
            assert_eq!(found, expected, "{address}");
        }
    }

    #[test]
    fn a_refusal_names_the_address() {
        let none = AddressPolicy::default();
        let of = |address: &str| none.check(address.parse().unwrap()).unwrap_err().to_string();
        assert!(of("10.0.0.1").starts_with("leads to 10.0.0.1, a private address outside of "));
        assert!(of("127.0.0.1").starts_with("leads to 127.0.0.1, which is never connected to"));
    }
}
