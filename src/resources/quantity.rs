//! Kubernetes' quantities as numbers.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Suffixes with their factors, in thousandths.
const SUFFIXES: [(&str, f64); 15] = [
    ("Ki", 1024e3),
    ("Mi", 1_048_576e3),
    ("Gi", 1_073_741_824e3),
    ("Ti", 1_099_511_627_776e3),
    ("Pi", 1_125_899_906_842_624e3),
    ("Ei", 1_152_921_504_606_847e6),
    ("n", 1e-6),
    ("u", 1e-3),
    ("m", 1.0),
    ("k", 1e6),
    ("M", 1e9),
    ("G", 1e12),
    ("T", 1e15),
    ("P", 1e18),
    ("E", 1e21),
];

/// A quantity in thousandths, rounded up as Kubernetes does; `None` if it is invalid. Exact to 53 bits.
pub(crate) fn thousandths(quantity: &Quantity) -> Option<i64> {
    let text = quantity.0.as_str();
    let (digits, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|digits| (digits, *factor)))
        .unwrap_or((text, 1e3));
    // Rust accepts more than Kubernetes: inf, NaN and the like. A suffix replaces the exponent.
    let exponent = digits.len() == text.len();
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-') || (exponent && matches!(c, 'e' | 'E'));
    // Kubernetes takes forever to parse exponents of many digits.
    let small = digits
        .split_once(['e', 'E'])
        .is_none_or(|(_, e)| e.trim_start_matches(['+', '-']).len() <= 2);
    let number: f64 = digits.parse().ok().filter(|_| digits.chars().all(plain) && small)?;
    #[allow(clippy::cast_possible_truncation)] // `as` saturates
    Some((number * factor).ceil() as i64)
}

/// A quantity in whole units, rounded up.
pub(crate) fn units(quantity: &Quantity) -> Option<i64> {
    thousandths(quantity).map(|t| t.saturating_add(999).div_euclid(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        let cases = [
            ("1", 1000),
            ("100m", 100),
            ("0.5", 500),
            ("1.5Gi", 1_610_612_736_000),
            ("2k", 2_000_000),
            ("1e3", 1_000_000),
            ("1e-3", 1),
            ("1e99", i64::MAX),
            ("1E", i64::MAX),
            ("1n", 1),
            ("-1", -1000),
        ];
        for (text, wanted) in cases {
            assert_eq!(thousandths(&Quantity(text.into())), Some(wanted), "{text}");
        }
        for text in [
            "", "much", "1 Gi", "Gi", "NaN", "inf", "0x10", "1GiB", " 1", "50%", "1e3Mi", "1e", "1e100", "1E-999",
        ] {
            assert_eq!(thousandths(&Quantity(text.into())), None, "{text}");
        }
        assert_eq!(units(&Quantity("1500m".into())), Some(2));
    }
}
