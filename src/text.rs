//! Text for people, where a protocol has room for so much of it.

/// At most `most` bytes of a text, whole characters; what was cut off leaves an ellipsis.
pub fn short(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(short("four", 4), "four");
        assert_eq!(short("fours", 4), "f…");
        assert_eq!(short(&"ä".repeat(10), 10), "äää…");
        assert_eq!(short("fours", 0), "…");
    }
}
