//! Address ranges that sandboxes never reach or reach only by an explicit rule, and how they are subtracted from
//! others.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr};

/// Never reachable, whatever a rule allows: the clouds' metadata services (AWS, GCP, Azure and most others; Azure's
/// wire server; Alibaba; AWS, its pod identities, Google, Oracle and Scaleway over IPv6), and link-local.
const NEVER: [&str; 9] = [
    "169.254.0.0/16",
    "168.63.129.16/32",
    "100.100.100.200/32",
    "fe80::/10",
    "fd00:ec2::254/128",
    "fd00:ec2::23/128",
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

/// The well-known prefix of NAT64 (RFC 6052).
const WELL_KNOWN_NAT64: &str = "64:ff9b::/96";
/// Lengths of the prefixes that RFC 6052 allows.
pub(crate) const NAT64_PREFIX_LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// Maximum number of ranges per family into which discovered addresses are merged in a policy.
const MAX_RANGES: usize = 512;

/// The two address lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lists {
    /// Subtracted from every rule, also in the form that NAT64 translates.
    pub never: Vec<IpNet>,
    /// Subtracted from what is allowed by default, together with `never`.
    pub not_by_default: Vec<IpNet>,
}

impl Lists {
    /// The built-in lists, and what the configuration adds. `nat64`: the prefixes of the network's translators, besides
    /// the well-known one.
    pub(crate) fn new(never: &[IpNet], not_by_default: &[IpNet], nat64: &[Ipv6Net]) -> Lists {
        let with = |built_in: &[&str], more: &[IpNet]| -> Vec<IpNet> {
            built_in
                .iter()
                .filter_map(|s| s.parse().ok())
                .chain(more.iter().map(IpNet::trunc))
                .collect()
        };
        let never = with(&NEVER, never);
        let prefixes: Vec<Ipv6Net> = WELL_KNOWN_NAT64
            .parse()
            .into_iter()
            .chain(nat64.iter().copied())
            .collect();
        let translated = prefixes
            .iter()
            .flat_map(|prefix| never.iter().filter_map(|net| through_nat64(prefix, net)))
            .collect();
        let mut not_by_default = with(&NOT_BY_DEFAULT, not_by_default);
        not_by_default.extend(nat64.iter().map(|prefix| IpNet::V6(prefix.trunc())));
        Lists {
            never: [never, translated].concat(),
            not_by_default,
        }
    }

    /// Both lists together.
    pub(crate) fn not_internet(&self) -> Vec<IpNet> {
        self.never.iter().chain(&self.not_by_default).copied().collect()
    }
}

/// The IPv6 addresses that a translator with this prefix (RFC 6052) maps to these IPv4 addresses. None if the RFC does
/// not define the prefix length.
fn through_nat64(prefix: &Ipv6Net, net: &IpNet) -> Option<IpNet> {
    let IpNet::V4(v4) = net else { return None };
    let before = prefix.prefix_len();
    if !NAT64_PREFIX_LENGTHS.contains(&before) {
        return None;
    }
    let mut octets = prefix.trunc().addr().octets();
    let mut at = usize::from(before / 8);
    let mut bits = v4.prefix_len();
    let mut length = before;
    for octet in v4.trunc().addr().octets() {
        // Bits 64 to 71 are always zero.
        if at == 8 {
            at += 1;
            length += if bits > 0 { 8 } else { 0 };
        }
        octets[at] = octet;
        at += 1;
        length += bits.min(8);
        bits -= bits.min(8);
    }
    Ipv6Net::new(octets.into(), length).ok().map(IpNet::V6)
}

/// Ranges that contain these addresses: single addresses if there are few, else the narrowest ranges of which there are
/// at most `MAX_RANGES`. This keeps the policies of a large cluster small. Ranges of public addresses stay narrow, even
/// if there are more of them, because they also cover other hosts of the internet.
pub(crate) fn covering(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpNet> {
    let (private, public): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(is_private);
    let (private_v4, private_v6): (Vec<_>, Vec<_>) = private.into_iter().partition(IpAddr::is_ipv4);
    let (public_v4, public_v6): (Vec<_>, Vec<_>) = public.into_iter().partition(IpAddr::is_ipv4);
    [
        narrowest(&private_v4, &[32, 28, 24, 20, 16, 12, 8]),
        narrowest(&private_v6, &[128, 112, 96, 80, 64, 56, 48, 32, 16]),
        narrowest(&public_v4, &[32, 28, 24]),
        narrowest(&public_v6, &[128, 112, 96, 80, 64]),
    ]
    .concat()
}

/// Ranges of the first length of which there are few enough, or of the last length.
fn narrowest(addresses: &[IpAddr], lengths: &[u8]) -> Vec<IpNet> {
    let mut ranges = vec![];
    for length in lengths {
        let nets = addresses
            .iter()
            .filter_map(|address| IpNet::new(*address, *length).ok());
        ranges = aggregate(&nets.map(|net| net.trunc()).collect::<Vec<_>>());
        if ranges.len() <= MAX_RANGES {
            break;
        }
    }
    ranges
}

fn is_private(address: &IpAddr) -> bool {
    const SHARED: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || SHARED.contains(v4),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
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
        let lists = Lists::new(&[], &[], &[]);
        let v4 = NEVER.iter().filter(|n| n.contains('.')).count();
        assert_eq!(
            (lists.never.len(), lists.not_by_default.len()),
            (NEVER.len() + v4, NOT_BY_DEFAULT.len())
        );
    }

    #[test]
    fn never_includes_the_addresses_that_nat64_translates() {
        let never = Lists::new(&[net("172.18.0.2/32"), net("2001:db8::/32")], &[], &[]).never;
        for translated in [
            "64:ff9b::a9fe:0/112",
            "64:ff9b::a83f:8110/128",
            "64:ff9b::6464:64c8/128",
            "64:ff9b::ac12:2/128",
        ] {
            assert!(never.contains(&net(translated)), "{translated}");
        }
    }

    /// The examples of RFC 6052, section 2.4, and ranges.
    #[test]
    fn a_translator_has_a_prefix_of_its_own() {
        for (prefix, v4, v6) in [
            ("2001:db8::/32", "192.0.2.33/32", "2001:db8:c000:221::/64"),
            ("2001:db8:100::/40", "192.0.2.33/32", "2001:db8:1c0:2:21::/80"),
            ("2001:db8:122::/48", "192.0.2.33/32", "2001:db8:122:c000:2:2100::/88"),
            ("2001:db8:122:300::/56", "192.0.2.33/32", "2001:db8:122:3c0:0:221::/96"),
            (
                "2001:db8:122:344::/64",
                "192.0.2.33/32",
                "2001:db8:122:344:c0:2:2100:0/104",
            ),
            (
                "2001:db8:122:344::/96",
                "192.0.2.33/32",
                "2001:db8:122:344::c000:221/128",
            ),
            ("2001:db8:122::/48", "169.254.0.0/16", "2001:db8:122:a9fe::/64"),
            ("2001:db8:100::/40", "10.0.0.0/8", "2001:db8:10a::/48"),
            ("2001:db8:122:344::/64", "10.0.0.0/8", "2001:db8:122:344:a::/80"),
        ] {
            let prefix: Ipv6Net = prefix.parse().unwrap();
            assert_eq!(through_nat64(&prefix, &net(v4)), Some(net(v6)), "{prefix} {v4}");
        }
        assert_eq!(
            through_nat64(&"2001:db8::/33".parse().unwrap(), &net("10.0.0.0/8")),
            None
        );
        let lists = Lists::new(&[], &[], &["2001:db8:122:344::/96".parse().unwrap()]);
        assert!(lists.never.contains(&net("2001:db8:122:344::a9fe:0/112")));
        assert!(lists.not_by_default.contains(&net("2001:db8:122:344::/96")));
    }

    #[test]
    fn many_addresses_become_few_ranges_that_contain_them() {
        let few = ["192.0.2.1", "192.0.2.9", "2001:db8::1"].map(|a| a.parse::<IpAddr>().unwrap());
        assert_eq!(covering(few), few.map(IpNet::from));
        let many: Vec<IpAddr> = (0..5_000_u32)
            .flat_map(|i| {
                [
                    IpAddr::V4((0x0a00_0000 + i * 16).into()),
                    IpAddr::V6((0xfd00_0db8_u128 << 96 | u128::from(i) << 64 | 7).into()),
                ]
            })
            .collect();
        let ranges = covering(many.iter().copied());
        assert!(ranges.len() <= 2 * MAX_RANGES, "{}", ranges.len());
        assert!(
            many.iter()
                .all(|address| ranges.iter().any(|range| range.contains(address)))
        );
        assert!(
            ranges.iter().all(|range| range.prefix_len() >= 16),
            "no wider than needed: {ranges:?}"
        );
        assert_eq!(covering([]), []);
    }

    #[test]
    fn public_addresses_take_few_others_along() {
        let many: Vec<IpAddr> = (0..1_000_u32)
            .flat_map(|i| {
                [
                    IpAddr::V4((0x2200_0001 + i * 0x200).into()),
                    IpAddr::V6((0x2001_0db8_u128 << 96 | u128::from(i) << 65 | 7).into()),
                ]
            })
            .collect();
        let ranges = covering(many.iter().copied());
        assert!(
            many.iter()
                .all(|address| ranges.iter().any(|range| range.contains(address)))
        );
        let is_narrow = |range: &IpNet| range.prefix_len() >= if range.addr().is_ipv4() { 24 } else { 64 };
        assert!(ranges.len() == many.len() && ranges.iter().all(is_narrow));
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
