//! Bencode (BEP 3): strict, iterative, zero-copy decoding; canonical encoding.
//!
//! Decoding checks a text once, from front to back, within limits of depth and number of values.
//! A [`Value`] is then nothing but the checked span: it owns nothing, is as cheap to copy as a
//! slice, and steps over its parts again when asked for them. So a hostile text costs no memory
//! for a tree, and the raw bytes of every value (the info dictionary, to be hashed as found)
//! are at hand.
//!
//! Stricter than most decoders, since two readers of one text must see the same values: integers
//! fit 64 bits and, like lengths, have no leading zero; there is no `-0`; a key occurs once.
//! Keys out of order are accepted, as old torrents have them and only their raw bytes count.

mod encoder;

use std::fmt;

use crate::base::limits;

pub use encoder::Encoder;
pub(super) use encoder::put_decimal;

/// One checked bencoded value: an integer, a byte string, a list or a dictionary.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// Exactly one value, checked: the functions that step over it rely on that.
    raw: &'a [u8],
}

/// How much structure a text may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Lists and dictionaries inside one another.
    pub depth: usize,
    /// Values in all; a key counts as one.
    pub tokens: usize,
}

/// Why a text is not bencode, or not bencode that we read. Every place is a byte offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BencodeError {
    /// The text ends inside a value.
    #[error("bencode ends too early, after {len} B")]
    Truncated {
        /// Bytes that there are.
        len: usize,
    },
    /// A value was to begin here.
    #[error("bencode value at byte {at} begins with 0x{byte:02x}")]
    NotAValue {
        /// Where the value was to begin.
        at: usize,
        /// What is there.
        byte: u8,
    },
    /// An integer with no digits, a leading zero or sign it must not have, or over 64 bits.
    #[error("bencode integer at byte {at} is malformed or exceeds 64 bits")]
    BadInteger {
        /// Where the integer begins.
        at: usize,
    },
    /// The length of a string has a leading zero, no colon, or no memory could hold it.
    #[error("bencode string length at byte {at} is malformed")]
    BadLength {
        /// Where the string begins.
        at: usize,
    },
    /// A dictionary has something else than a string where a key belongs.
    #[error("bencode dictionary key at byte {at} is no string")]
    KeyNotAString {
        /// Where the key was to begin.
        at: usize,
    },
    /// A dictionary ends after a key.
    #[error("bencode dictionary ends at byte {at} after a key without a value")]
    KeyWithoutValue {
        /// Where the dictionary ends.
        at: usize,
    },
    /// A dictionary has the same key twice.
    #[error("bencode dictionary at byte {at} has a key twice")]
    DuplicateKey {
        /// Where the dictionary begins.
        at: usize,
    },
    /// Too many containers inside one another.
    #[error("bencode nested deeper than {limit} at byte {at}")]
    TooDeep {
        /// Where the container begins that is one too many.
        at: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Too many values.
    #[error("bencode of more than {limit} values")]
    TooManyValues {
        /// How many there may be.
        limit: usize,
    },
    /// Bytes follow the value.
    #[error("bencode followed by {len} B of something else")]
    TrailingBytes {
        /// How many.
        len: usize,
    },
}

impl Limits {
    /// For a .torrent file.
    pub const FILE: Self = Self {
        depth: limits::BENCODE_DEPTH_FILE_MAX,
        tokens: limits::BENCODE_TOKENS_MAX,
    };
    /// For what a peer or a tracker sends.
    pub const WIRE: Self = Self {
        depth: limits::BENCODE_DEPTH_WIRE_MAX,
        tokens: limits::BENCODE_TOKENS_MAX,
    };
}

impl<'a> Value<'a> {
    /// Reads `input`, which is one value and nothing else.
    ///
    /// # Errors
    /// The first place at which `input` is not bencode, or is beyond `limits`.
    pub fn decode(input: &'a [u8], limits: Limits) -> Result<Self, BencodeError> {
        let (value, end) = Self::decode_prefix(input, limits)?;
        match input.len() - end {
            0 => Ok(value),
            len => Err(BencodeError::TrailingBytes { len }),
        }
    }

    /// Reads the value at the front of `input`; says where it ends.
    ///
    /// # Errors
    /// As [`Value::decode`], but for what follows the value, which is the caller's.
    pub fn decode_prefix(input: &'a [u8], limits: Limits) -> Result<(Self, usize), BencodeError> {
        let end = Checker::new(input, limits).value_end()?;
        Ok((Self { raw: &input[..end] }, end))
    }

    /// The bytes of this value as they were found.
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// The integer, if it is one.
    pub fn as_int(self) -> Option<i64> {
        match self.raw[0] {
            b'i' => integer(self.raw, 0).ok().map(|(value, _)| value),
            _ => None,
        }
    }

    /// The string, if it is one; it need not be UTF-8.
    pub fn as_bytes(self) -> Option<&'a [u8]> {
        match self.raw[0] {
            b'0'..=b'9' => string(self.raw, 0).ok().map(|(bytes, _)| bytes),
            _ => None,
        }
    }

    /// The items, if it is a list.
    pub fn as_list(self) -> Option<Items<'a>> {
        self.inside(b'l').map(|rest| Items { rest })
    }

    /// The entries in the order of the text, if it is a dictionary.
    pub fn as_dict(self) -> Option<Entries<'a>> {
        self.inside(b'd').map(|rest| Entries { rest })
    }

    /// The entries in the order of the text; none if it is no dictionary.
    pub fn entries(self) -> Entries<'a> {
        self.as_dict().unwrap_or(Entries { rest: &[] })
    }

    /// The value of `key`; none if there is no such key, or this is no dictionary.
    pub fn get(self, key: &[u8]) -> Option<Value<'a>> {
        self.entries()
            .find_map(|(name, value)| (name == key).then_some(value))
    }

    /// What stands between the first byte and the closing `e` of a container.
    fn inside(self, opening: u8) -> Option<&'a [u8]> {
        (self.raw[0] == opening).then(|| &self.raw[1..self.raw.len() - 1])
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.raw[..self.raw.len().min(100)];
        let dots = if shown.len() < self.raw.len() {
            "…"
        } else {
            ""
        };
        write!(f, "Value({}{dots})", shown.escape_ascii())
    }
}

/// The items of a list.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (raw, rest) = self.rest.split_at(checked_value_end(self.rest));
        self.rest = rest;
        Some(Value { raw })
    }
}

/// The keys and values of a dictionary, in the order of the text.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (key, end) = string(self.rest, 0).expect("a checked dictionary has string keys");
        let rest = &self.rest[end..];
        let (raw, rest) = rest.split_at(checked_value_end(rest));
        self.rest = rest;
        Some((key, Value { raw }))
    }
}

/// Where the value at the front of `text` ends; the text was checked before.
fn checked_value_end(text: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        match text[at] {
            b'l' | b'd' => {
                depth += 1;
                at += 1;
            }
            b'e' => {
                depth -= 1;
                at += 1;
            }
            b'i' => {
                let digits = text[at..].iter().position(|&byte| byte == b'e');
                at += digits.expect("a checked integer ends") + 1;
            }
            _ => at = string(text, at).expect("a checked string is whole").1,
        }
        if depth == 0 {
            return at;
        }
    }
}

/// Goes through a text that nobody has checked yet.
struct Checker<'a> {
    input: &'a [u8],
    limits: Limits,
    at: usize,
    values: usize,
    /// Containers that have begun and not ended, the outermost first; at most `limits.depth`.
    open: Vec<Open<'a>>,
}

/// A container whose end was not seen yet.
enum Open<'a> {
    List,
    Dict {
        start: usize,
        awaits: Awaits,
        last_key: Option<&'a [u8]>,
        order: Order,
    },
}

/// What comes next in a dictionary.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaits {
    Key,
    Value,
}

/// Whether the keys of a dictionary ascend so far; if they do, none occurs twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Ascending,
    Mixed,
}

impl<'a> Checker<'a> {
    fn new(input: &'a [u8], limits: Limits) -> Self {
        Self {
            input,
            limits,
            at: 0,
            values: 0,
            open: Vec::new(),
        }
    }

    /// Checks one value; says where it ends.
    fn value_end(mut self) -> Result<usize, BencodeError> {
        loop {
            let byte = self.byte()?;
            match (byte, self.open.last_mut()) {
                (b'e', Some(_)) => self.close()?,
                (_, Some(Open::Dict { awaits, .. })) if *awaits == Awaits::Key => {
                    *awaits = Awaits::Value;
                    self.key(byte)?;
                }
                (_, Some(Open::Dict { awaits, .. })) => {
                    *awaits = Awaits::Key;
                    self.begin_value(byte)?;
                }
                (_, Some(Open::List) | None) => self.begin_value(byte)?,
            }
            if self.open.is_empty() {
                return Ok(self.at);
            }
        }
    }

    fn byte(&self) -> Result<u8, BencodeError> {
        let len = self.input.len();
        let byte = self.input.get(self.at).copied();
        byte.ok_or(BencodeError::Truncated { len })
    }

    /// Steps over a string or integer, or into a container.
    fn begin_value(&mut self, byte: u8) -> Result<(), BencodeError> {
        self.count()?;
        match byte {
            b'i' => self.at = integer(self.input, self.at)?.1,
            b'0'..=b'9' => self.at = string(self.input, self.at)?.1,
            b'l' => self.begin_container(Open::List)?,
            b'd' => self.begin_container(Open::Dict {
                start: self.at,
                awaits: Awaits::Key,
                last_key: None,
                order: Order::Ascending,
            })?,
            _ => return Err(BencodeError::NotAValue { at: self.at, byte }),
        }
        Ok(())
    }

    fn begin_container(&mut self, container: Open<'a>) -> Result<(), BencodeError> {
        let limit = self.limits.depth;
        if self.open.len() >= limit {
            return Err(BencodeError::TooDeep { at: self.at, limit });
        }
        self.open.push(container);
        self.at += 1;
        Ok(())
    }

    fn key(&mut self, byte: u8) -> Result<(), BencodeError> {
        self.count()?;
        if !byte.is_ascii_digit() {
            return Err(BencodeError::KeyNotAString { at: self.at });
        }
        let (key, end) = string(self.input, self.at)?;
        self.at = end;
        if let Some(Open::Dict {
            last_key, order, ..
        }) = self.open.last_mut()
            && last_key.replace(key).is_some_and(|last| last >= key)
        {
            *order = Order::Mixed;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), BencodeError> {
        let at = self.at;
        self.at += 1;
        match self.open.pop() {
            Some(Open::Dict {
                awaits: Awaits::Value,
                ..
            }) => Err(BencodeError::KeyWithoutValue { at }),
            Some(Open::Dict {
                start,
                order: Order::Mixed,
                ..
            }) => {
                let inside = &self.input[start + 1..at];
                if has_duplicate_key(Entries { rest: inside }) {
                    return Err(BencodeError::DuplicateKey { at: start });
                }
                Ok(())
            }
            Some(Open::Dict { .. } | Open::List) | None => Ok(()),
        }
    }

    fn count(&mut self) -> Result<(), BencodeError> {
        self.values += 1;
        let limit = self.limits.tokens;
        if self.values > limit {
            return Err(BencodeError::TooManyValues { limit });
        }
        Ok(())
    }
}

fn has_duplicate_key(entries: Entries<'_>) -> bool {
    let mut keys: Vec<&[u8]> = entries.map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}

/// Reads `i…e` at `start`; gives the number and where it ends. Reads 21 bytes at most.
fn integer(input: &[u8], start: usize) -> Result<(i64, usize), BencodeError> {
    let bad = BencodeError::BadInteger { at: start };
    let negative = input.get(start + 1) == Some(&b'-');
    let first = start + 1 + usize::from(negative);
    let mut at = first;
    let mut value = 0_i64;
    loop {
        let len = input.len();
        let digit = match input.get(at).ok_or(BencodeError::Truncated { len })? {
            b'e' if at > first => break,
            digit @ b'0'..=b'9' => i64::from(digit - b'0'),
            _ => return Err(bad),
        };
        // A zero stands alone, and takes no sign.
        if at > first && input[first] == b'0' || negative && at == first && digit == 0 {
            return Err(bad);
        }
        let tens = value.checked_mul(10).ok_or(bad)?;
        let signed = if negative { -digit } else { digit };
        value = tens.checked_add(signed).ok_or(bad)?;
        at += 1;
    }
    Ok((value, at + 1))
}

/// Reads `len:…` at `start`; gives the bytes and where they end.
fn string(input: &[u8], start: usize) -> Result<(&[u8], usize), BencodeError> {
    let bad = BencodeError::BadLength { at: start };
    let truncated = BencodeError::Truncated { len: input.len() };
    let mut at = start;
    let mut len = 0_usize;
    loop {
        let digit = match input.get(at).ok_or(truncated)? {
            b':' if at > start => break,
            digit @ b'0'..=b'9' => usize::from(digit - b'0'),
            _ => return Err(bad),
        };
        if at > start && input[start] == b'0' {
            return Err(bad);
        }
        let tens = len.checked_mul(10).ok_or(bad)?;
        len = tens.checked_add(digit).ok_or(bad)?;
        at += 1;
    }
    let bytes = input[at + 1..].get(..len).ok_or(truncated)?;
    Ok((bytes, at + 1 + len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn decode(text: &[u8]) -> Result<Value<'_>, BencodeError> {
        Value::decode(text, Limits::WIRE)
    }

    #[test]
    fn examples_of_bep_3_are_read() {
        assert_eq!(decode(b"4:spam").unwrap().as_bytes(), Some(&b"spam"[..]));
        assert_eq!(decode(b"i3e").unwrap().as_int(), Some(3));
        assert_eq!(decode(b"i-3e").unwrap().as_int(), Some(-3));
        assert_eq!(decode(b"i0e").unwrap().as_int(), Some(0));
        let list = decode(b"l4:spam4:eggse").unwrap().as_list().unwrap();
        let items: Vec<_> = list.filter_map(Value::as_bytes).collect();
        assert_eq!(items, [b"spam", b"eggs"]);
        let dict = decode(b"d4:spaml1:a1:bee").unwrap();
        assert_eq!(dict.get(b"spam").unwrap().raw(), b"l1:a1:be");
        assert_eq!(dict.get(b"ham"), None);
    }

    #[test]
    fn texts_are_accepted_or_refused_for_the_right_reason() {
        use BencodeError as E;
        let cases: &[(&[u8], Result<(), BencodeError>)] = &[
            (b"i9223372036854775807e", Ok(())),
            (b"i-9223372036854775808e", Ok(())),
            (b"i9223372036854775808e", Err(E::BadInteger { at: 0 })),
            (b"i-9223372036854775809e", Err(E::BadInteger { at: 0 })),
            (b"i-0e", Err(E::BadInteger { at: 0 })),
            (b"li00ee", Err(E::BadInteger { at: 1 })),
            (b"ie", Err(E::BadInteger { at: 0 })),
            (b"i-e", Err(E::BadInteger { at: 0 })),
            (b"i12", Err(E::Truncated { len: 3 })),
            (b"0:", Ok(())),
            (b"00:", Err(E::BadLength { at: 0 })),
            (b"01:a", Err(E::BadLength { at: 0 })),
            (b"1a", Err(E::BadLength { at: 0 })),
            (b"-1:", Err(E::NotAValue { at: 0, byte: b'-' })),
            (b"3:ab", Err(E::Truncated { len: 4 })),
            (b"18446744073709551615:", Err(E::Truncated { len: 21 })),
            (b"18446744073709551616:", Err(E::BadLength { at: 0 })),
            (b"", Err(E::Truncated { len: 0 })),
            (b"e", Err(E::NotAValue { at: 0, byte: b'e' })),
            (b"le", Ok(())),
            (b"de", Ok(())),
            (b"l", Err(E::Truncated { len: 1 })),
            (b"lee", Err(E::TrailingBytes { len: 1 })),
            (b"di1e1:ae", Err(E::KeyNotAString { at: 1 })),
            (b"d1:ae", Err(E::KeyWithoutValue { at: 4 })),
            (b"d1:b0:1:a0:e", Ok(())),
            (b"d1:a0:1:a0:e", Err(E::DuplicateKey { at: 0 })),
            (b"ld1:a0:1:b0:1:a0:ee", Err(E::DuplicateKey { at: 1 })),
        ];
        for (text, expected) in cases {
            let found = decode(text).map(|_| ());
            assert_eq!(&found, expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn limits_hold_exactly() {
        let limits = Limits {
            depth: 3,
            tokens: 5,
        };
        let cases: &[(&[u8], Result<(), BencodeError>)] = &[
            (b"llleee", Ok(())),
            (b"d1:ad1:aleee", Ok(())),
            (b"lllleeee", Err(BencodeError::TooDeep { at: 3, limit: 3 })),
            (b"l0:0:0:0:e", Ok(())),
            (
                b"l0:0:0:0:0:e",
                Err(BencodeError::TooManyValues { limit: 5 }),
            ),
        ];
        for (text, expected) in cases {
            let found = Value::decode(text, limits).map(|_| ());
            assert_eq!(&found, expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn prefix_ends_where_its_value_ends() {
        let text = b"d8:msg_typei1e5:piecei0eepayload";
        let (value, end) = Value::decode_prefix(text, Limits::WIRE).unwrap();
        assert_eq!(&text[end..], b"payload");
        assert_eq!(value.get(b"msg_type").and_then(Value::as_int), Some(1));
    }

    #[test]
    fn accessors_of_another_type_give_nothing() {
        for text in [&b"i1e"[..], b"1:a", b"le", b"de"] {
            let value = decode(text).unwrap();
            let some = [
                value.as_int().is_some(),
                value.as_bytes().is_some(),
                value.as_list().is_some(),
                value.as_dict().is_some(),
            ];
            let count = some.iter().filter(|&&yes| yes).count();
            assert_eq!(count, 1, "{value:?}");
        }
    }

    #[test]
    fn no_prefix_of_a_text_is_a_text() {
        let text = b"d1:ai-12e1:bl3:abcdeee";
        assert!(decode(text).is_ok());
        for len in 0..text.len() {
            assert!(decode(&text[..len]).is_err(), "{len} B");
        }
    }

    #[test]
    fn random_text_never_panics_and_walks_within_itself() {
        const ALPHABET: &[u8] = b"ilde0123:-a\xff";
        let mut rng = Rng::new(1);
        let mut accepted = 0;
        for _ in 0..200_000 {
            let len = 1 + rng.below(14);
            let text: Vec<u8> = (0..len)
                .map(|_| ALPHABET[rng.below(ALPHABET.len() as u32) as usize])
                .collect();
            if let Ok((value, end)) = Value::decode_prefix(&text, Limits::WIRE) {
                accepted += 1;
                assert_eq!(value.raw().len(), end);
                let inside: usize = value
                    .as_list()
                    .map_or(0, |l| l.map(|v| v.raw().len()).sum());
                assert!(inside < end, "{}", text.escape_ascii());
            }
        }
        assert!(accepted > 1000, "only {accepted} texts accepted");
    }
}
