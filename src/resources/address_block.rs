//! Address ranges that users declare, in custom resources and in requests to the gateway. There is one check for both,
//! and each names the fields of its own document.

use ipnet::IpNet;
use std::net::IpAddr;

use super::addresses::{Block, subtract};
use crate::api::{FieldError, FieldPath};

/// A declared range and the ranges that are excluded from it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredBlock {
    /// The range.
    pub cidr: IpNet,
    /// The excluded ranges.
    pub except: Vec<IpNet>,
    /// What can be reached: the range without the excluded ranges, and without those that no sandbox can reach.
    pub allowed: Block,
}

/// Checks a declared range. `never`: what no sandbox can reach. The paths are those of the fields in the user's
/// document.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn check(
    cidr: (&FieldPath, &str),
    except: (&FieldPath, &[String]),
    never: &[IpNet],
) -> Result<DeclaredBlock, Vec<FieldError>> {
    let ((cidr_path, cidr), (except_path, except)) = (cidr, except);
    let (mut errors, mut parts) = (vec![], vec![]);
    let whole = parse(cidr_path, cidr).map_err(|e| errors.push(e)).ok();
    for (i, text) in except.iter().enumerate() {
        let path = except_path.index(i);
        match (parse(&path, text), whole) {
            (Err(error), _) => errors.push(error),
            (Ok(part), Some(whole)) if part == whole || !whole.contains(&part) => {
                errors.push(path.error(format!("must be a part of {whole}; {part} is not")));
            }
            (Ok(part), _) => parts.push(part),
        }
    }
    let Some(cidr) = whole.filter(|_| errors.is_empty()) else {
        return Err(errors);
    };
    let minus: Vec<IpNet> = parts.iter().chain(never).copied().collect();
    let Some(allowed) = subtract(cidr, &minus) else {
        let text =
            format!("must contain an address that a sandbox can reach; {cidr} has none, or all of them are excluded");
        return Err(vec![cidr_path.error(text)]);
    };
    Ok(DeclaredBlock {
        cidr,
        except: parts,
        allowed,
    })
}

/// Addresses of ::ffff:0:0/96 are IPv4 on the network, where IPv4 rules apply; the API server refuses them in a policy.
fn parse(path: &FieldPath, text: &str) -> Result<IpNet, FieldError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(path.error(format!("must have a prefix length; write {}", IpNet::from(address))));
    }
    let net: IpNet = text.parse().map_err(|_| {
        let text: String = text.chars().take(64).flat_map(char::escape_default).collect();
        path.error(format!(
            "must be an address range such as 203.0.113.0/24; \"{text}\" is not"
        ))
    })?;
    match net {
        _ if net != net.trunc() => {
            Err(path.error(format!("must have no bits set after the prefix; write {}", net.trunc())))
        }
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => {
            Err(path.error(format!("must not be IPv4 in IPv6 form; write {net} as IPv4")))
        }
        _ => Ok(net),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn errors(cidr: &str, except: &[&str]) -> String {
        let root = FieldPath::root("rule");
        let except: Vec<String> = except.iter().map(|e| (*e).to_owned()).collect();
        let never = ["169.254.0.0/16".parse().unwrap()];
        let result = check((&root.field("cidr"), cidr), (&root.field("except"), &except), &never);
        let all: Vec<String> = result.err().into_iter().flatten().map(|e| e.to_string()).collect();
        all.join("; ")
    }

    #[test]
    fn errors_say_what_to_write() {
        for (cidr, except, error) in [
            (
                "10.0.0.1/8",
                vec![],
                "rule.cidr: must have no bits set after the prefix; write 10.0.0.0/8",
            ),
            (
                "10.0.0.1",
                vec![],
                "rule.cidr: must have a prefix length; write 10.0.0.1/32",
            ),
            (
                "2001:db8::1",
                vec![],
                "rule.cidr: must have a prefix length; write 2001:db8::1/128",
            ),
            (
                "a\nb",
                vec![],
                "rule.cidr: must be an address range such as 203.0.113.0/24; \"a\\nb\" is not",
            ),
            (
                "::ffff:10.0.0.0/104",
                vec![],
                "rule.cidr: must not be IPv4 in IPv6 form; write ::ffff:10.0.0.0/104 as IPv4",
            ),
            (
                "10.0.0.0/8",
                vec!["10.1.0.0/16", "11.0.0.0/8"],
                "rule.except[1]: must be a part of 10.0.0.0/8; 11.0.0.0/8 is not",
            ),
            (
                "10.0.0.0/8",
                vec!["10.0.0.0/8"],
                "rule.except[0]: must be a part of 10.0.0.0/8; 10.0.0.0/8 is not",
            ),
            (
                "x",
                vec!["y"],
                "rule.cidr: must be an address range such as 203.0.113.0/24; \"x\" is not; \
                rule.except[0]: must be an address range such as 203.0.113.0/24; \"y\" is not",
            ),
            (
                "169.254.169.254/32",
                vec![],
                "rule.cidr: must contain an address that a sandbox can reach; 169.254.169.254/32 has none, or all of them are excluded",
            ),
            (
                "10.0.0.0/8",
                vec!["10.0.0.0/9", "10.128.0.0/9"],
                "rule.cidr: must contain an address that a sandbox can reach; 10.0.0.0/8 has none, or all of them are excluded",
            ),
            ("169.254.0.0/15", vec![], ""),
            ("10.0.0.0/8", vec!["10.0.0.0/9"], ""),
        ] {
            assert_eq!(errors(cidr, &except), error);
        }
    }
}
