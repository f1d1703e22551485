//! Text for people, where a protocol limits its length.

/// A text of at most `max` bytes, cut between characters; an ellipsis marks the cut.
pub fn short(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max.saturating_sub('…'.len_utf8()));
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
