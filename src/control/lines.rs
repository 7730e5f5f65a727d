//! Lines out of a stream of bytes, within a limit.

use crate::base::limits::CONTROL_LINE_LEN_MAX;

/// What has come of a line that is not whole yet, and lines that nobody took yet.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Bytes of the buffer in which there is no line feed.
    searched: usize,
}

/// The line is longer than [`CONTROL_LINE_LEN_MAX`]: what follows cannot be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {CONTROL_LINE_LEN_MAX} B")]
pub struct LineTooLong;

impl Lines {
    /// Bytes that may come now: with more, a line could be too long.
    pub fn room(&self) -> usize {
        (CONTROL_LINE_LEN_MAX + 1).saturating_sub(self.buffer.len())
    }

    /// Takes what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next line, without its line feed; `None` if it is not whole yet.
    ///
    /// # Errors
    /// It never will be, within the limit.
    pub fn poll(&mut self) -> Result<Option<Vec<u8>>, LineTooLong> {
        let found = self.buffer[self.searched..]
            .iter()
            .position(|&b| b == b'\n');
        let Some(place) = found else {
            self.searched = self.buffer.len();
            return match self.buffer.len() > CONTROL_LINE_LEN_MAX {
                true => Err(LineTooLong),
                false => Ok(None),
            };
        };
        let end = self.searched + place;
        if end > CONTROL_LINE_LEN_MAX {
            return Err(LineTooLong);
        }
        let rest = self.buffer.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.truncate(end);
        self.searched = 0;
        Ok(Some(line))
    }

    /// Whether a whole line waits.
    pub fn has_line(&self) -> bool {
        self.buffer[self.searched..].contains(&b'\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let text = b"one\n\nthree and more\nfour";
        for cut in 0..text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                lines.push(part);
                while let Some(line) = lines.poll().expect("short") {
                    found.push(String::from_utf8(line).expect("text"));
                }
                assert!(!lines.has_line());
            }
            assert_eq!(found, ["one", "", "three and more"], "cut at {cut}");
        }
    }

    #[test]
    fn line_at_the_limit_passes_and_one_byte_more_does_not() {
        for (len, ending, passes) in [
            (CONTROL_LINE_LEN_MAX, "\n", true),
            (CONTROL_LINE_LEN_MAX + 1, "\n", false),
            (CONTROL_LINE_LEN_MAX + 1, "", false),
        ] {
            let mut lines = Lines::default();
            lines.push(&vec![b'x'; len]);
            lines.push(ending.as_bytes());
            match lines.poll() {
                Ok(line) => assert!(passes && line.is_some_and(|l| l.len() == len), "{len}"),
                Err(LineTooLong) => assert!(!passes, "{len}"),
            }
        }
        let mut lines = Lines::default();
        assert_eq!(lines.room(), CONTROL_LINE_LEN_MAX + 1);
        lines.push(&[b'x'; 10]);
        assert_eq!(lines.room(), CONTROL_LINE_LEN_MAX - 9);
    }
}
