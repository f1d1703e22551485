//! Rules for single strings, and their forms on both sides.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::fmt::Write;

use crate::agent_contract;
use crate::api::limits;
use crate::resources::exec_limits::MAX_TOTAL;
use crate::resources::quantity;

/// The text as Kubernetes reads it in a command, an argument or a variable: the SDK's strings are literal, Kubernetes
/// expands `$(NAME)` and `$$`.
pub(crate) fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

/// The reverse of [`escape`]. What Kubernetes would expand (in a sandbox created with kubectl) stays as it is.
pub(crate) fn unescape(text: &str) -> String {
    text.replace("$$", "$")
}

/// A value of the caller's in a message: short, and without control characters.
pub(crate) fn quoted(text: &str) -> String {
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

/// None for an empty text or list: protobuf does not distinguish it from one that is not set.
pub(crate) fn non_empty<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

/// Why `text` is not a DNS label.
pub(crate) fn dns_label_error(text: &str) -> Option<String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let valid =
        (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-');
    (!valid).then(|| {
        format!(
            "must be a DNS label (at most 63 of a-z, 0-9 and -); {} is not",
            quoted(text)
        )
    })
}

/// Why `text` cannot be the name of an environment variable.
pub(crate) fn variable_name_error(text: &str) -> Option<String> {
    if text == "CW_SANDBOX_ID" {
        return Some("CW_SANDBOX_ID is set by the platform; choose another name".into());
    }
    let first = |c: char| c.is_ascii_alphabetic() || "_.-".contains(c);
    let valid = text.starts_with(first)
        && text.chars().all(|c| first(c) || c.is_ascii_digit())
        && text != "."
        && !text.starts_with("..");
    let short = text.len() <= MAX_VARIABLE_NAME_BYTES;
    (!(valid && short)).then(|| {
        let text = quoted(text);
        format!("must be the name of a variable (letters, digits, '_', '.' and '-', no digit first, at most {MAX_VARIABLE_NAME_BYTES} bytes); {text} is not")
    })
}

const MAX_VARIABLE_NAME_BYTES: usize = 256;

/// Why no process can have this argument.
pub(crate) fn argument_error(text: &str) -> Option<String> {
    nul_error(text).map(Into::into).or_else(|| length_error(text.len()))
}

/// Why no process can have this variable.
pub(crate) fn variable_error(name: &str, value: &str) -> Option<String> {
    nul_error(value)
        .map(Into::into)
        .or_else(|| length_error(name.len() + 1 + value.len()))
}

fn length_error(bytes: usize) -> Option<String> {
    let most = limits::MAX_EXEC_STRING;
    (bytes > most).then(|| {
        format!("must have at most {most} bytes (a variable with its name and '='), not {bytes}; put it into a file")
    })
}

/// Why no process can have strings of these lengths, all together. Linux counts a NUL and a pointer for each.
pub(crate) fn exec_total_error(lengths: impl Iterator<Item = usize>) -> Option<String> {
    let total: usize = lengths.map(|length| length + 1 + size_of::<u64>()).sum();
    (total > MAX_TOTAL)
        .then(|| format!("must have at most {MAX_TOTAL} bytes in total, not {total}; put some of it into files"))
}

/// No argument, variable or path can contain a NUL.
pub(crate) fn nul_error(text: &str) -> Option<&'static str> {
    text.contains('\0').then_some("must not contain a NUL character")
}

/// Why `text` is not a quantity that the API server accepts.
pub(crate) fn quantity_error(text: &str) -> Option<String> {
    let known = quantity::thousandths(&Quantity(text.into())).filter(|n| *n >= 0);
    (known.is_none() || text.len() > MAX_QUANTITY_BYTES)
        .then(|| format!("must be a quantity such as 500m or 1Gi; {} is not", quoted(text)))
}

/// Why `text` is not the size of a volume.
pub(crate) fn size_error(text: &str) -> Option<String> {
    let is_zero = quantity::thousandths(&Quantity(text.into())) == Some(0);
    quantity_error(text).or_else(|| is_zero.then(|| "must be above zero".into()))
}

const MAX_QUANTITY_BYTES: usize = 32;

/// Whether a path is in one of the platform's own directories.
pub(crate) fn is_reserved_path(path: &str) -> bool {
    path.starts_with(agent_contract::DIRECTORY)
}

/// A path without empty and `.` parts; none with `..`.
pub(crate) fn normalized_path(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    let root = if path.starts_with('/') { "/" } else { "" };
    (!parts.contains(&"..")).then(|| format!("{root}{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_dollars_are_literal_and_unescape_restores_them() {
        for text in ["", "$HOME", "$$", "$(X)", "a$", "$$$(Y)$"] {
            assert_eq!(unescape(&escape(text)), text);
        }
        assert_eq!(escape("$(X)"), "$$(X)");
    }

    #[test]
    fn names_and_paths() {
        for name in ["NOT A NAME", "1A", "", "CW_SANDBOX_ID", &"A".repeat(257)] {
            assert!(variable_name_error(name).is_some(), "{name}");
        }
        assert!(variable_name_error("A_1").is_none() && variable_name_error("_x").is_none());
        for label in ["-a", "A", ""] {
            assert!(dns_label_error(label).is_some(), "{label}");
        }
        assert!(dns_label_error("a-1").is_none());
        assert_eq!(normalized_path("/a//./b").as_deref(), Some("/a/b"));
        assert_eq!(normalized_path("./a").as_deref(), Some("a"));
        assert_eq!(normalized_path("a/../b"), None);
        assert_eq!(quoted(&"x".repeat(99)).chars().count(), 67);
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
    }

    #[test]
    fn the_longest_argument_and_variable_are_those_of_linux() {
        let longest = "$".repeat(131_071);
        assert_eq!(argument_error(&longest), None);
        assert!(argument_error(&format!("{longest}x")).is_some());
        assert_eq!(variable_error("A", &longest[2..]), None);
        assert!(variable_error("AB", &longest[2..]).is_some());
        assert!(
            argument_error(&"ä".repeat(65_536)).is_some(),
            "bytes count, not characters"
        );
        assert_eq!(exec_total_error(std::iter::repeat_n(131_063, 16)), None);
        assert!(exec_total_error(std::iter::repeat_n(131_063, 16).chain([1])).is_some());
    }
}
