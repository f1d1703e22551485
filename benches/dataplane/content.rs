//! Bytes that are known, so that not one of them can go missing unseen: pure.

use bytes::Bytes;

/// Bytes that look random, and are the same each time.
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

/// Compares what arrives with what was sent.
pub struct Check<'a> {
    content: &'a [u8],
    wanted: u64,
    taken: u64,
    wrong: u64,
}

impl<'a> Check<'a> {
    /// `content`, so many times over.
    pub fn new(content: &'a [u8], times: usize) -> Check<'a> {
        Check {
            content,
            wanted: (content.len() * times) as u64,
            taken: 0,
            wrong: 0,
        }
    }

    /// The next bytes.
    pub fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() && !self.content.is_empty() {
            let place = (self.taken % self.content.len() as u64) as usize;
            let expected = &self.content[place..];
            let length = expected.len().min(data.len());
            let (now, later) = data.split_at(length);
            if now != &expected[..length] {
                self.wrong += now.iter().zip(expected).filter(|(a, b)| a != b).count() as u64;
            }
            self.taken += length as u64;
            data = later;
        }
    }

    /// Bytes that are missing, too many, or not what was sent.
    pub fn lost(&self) -> u64 {
        self.wanted.abs_diff(self.taken) + self.wrong
    }
}
