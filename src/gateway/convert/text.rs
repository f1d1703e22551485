//! Rules on single strings, and their forms on both sides.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::fmt::Write;

use crate::agent_contract;
use crate::resources::quantity;

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

/// What keeps `text` from being a quantity.
pub fn not_quantity(text: &str) -> Option<String> {
    let known = quantity::thousandths(&Quantity(text.into())).filter(|n| *n >= 0);
    known.is_none().then(|| format!("{} is not a quantity such as 500m or 1Gi", quoted(text)))
}

/// Whether a path is in a folder that is ours.
pub fn is_ours(path: &str) -> bool {
    path.starts_with(agent_contract::DIRECTORY)
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
