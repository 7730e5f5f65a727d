//! Writes bencode (BEP 3), by the same rules by which it is read.

use super::Value;

/// Writes bencode; what it writes is canonical: keys ascend, nothing stays open.
///
/// ```
/// # use evpeer::wire::bencode::Encoder;
/// let mut encoder = Encoder::default();
/// encoder.dict_begin();
/// encoder.key(b"m").dict_begin().key(b"ut_pex").int(1).end();
/// encoder.key(b"v").bytes(b"evpeer");
/// encoder.end();
/// assert_eq!(encoder.finish(), b"d1:md6:ut_pexi1ee1:v6:evpeere");
/// ```
#[derive(Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
    open: Vec<Begun>,
}

/// A container that was begun; for a dictionary, where its last key stands in the output.
#[derive(Debug)]
enum Begun {
    List,
    Dict { last_key: Option<(usize, usize)> },
}

impl Encoder {
    /// An encoder with room for `len` bytes.
    pub fn with_capacity(len: usize) -> Self {
        Self {
            out: Vec::with_capacity(len),
            open: Vec::new(),
        }
    }

    /// Writes an integer.
    pub fn int(&mut self, value: i64) -> &mut Self {
        self.out.push(b'i');
        if value < 0 {
            self.out.push(b'-');
        }
        put_decimal(&mut self.out, value.unsigned_abs());
        self.out.push(b'e');
        self
    }

    /// Writes a string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.string_begin(bytes.len());
        self.out.extend_from_slice(bytes);
        self
    }

    /// Writes a string of `len` bytes in parts, which `parts` appends.
    ///
    /// # Panics
    /// If they are not `len` bytes.
    pub fn bytes_of(
        &mut self,
        len: usize,
        parts: impl IntoIterator<Item: AsRef<[u8]>>,
    ) -> &mut Self {
        self.string_begin(len);
        let end = self.out.len() + len;
        for part in parts {
            self.out.extend_from_slice(part.as_ref());
        }
        assert_eq!(self.out.len(), end, "a string has its length");
        self
    }

    fn string_begin(&mut self, len: usize) {
        put_decimal(&mut self.out, len as u64);
        self.out.push(b':');
    }

    /// Writes a value that is encoded already.
    pub fn value(&mut self, value: Value<'_>) -> &mut Self {
        self.out.extend_from_slice(value.raw());
        self
    }

    /// Begins a list, which [`Encoder::end`] ends.
    pub fn list_begin(&mut self) -> &mut Self {
        self.out.push(b'l');
        self.open.push(Begun::List);
        self
    }

    /// Begins a dictionary, which [`Encoder::end`] ends.
    pub fn dict_begin(&mut self) -> &mut Self {
        self.out.push(b'd');
        self.open.push(Begun::Dict { last_key: None });
        self
    }

    /// Writes the key of the value that is written next.
    ///
    /// # Panics
    /// Outside of a dictionary, or if `key` is not greater than the one before it.
    pub fn key(&mut self, key: &[u8]) -> &mut Self {
        let Some(Begun::Dict { last_key }) = self.open.last_mut() else {
            panic!("a key belongs into a dictionary");
        };
        if let Some((start, end)) = *last_key {
            assert!(&self.out[start..end] < key, "keys of a dictionary ascend");
        }
        put_decimal(&mut self.out, key.len() as u64);
        self.out.push(b':');
        let start = self.out.len();
        *last_key = Some((start, start + key.len()));
        self.out.extend_from_slice(key);
        self
    }

    /// Ends the list or dictionary begun last.
    ///
    /// # Panics
    /// If none is open.
    pub fn end(&mut self) -> &mut Self {
        assert!(self.open.pop().is_some(), "end of what was never begun");
        self.out.push(b'e');
        self
    }

    /// What was written.
    ///
    /// # Panics
    /// If a list or dictionary is still open.
    pub fn finish(self) -> Vec<u8> {
        assert!(self.open.is_empty(), "{} open containers", self.open.len());
        self.out
    }
}

/// Appends the digits of `number`: many of them are written in every tracker's answer.
pub(in crate::wire) fn put_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::bencode::Limits;

    #[test]
    fn encoder_writes_what_the_decoder_reads() {
        let mut encoder = Encoder::default();
        encoder.dict_begin();
        encoder.key(b"").int(i64::MIN).key(b"a").bytes(b"\0\xff");
        encoder
            .key(b"b")
            .list_begin()
            .int(0)
            .dict_begin()
            .end()
            .end();
        encoder
            .key(b"c")
            .value(Value::decode(b"li1ee", Limits::WIRE).unwrap());
        encoder.end();
        let text = encoder.finish();
        assert_eq!(
            text,
            b"d0:i-9223372036854775808e1:a2:\0\xff1:bli0edee1:cli1eee"
        );
    }

    #[test]
    #[should_panic(expected = "keys of a dictionary ascend")]
    fn encoder_refuses_a_key_out_of_order() {
        Encoder::default().dict_begin().key(b"b").int(1).key(b"a");
    }

    #[test]
    #[should_panic(expected = "1 open containers")]
    fn encoder_refuses_to_finish_an_open_list() {
        let mut encoder = Encoder::default();
        encoder.list_begin();
        encoder.finish();
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for number in [0, 1, 9, 10, 99, 100, 12345, u64::MAX / 10, u64::MAX] {
            let mut out = b"x".to_vec();
            put_decimal(&mut out, number);
            assert_eq!(out, format!("x{number}").into_bytes());
        }
    }

    #[test]
    fn string_in_parts_is_the_string() {
        let mut encoder = Encoder::with_capacity(8);
        encoder.bytes_of(5, ["ab", "", "cde"]);
        assert_eq!(encoder.finish(), b"5:abcde");
    }

    #[test]
    #[should_panic(expected = "a string has its length")]
    fn encoder_refuses_a_string_that_is_not_as_long_as_said() {
        Encoder::default().bytes_of(4, ["abc"]);
    }
}
