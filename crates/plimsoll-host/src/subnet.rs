//! IPv4 subnets: carving a pool into blocks, and what a host has in use already.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 subnet such as `10.201.0.0/16`; no address bit below its prefix is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    first: u32,
    prefix: u8,
}

/// A text is no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a subnet, like 10.201.0.0/16")]
pub struct NoSubnet;

impl FromStr for Subnet {
    type Err = NoSubnet;

    fn from_str(text: &str) -> Result<Self, NoSubnet> {
        let (address, prefix) = text.split_once('/').ok_or(NoSubnet)?;
        let address: Ipv4Addr = address.parse().map_err(|_| NoSubnet)?;
        let digits = (1..=2).contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix: u8 = prefix
            .parse()
            .ok()
            .filter(|p| digits && *p <= 32)
            .ok_or(NoSubnet)?;
        let subnet = Self::around(address, prefix);
        (subnet.first == u32::from(address))
            .then_some(subnet)
            .ok_or(NoSubnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

impl Subnet {
    /// The subnet of this size that an address is in.
    #[must_use]
    pub fn around(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self {
            first: u32::from(address) & mask(prefix),
            prefix,
        }
    }

    /// How many leading bits its addresses share.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether any address is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let wider = mask(self.prefix.min(other.prefix));
        self.first & wider == other.first & wider
    }

    /// Whether a host may have this address: in the subnet, and neither the network's own, nor the
    /// gateway's (the first), nor the broadcast address.
    #[must_use]
    pub fn has_host(self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        let last = self.first | !mask(self.prefix);
        address > self.first.saturating_add(1) && address < last
    }

    /// Every block of this size inside, beginning with the `from`th and going round once. Nothing when
    /// the blocks would be larger than the subnet.
    pub fn blocks(self, prefix: u8, from: u64) -> impl Iterator<Item = Self> {
        let count = match prefix.checked_sub(self.prefix) {
            Some(bits) if prefix <= 32 => 1u64 << bits,
            _ => 0,
        };
        (0..count).map(move |n| {
            let index = (from % count + n) % count;
            let offset = index << (32 - u32::from(prefix));
            Self {
                first: self.first | u32::try_from(offset).unwrap_or(0),
                prefix,
            }
        })
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX
        .checked_shl(32 - u32::from(prefix.min(32)))
        .unwrap_or(0)
}

/// The destinations in a text like `/proc/net/route`, without the default route.
#[must_use]
pub fn routes(text: &str) -> Vec<Subnet> {
    // Addresses are written as the kernel holds them: in network order, read as a native number.
    let address = |hex: &str| {
        let raw = u32::from_str_radix(hex, 16).ok()?;
        Some(Ipv4Addr::from(raw.to_ne_bytes()))
    };
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let destination = address(columns.nth(1)?)?;
            let mask = u32::from(address(columns.nth(5)?)?);
            (mask != 0).then(|| {
                let prefix = u8::try_from(mask.count_ones()).unwrap_or(32);
                Subnet::around(destination, prefix)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn only_a_whole_subnet_is_one() {
        for text in ["10.201.0.0/16", "0.0.0.0/0", "10.0.0.1/32"] {
            assert_eq!(subnet(text).to_string(), text);
        }
        for text in [
            "10.201.0.1/16",
            "10.201.0.0",
            "10.201.0.0/33",
            "10.201.0.0/+8",
            "10.201.0.0/016",
            "10.201.0/16",
            "fd00::/8",
            "",
        ] {
            assert_eq!(text.parse::<Subnet>(), Err(NoSubnet), "{text}");
        }
    }

    #[test]
    fn subnets_overlap_where_one_holds_the_other() {
        for (a, b, yes) in [
            ("10.0.0.0/8", "10.201.4.0/26", true),
            ("10.201.4.0/26", "10.201.4.0/26", true),
            ("10.201.4.0/26", "10.201.4.64/26", false),
            ("0.0.0.0/0", "10.0.0.0/8", true),
        ] {
            assert_eq!(subnet(a).overlaps(subnet(b)), yes, "{a} {b}");
            assert_eq!(subnet(b).overlaps(subnet(a)), yes, "{b} {a}");
        }
        for (address, yes) in [
            ("10.201.4.0", false),
            ("10.201.4.1", false),
            ("10.201.4.2", true),
            ("10.201.4.62", true),
            ("10.201.4.63", false),
            ("10.201.5.2", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(subnet("10.201.4.0/26").has_host(address), yes, "{address}");
        }
    }

    #[test]
    fn a_pool_is_gone_through_once_from_anywhere() {
        let texts = |pool: &str, prefix, from| -> Vec<String> {
            let blocks = subnet(pool).blocks(prefix, from);
            blocks.map(|b| b.to_string()).collect()
        };
        assert_eq!(
            texts("10.201.0.0/24", 26, 6),
            [
                "10.201.0.128/26",
                "10.201.0.192/26",
                "10.201.0.0/26",
                "10.201.0.64/26"
            ]
        );
        assert_eq!(texts("10.201.0.0/26", 26, 9), ["10.201.0.0/26"]);
        assert!(texts("10.201.0.0/26", 24, 0).is_empty());
        assert_eq!(subnet("0.0.0.0/0").blocks(32, u64::MAX).take(2).count(), 2);
    }

    #[test]
    fn the_routes_of_a_host_are_read_without_the_default() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
                    eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\n\
                    eth0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\n\
                    br-1\t00FAC90A\t00000000\t0001\t0\t0\t0\tC0FFFFFF\t0\n\
                    broken\n";
        let found: Vec<String> = routes(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.0/8", "10.201.250.0/26"]);
    }
}
