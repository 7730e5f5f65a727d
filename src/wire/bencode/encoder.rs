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
    /// Writes an integer.
    pub fn int(&mut self, value: i64) -> &mut Self {
        self.out.extend_from_slice(format!("i{value}e").as_bytes());
        self
    }

    /// Writes a string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out
            .extend_from_slice(format!("{}:", bytes.len()).as_bytes());
        self.out.extend_from_slice(bytes);
        self
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
        let prefix = format!("{}:", key.len());
        let start = self.out.len() + prefix.len();
        *last_key = Some((start, start + key.len()));
        self.out.extend_from_slice(prefix.as_bytes());
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
}
