//! Known content and its verification. Pure.

use bytes::Bytes;

/// Pseudo-random bytes, the same each time.
pub fn content(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(length.div_ceil(8)).flatten().take(length).collect()
}

/// Compares received bytes with the expected ones.
pub struct Check<'a> {
    content: &'a [u8],
    expected_bytes: u64,
    received: u64,
    wrong: u64,
}

impl<'a> Check<'a> {
    /// Expects `content`, repeated `times` times.
    pub fn new(content: &'a [u8], times: usize) -> Check<'a> {
        Check {
            content,
            expected_bytes: (content.len() * times) as u64,
            received: 0,
            wrong: 0,
        }
    }

    /// Checks the next bytes.
    pub fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() && !self.content.is_empty() {
            let offset = (self.received % self.content.len() as u64) as usize;
            let expected = &self.content[offset..];
            let length = expected.len().min(data.len());
            let (head, rest) = data.split_at(length);
            if head != &expected[..length] {
                self.wrong += head.iter().zip(expected).filter(|(a, b)| a != b).count() as u64;
            }
            self.received += length as u64;
            data = rest;
        }
    }

    /// Number of bytes that are missing, extra or wrong.
    pub fn lost(&self) -> u64 {
        self.expected_bytes.abs_diff(self.received) + self.wrong
    }
}
