//! Rules on single strings, and their forms on both sides.

use std::fmt::Write;

/// As Kubernetes reads it in a command, an argument or a variable: the SDK's strings are literal, Kubernetes expands `$(NAME)` and `$$`.
pub fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

/// The reverse of [`escape`]. What Kubernetes would expand (of a sandbox made by kubectl) stays as it is written.
pub fn unescape(text: &str) -> String {
    text.replace("$$", "$")
}

/// A value of the caller's in a message: short, and without control characters.
pub fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for (i, c) in text.chars().enumerate() {
        if i == 64 {
            out.push('…');
            break;
        }
        let _ = if c.is_control() {
            write!(out, "{}", c.escape_default())
        } else {
            write!(out, "{c}")
        };
    }
    out.push('"');
    out
}

/// What keeps `text` from being a DNS label.
pub fn dns_label(text: &str) -> Option<String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-');
    (!good).then(|| format!("{} is not a DNS label: at most 63 of a-z, 0-9 and -", quoted(text)))
}

/// What keeps `text` from being the name of an environment variable.
pub fn variable(text: &str) -> Option<String> {
    if text == "CW_SANDBOX_ID" {
        return Some("CW_SANDBOX_ID is set by the platform".into());
    }
    let first = |c: char| c.is_ascii_alphabetic() || "_.-".contains(c);
    let good = text.starts_with(first) && text.chars().all(|c| first(c) || c.is_ascii_digit()) && text != "." && !text.starts_with("..");
    (!good).then(|| format!("{} is not the name of a variable", quoted(text)))
}

/// What keeps a string from reaching a process: no argument and no variable can hold a NUL.
pub fn no_nul(text: &str) -> Option<&'static str> {
    text.contains('\0').then_some("has a NUL character")
}

/// The number that a Kubernetes quantity stands for; none if it is not one.
pub fn quantity(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let (number, unit) = UNITS
        .into_iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .unwrap_or((text, 1.0));
    let digits = |t: &str| t.bytes().any(|b| b.is_ascii_digit()) && t.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let plain = unit == 1.0 || !number.contains(['e', 'E']);
    let exponent_good = exponent.strip_prefix(['+', '-']).unwrap_or(exponent).bytes().all(|b| b.is_ascii_digit()) && !exponent.is_empty();
    if !plain || !exponent_good || !digits(mantissa.strip_prefix('+').unwrap_or(mantissa)) {
        return None;
    }
    number.parse::<f64>().ok().map(|n| n * unit).filter(|n| n.is_finite())
}

/// What keeps `text` from being a quantity.
pub fn not_quantity(text: &str) -> Option<String> {
    quantity(text)
        .is_none()
        .then(|| format!("{} is not a quantity such as 500m or 1Gi", quoted(text)))
}

/// Whether a path is in a folder that is ours.
pub fn is_ours(path: &str) -> bool {
    path.starts_with("/.sandbox-operator")
}

/// A path without empty and `.` parts; none with `..`.
pub fn normal_path(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    let root = if path.starts_with('/') { "/" } else { "" };
    (!parts.contains(&"..")).then(|| format!("{root}{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, number) in [
            ("500m", 0.5),
            ("1Gi", 1_073_741_824.0),
            ("2", 2.0),
            ("1.5", 1.5),
            ("1e3", 1000.0),
            ("1E", 1e18),
            ("+1k", 1000.0),
        ] {
            assert_eq!(quantity(text), Some(number), "{text}");
        }
        for text in [
            "", "50%", "much", "1 Gi", "1gi", "-1", "Gi", "1e", "1e3Mi", ".", "1.2.3", "inf", "NaN", "0x10", "1_0",
        ] {
            assert_eq!(quantity(text), None, "{text}");
        }
    }

    #[test]
    fn dollars_survive_kubernetes_and_come_back() {
        for text in ["", "$HOME", "$$", "$(X)", "a$", "$$$(Y)$"] {
            assert_eq!(unescape(&escape(text)), text);
        }
        assert_eq!(escape("$(X)"), "$$(X)");
    }

    #[test]
    fn names_and_paths() {
        assert!(variable("NOT A NAME").is_some() && variable("1A").is_some() && variable("").is_some() && variable("CW_SANDBOX_ID").is_some());
        assert!(variable("A_1").is_none() && variable("_x").is_none());
        assert!(dns_label("-a").is_some() && dns_label("A").is_some() && dns_label("").is_some() && dns_label("a-1").is_none());
        assert_eq!(normal_path("/a//./b").as_deref(), Some("/a/b"));
        assert_eq!(normal_path("./a").as_deref(), Some("a"));
        assert_eq!(normal_path("a/../b"), None);
        assert_eq!(quoted(&"x".repeat(99)).chars().count(), 67);
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
    }
}
