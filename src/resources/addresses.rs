//! Address ranges that sandboxes never reach or reach only by an explicit rule, and how they are subtracted from
//! others.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Never reachable, whatever a rule allows: the clouds' metadata services (AWS, GCP, Azure and most others; Azure's
/// wire server; Alibaba; AWS, Google, Oracle and Scaleway over IPv6), and link-local.
const NEVER: [&str; 8] = [
    "169.254.0.0/16",
    "168.63.129.16/32",
    "100.100.100.200/32",
    "fe80::/10",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "fd00:c1::a9fe:a9fe/128",
    "fd00:42::42/128",
];

/// Reachable only by a rule that contains them: what IANA does not list as globally reachable, and transition prefixes
/// that lead there.
const NOT_BY_DEFAULT: [&str; 28] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/127",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/32",
    "2001:2::/48",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fec0::/10",
    "ff00::/8",
];

/// The two address lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lists {
    /// Subtracted from every rule, also in the form that NAT64 translates.
    pub never: Vec<IpNet>,
    /// Subtracted from what is allowed by default, together with `never`.
    pub not_by_default: Vec<IpNet>,
}

impl Lists {
    /// The built-in lists, and what the configuration adds.
    pub(crate) fn new(never: &[IpNet], not_by_default: &[IpNet]) -> Lists {
        let with = |built_in: &[&str], more: &[IpNet]| -> Vec<IpNet> {
            built_in
                .iter()
                .filter_map(|s| s.parse().ok())
                .chain(more.iter().map(IpNet::trunc))
                .collect()
        };
        let never = with(&NEVER, never);
        let translated: Vec<IpNet> = never.iter().filter_map(through_nat64).collect();
        Lists {
            never: [never, translated].concat(),
            not_by_default: with(&NOT_BY_DEFAULT, not_by_default),
        }
    }

    /// Both lists together.
    pub(crate) fn not_internet(&self) -> Vec<IpNet> {
        self.never.iter().chain(&self.not_by_default).copied().collect()
    }
}

/// The IPv6 addresses that a translator with the well-known prefix 64:ff9b::/96 (RFC 6052) maps to these IPv4
/// addresses.
fn through_nat64(net: &IpNet) -> Option<IpNet> {
    let IpNet::V4(v4) = net else { return None };
    let [a, b, c, d] = v4.network().octets();
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    let address = std::net::Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, pair(a, b), pair(c, d));
    Ipv6Net::new(address, 96 + v4.prefix_len()).ok().map(IpNet::V6)
}

/// An address range without some of its parts. Each is a strict subset, as the API requires.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The range.
    pub cidr: IpNet,
    /// The excluded parts: as few ranges as possible, sorted.
    pub except: Vec<IpNet>,
}

/// `cidr` without `minus`; `None` if nothing remains.
pub(crate) fn subtract(cidr: IpNet, minus: &[IpNet]) -> Option<Block> {
    let inside: Vec<IpNet> = minus
        .iter()
        .map(IpNet::trunc)
        .filter(|m| cidr.contains(m) || m.contains(&cidr))
        .collect();
    let except = aggregate(&inside);
    if except.iter().any(|e| e.contains(&cidr)) {
        return None;
    }
    Some(Block { cidr, except })
}

fn aggregate(nets: &[IpNet]) -> Vec<IpNet> {
    let (mut v4, mut v6): (Vec<Ipv4Net>, Vec<Ipv6Net>) = (vec![], vec![]);
    for net in nets {
        match net {
            IpNet::V4(n) => v4.push(*n),
            IpNet::V6(n) => v6.push(*n),
        }
    }
    Ipv4Net::aggregate(&v4)
        .into_iter()
        .map(IpNet::V4)
        .chain(Ipv6Net::aggregate(&v6).into_iter().map(IpNet::V6))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn net(s: &str) -> IpNet {
        s.parse().unwrap()
    }

    #[test]
    fn every_built_in_range_parses() {
        let lists = Lists::new(&[], &[]);
        let v4 = NEVER.iter().filter(|n| n.contains('.')).count();
        assert_eq!(
            (lists.never.len(), lists.not_by_default.len()),
            (NEVER.len() + v4, NOT_BY_DEFAULT.len())
        );
    }

    #[test]
    fn never_includes_the_addresses_that_nat64_translates() {
        let never = Lists::new(&[net("172.18.0.2/32"), net("2001:db8::/32")], &[]).never;
        for translated in [
            "64:ff9b::a9fe:0/112",
            "64:ff9b::a83f:8110/128",
            "64:ff9b::6464:64c8/128",
            "64:ff9b::ac12:2/128",
        ] {
            assert!(never.contains(&net(translated)), "{translated}");
        }
    }

    #[test]
    fn subtraction_keeps_strict_subsets_only() {
        let minus = [
            net("169.254.0.0/16"),
            net("fe80::/10"),
            net("10.0.0.0/9"),
            net("10.128.0.0/9"),
        ];
        let whole = subtract(net("0.0.0.0/0"), &minus).unwrap();
        assert_eq!(whole.except, [net("10.0.0.0/8"), net("169.254.0.0/16")]);
        assert_eq!(subtract(net("1.2.3.0/24"), &minus).unwrap().except, []);
        assert_eq!(subtract(net("169.254.169.254/32"), &minus), None);
        assert_eq!(subtract(net("169.254.0.0/16"), &minus), None);
        assert_eq!(subtract(net("10.0.0.0/8"), &minus), None, "two halves are the whole");
    }
}
