//! Text from the network, made safe for terminals and logs.

use std::fmt::Write;

/// `bytes` as text of at most `len_max` bytes, and an ellipsis if that was too little.
///
/// What is no UTF-8 becomes U+FFFD; controls and what changes the direction of writing are
/// escaped, so that no sender steers a terminal or forges a log line.
pub fn printable(bytes: &[u8], len_max: usize) -> String {
    // A character takes four bytes at most: nothing beyond can be shown.
    let front = &bytes[..bytes.len().min(4 * len_max + 4)];
    let mut text = String::new();
    for c in String::from_utf8_lossy(front).chars() {
        let end = text.len();
        match is_printable(c) {
            true => text.push(c),
            false => write!(text, "{}", c.escape_unicode()).expect("a String takes all"),
        }
        if text.len() > len_max {
            text.truncate(end);
            text.push('…');
            break;
        }
    }
    text
}

/// Neither a control, nor a line or paragraph separator, nor a mark of direction.
pub fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        && !matches!(c, '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        let cases: [(&[u8], &str); 7] = [
            (b"plain text", "plain text"),
            ("grün 漢字".as_bytes(), "grün 漢字"),
            (b"\x1b[2J\r\nforged", "\\u{1b}[2J\\u{d}\\u{a}forged"),
            ("a\u{202e}b\u{2028}c".as_bytes(), "a\\u{202e}b\\u{2028}c"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            (b"\0\x7f", "\\u{0}\\u{7f}"),
            (b"", ""),
        ];
        for (bytes, expected) in cases {
            assert_eq!(printable(bytes, 100), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn text_is_cut_between_characters() {
        let cases: [(&[u8], &str); 5] = [
            (b"12345678", "12345678"),
            (b"123456789", "12345678…"),
            ("1234567ü".as_bytes(), "1234567…"),
            (b"12345\n", "12345…"),
            (&[b'\n'; 1 << 20], "\\u{a}…"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(printable(bytes, 8), expected);
        }
    }
}
