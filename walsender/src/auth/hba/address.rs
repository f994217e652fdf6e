//! [`AddressMatch`]: the addresses that a rule is for.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use super::hba_error::HbaProblem;
use super::tokens::Token;

/// The addresses that a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressMatch {
    /// Every one.
    All,
    /// Those of this machine.
    SameHost,
    /// Those of the networks that this machine is in.
    SameNet,
    /// A network.
    Network(Network),
}

/// An address, and which of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    V4 { address: u32, mask: u32 },
    V6 { address: u128, mask: u128 },
}

impl AddressMatch {
    pub(super) const LOOPBACK_V4: Self = Self::Network(Network::V4 {
        address: 0x7f00_0000,
        mask: 0xff00_0000,
    });
    pub(super) const LOOPBACK_V6: Self = Self::Network(Network::V6 {
        address: 1,
        mask: u128::MAX,
    });

    /// Reads the field of the address; `Err(address)` within `Ok` when a field with the mask must follow.
    pub(super) fn parse(token: &Token) -> Result<Result<Self, IpAddr>, HbaProblem> {
        for (keyword, meaning) in [
            ("all", Self::All),
            ("samehost", Self::SameHost),
            ("samenet", Self::SameNet),
        ] {
            if token.is_keyword(keyword) {
                return Ok(Ok(meaning));
            }
        }
        let (address, length) = match token.text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (token.text.as_str(), None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| HbaProblem::HostName(token.text.clone()))?;
        let Some(length) = length else {
            return Ok(Err(address));
        };
        let bad = || HbaProblem::CidrMask(token.text.clone());
        if !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        let length: u32 = length.parse().map_err(|_| bad())?;
        Network::with_length(address, length)
            .map(|network| Ok(Self::Network(network)))
            .ok_or_else(bad)
    }

    /// The address with a mask from a field of its own.
    pub(super) fn masked(address: IpAddr, mask: &str) -> Result<Self, HbaProblem> {
        let mask = mask
            .parse()
            .map_err(|_| HbaProblem::IpMask(mask.to_owned()))?;
        Network::with_mask(address, mask)
            .map(Self::Network)
            .ok_or(HbaProblem::FamilyMismatch)
    }

    /// Whether a client of this address is meant.
    ///
    /// # Source
    /// `check_ip` and `check_same_host_or_net` in `src/backend/libpq/hba.c`.
    pub(super) fn matches(&self, client: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Network(network) => network.contains(client),
            Self::SameHost => own_addresses().any(|(address, _)| address == client),
            Self::SameNet => own_addresses().any(|(address, mask)| {
                let network = mask.and_then(|mask| Network::with_mask(address, mask));
                network.is_some_and(|network| network.contains(client))
            }),
        }
    }
}

impl Network {
    fn with_length(address: IpAddr, length: u32) -> Option<Self> {
        Some(match address {
            IpAddr::V4(address) => Self::V4 {
                address: address.to_bits(),
                mask: u32::MAX
                    .checked_shl(32_u32.checked_sub(length)?)
                    .unwrap_or(0),
            },
            IpAddr::V6(address) => Self::V6 {
                address: address.to_bits(),
                mask: u128::MAX
                    .checked_shl(128_u32.checked_sub(length)?)
                    .unwrap_or(0),
            },
        })
    }

    fn with_mask(address: IpAddr, mask: IpAddr) -> Option<Self> {
        match (address, mask) {
            (IpAddr::V4(address), IpAddr::V4(mask)) => Some(Self::V4 {
                address: address.to_bits(),
                mask: mask.to_bits(),
            }),
            (IpAddr::V6(address), IpAddr::V6(mask)) => Some(Self::V6 {
                address: address.to_bits(),
                mask: mask.to_bits(),
            }),
            _ => None,
        }
    }

    fn contains(&self, client: IpAddr) -> bool {
        match (self, client) {
            (Self::V4 { address, mask }, IpAddr::V4(client)) => {
                (client.to_bits() ^ address) & mask == 0
            }
            (Self::V6 { address, mask }, IpAddr::V6(client)) => {
                (client.to_bits() ^ address) & mask == 0
            }
            _ => false,
        }
    }
}

/// Addresses of this machine's interfaces with their masks; none when the system does not tell, so that nobody is let in.
fn own_addresses() -> impl Iterator<Item = (IpAddr, Option<IpAddr>)> {
    let found = getifaddrs()
        .inspect_err(|error| tracing::error!("cannot list the network interfaces: {error}"))
        .ok();
    found.into_iter().flatten().filter_map(|interface| {
        let ip = |address: Option<nix::sys::socket::SockaddrStorage>| {
            let address = address?;
            let v4 = address
                .as_sockaddr_in()
                .map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| {
                address
                    .as_sockaddr_in6()
                    .map(|address| IpAddr::V6(address.ip()))
            })
        };
        Some((ip(interface.address)?, ip(interface.netmask)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Result<AddressMatch, IpAddr>, HbaProblem> {
        AddressMatch::parse(&Token {
            text: text.to_owned(),
            is_quoted: false,
        })
    }

    #[test]
    fn networks_hold_what_their_bits_say() {
        for (network, inside, outside) in [
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255"][..],
                &["11.0.0.0", "9.255.255.255", "::1"][..],
            ),
            ("10.1.2.3/32", &["10.1.2.3"], &["10.1.2.2"]),
            // Bits outside the mask do not count.
            ("10.1.2.3/24", &["10.1.2.200"], &["10.1.3.3"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::"]),
            ("fe80::/10", &["fe80::1", "febf::"], &["fec0::", "10.0.0.1"]),
            ("::1/128", &["::1"], &["::2"]),
            ("::/0", &["::", "ffff::"], &["1.2.3.4"]),
        ] {
            let network = parse(network).unwrap().unwrap();
            for (list, expected) in [(inside, true), (outside, false)] {
                for address in list {
                    assert_eq!(
                        network.matches(address.parse().unwrap()),
                        expected,
                        "{network:?} {address}"
                    );
                }
            }
        }
    }

    #[test]
    fn masks_may_have_holes_and_must_be_of_the_same_kind() {
        let address = parse("10.0.2.0").unwrap().unwrap_err();
        let odd = AddressMatch::masked(address, "255.0.255.0").unwrap();
        assert!(odd.matches("10.77.2.9".parse().unwrap()));
        assert!(!odd.matches("10.77.3.9".parse().unwrap()));
        assert_eq!(
            AddressMatch::masked(address, "ffff::"),
            Err(HbaProblem::FamilyMismatch)
        );
        assert_eq!(
            AddressMatch::masked(address, "24"),
            Err(HbaProblem::IpMask("24".into()))
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "localhost",
            ".example.org",
            "",
            "10.0.0/8",
            "1.2.3.4.5",
            "db.example.org/24",
        ] {
            assert_eq!(
                parse(text),
                Err(HbaProblem::HostName(text.into())),
                "{text}"
            );
        }
        for text in [
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(
                parse(text),
                Err(HbaProblem::CidrMask(text.into())),
                "{text}"
            );
        }
    }

    #[test]
    fn this_machine_knows_its_own_addresses() {
        let loopback = "127.0.0.1".parse().unwrap();
        let elsewhere = "203.0.113.9".parse().unwrap();
        for keyword in ["samehost", "samenet"] {
            let rule = parse(keyword).unwrap().unwrap();
            assert!(rule.matches(loopback), "{keyword}");
            assert!(!rule.matches(elsewhere), "{keyword}");
        }
        let near = "127.0.0.77".parse().unwrap();
        assert!(parse("samenet").unwrap().unwrap().matches(near));
        assert!(!parse("samehost").unwrap().unwrap().matches(near));
        let quoted = Token {
            text: "all".to_owned(),
            is_quoted: true,
        };
        assert_eq!(
            AddressMatch::parse(&quoted),
            Err(HbaProblem::HostName("all".into()))
        );
    }
}
