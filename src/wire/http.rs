//! HTTP responses as far as a tracker's client needs them (RFC 9112).
//!
//! No sockets: [`TrackerUrl::to_request`](super::url::TrackerUrl::to_request) gives the bytes to
//! send, [`ResponseReader`] takes those that come back. Trackers are strangers: everything is
//! limited, nothing is believed, and what has two readings is refused.
//!
//! ```text
//! Head ──┬── 1xx ──▶ Head          ┌── Length(left) ────────────────▶ done
//!        └── any other status ──▶ ─┼── ChunkSize ⇄ ChunkData ⇄ ChunkEnd
//!                                  │       └── Trailer ──────────────▶ done
//!                                  └── UntilClose ── end of stream ──▶ done
//! ```

use crate::base::limits::{
    HTTP_FIELDS_MAX, HTTP_HEAD_LEN_MAX, HTTP_INTERIM_MAX, TRACKER_BODY_LEN_MAX, TRACKER_URL_LEN_MAX,
};

/// A whole response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code, 200 to 999.
    pub status: u16,
    /// Where a redirect leads; text of the tracker, not checked.
    pub location: Option<String>,
    /// The body, within the reader's limit.
    pub body: Vec<u8>,
}

impl Response {
    /// Whether the answer lies at `location`.
    pub fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308) && self.location.is_some()
    }
}

/// Why a response is unusable. The connection is closed in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Not HTTP, or HTTP that is broken.
    #[error("the answer is not HTTP/1.x")]
    NotHttp,
    /// The head does not end.
    #[error("the head of the answer exceeds {HTTP_HEAD_LEN_MAX} B")]
    HeadTooLong,
    /// The head has too many lines.
    #[error("the head of the answer has more than {HTTP_FIELDS_MAX} fields")]
    TooManyFields,
    /// Too many answers that announce another one, or a change of protocol.
    #[error("the answer is put off again and again (status {status})")]
    Interim {
        /// The status code of the last one.
        status: u16,
    },
    /// The body's length is no number, or given twice.
    #[error("the answer has no clear length")]
    BadLength,
    /// The body is encoded in a way that we did not ask for.
    #[error("the answer is compressed or encoded, though we asked for plain bytes")]
    Encoded,
    /// The body is longer than any such answer should be.
    #[error("the answer exceeds {limit} B")]
    BodyTooLong {
        /// Bytes that it may have.
        limit: usize,
    },
    /// A chunked body is broken.
    #[error("the chunks of the answer are malformed")]
    BadChunk,
    /// The stream ended before anything was answered.
    #[error("the connection was closed without an answer")]
    NoAnswer,
    /// The stream ended inside the response.
    #[error("the connection was closed inside the answer")]
    Truncated,
}

/// Takes the bytes of one response, in parts of any size.
#[derive(Debug)]
pub struct ResponseReader {
    body_max: usize,
    state: State,
    /// The head while it is incomplete, later a line between chunks.
    line: Vec<u8>,
    interim: u32,
    status: u16,
    location: Option<String>,
    body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// A body whose end is known.
    Length {
        left: usize,
    },
    /// A body that ends with the stream.
    UntilClose,
    /// A line with the next chunk's length.
    ChunkSize,
    ChunkData {
        left: usize,
    },
    /// The empty line after a chunk.
    ChunkEnd,
    /// The lines after the last chunk.
    Trailer {
        lines: usize,
    },
    /// Nothing more is read.
    Done,
}

/// For the answer of a tracker.
impl Default for ResponseReader {
    fn default() -> Self {
        Self::with_body_max(TRACKER_BODY_LEN_MAX)
    }
}

impl ResponseReader {
    /// A reader for an answer whose body has `body_max` bytes at most.
    pub fn with_body_max(body_max: usize) -> Self {
        Self {
            body_max,
            state: State::Head,
            line: Vec::new(),
            interim: 0,
            status: 0,
            location: None,
            body: Vec::new(),
        }
    }

    /// Takes the next bytes of the stream; gives the response once it is whole.
    ///
    /// What follows the response is ignored: we ask for one, and for the stream to be closed.
    ///
    /// # Errors
    /// If this cannot become a response that we accept. The reader is of no use after that.
    pub fn received(&mut self, mut bytes: &[u8]) -> Result<Option<Response>, HttpError> {
        while self.state != State::Done && !bytes.is_empty() {
            let used = match self.state {
                State::Head => self.take_head(bytes)?,
                State::Length { left } => self.take_body(left, bytes)?,
                State::UntilClose => self.take_body(usize::MAX, bytes)?,
                State::ChunkData { left } => self.take_body(left, bytes)?,
                State::ChunkSize | State::ChunkEnd | State::Trailer { .. } => {
                    self.take_line(bytes)?
                }
                State::Done => bytes.len(),
            };
            bytes = &bytes[used..];
            if self.state == State::Done {
                return Ok(Some(self.response()));
            }
        }
        Ok(None)
    }

    /// Says that the stream has ended; gives the response if its end was to be told so.
    ///
    /// # Errors
    /// If the response is not whole.
    pub fn end_of_stream(&mut self) -> Result<Response, HttpError> {
        match self.state {
            State::UntilClose => {
                self.state = State::Done;
                Ok(self.response())
            }
            State::Head if self.line.is_empty() && self.interim == 0 => Err(HttpError::NoAnswer),
            _ => Err(HttpError::Truncated),
        }
    }

    fn response(&mut self) -> Response {
        Response {
            status: self.status,
            location: self.location.take(),
            body: std::mem::take(&mut self.body),
        }
    }

    /// Collects the head up to its empty line; parses it once, when it is whole.
    fn take_head(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        let held = self.line.len();
        let part = bytes.len().min(HTTP_HEAD_LEN_MAX - held);
        self.line.extend_from_slice(&bytes[..part]);
        let Some(end) = head_end(&self.line, held) else {
            if self.line.len() == HTTP_HEAD_LEN_MAX {
                return Err(HttpError::HeadTooLong);
            }
            return Ok(part);
        };
        let mut text = std::mem::take(&mut self.line);
        text.truncate(end);
        self.parse_head(&text)?;
        Ok(end - held)
    }

    fn parse_head(&mut self, text: &[u8]) -> Result<(), HttpError> {
        let mut fields = [httparse::EMPTY_HEADER; HTTP_FIELDS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        match head.parse(text) {
            Ok(httparse::Status::Complete(end)) if end == text.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(HttpError::TooManyFields),
            Ok(_) | Err(_) => return Err(HttpError::NotHttp),
        }
        let status = head.code.ok_or(HttpError::NotHttp)?;
        match status {
            0..=99 => return Err(HttpError::NotHttp),
            100 | 102..=199 if self.interim < HTTP_INTERIM_MAX => {
                self.interim += 1;
                return Ok(());
            }
            100..=199 => return Err(HttpError::Interim { status }),
            _ => {}
        }
        self.status = status;
        self.location = location(head.headers);
        self.state = body_framing(status, head.headers, self.body_max)?;
        Ok(())
    }

    /// Appends to the body what belongs to it: `left` bytes at most.
    fn take_body(&mut self, left: usize, bytes: &[u8]) -> Result<usize, HttpError> {
        let part = left.min(bytes.len());
        if part > self.body_max - self.body.len() {
            return Err(too_long(self.body_max));
        }
        self.body.extend_from_slice(&bytes[..part]);
        self.state = match self.state {
            State::ChunkData { .. } if part == left => State::ChunkEnd,
            State::ChunkData { .. } => State::ChunkData { left: left - part },
            State::Length { .. } if part == left => State::Done,
            State::Length { .. } => State::Length { left: left - part },
            other => other,
        };
        Ok(part)
    }

    /// Collects a line of a chunked body (RFC 9112, section 7.1) and acts on it when it is whole.
    fn take_line(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        let newline = bytes.iter().position(|&byte| byte == b'\n');
        let part = newline.map_or(bytes.len(), |at| at + 1);
        if part > CHUNK_LINE_LEN_MAX - self.line.len() {
            return Err(HttpError::BadChunk);
        }
        self.line.extend_from_slice(&bytes[..part]);
        if newline.is_none() {
            return Ok(part);
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.state = match self.state {
            State::ChunkSize => match chunk_len(line, self.body_max)? {
                0 => State::Trailer { lines: 0 },
                left => State::ChunkData { left },
            },
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::Trailer { .. } if line.is_empty() => State::Done,
            State::Trailer { lines } if lines < HTTP_FIELDS_MAX => {
                State::Trailer { lines: lines + 1 }
            }
            _ => return Err(HttpError::BadChunk),
        };
        self.line.clear();
        Ok(part)
    }
}

/// Where the first empty line of `text` ends, if one does; none did in the first `known` bytes.
fn head_end(text: &[u8], known: usize) -> Option<usize> {
    let from = known.saturating_sub(2);
    (from..text.len()).find_map(|at| match text[at..] {
        [b'\n', b'\n', ..] => Some(at + 2),
        [b'\n', b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

fn location(fields: &[httparse::Header<'_>]) -> Option<String> {
    let field = fields
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("location"))?;
    let text = str::from_utf8(field.value).ok()?;
    (text.len() <= TRACKER_URL_LEN_MAX).then(|| text.to_owned())
}

/// How the body is delimited (RFC 9112, section 6.3); doubts are errors.
fn body_framing(
    status: u16,
    fields: &[httparse::Header<'_>],
    body_max: usize,
) -> Result<State, HttpError> {
    let mut framing = None;
    for field in fields {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let value = field.value.trim_ascii();
        if is("content-encoding") && !value.eq_ignore_ascii_case(b"identity") {
            return Err(HttpError::Encoded);
        }
        let state = match () {
            () if is("content-length") => match content_len(value, body_max)? {
                0 => State::Done,
                left => State::Length { left },
            },
            () if is("transfer-encoding") && value.eq_ignore_ascii_case(b"chunked") => {
                State::ChunkSize
            }
            () if is("transfer-encoding") => return Err(HttpError::Encoded),
            () => continue,
        };
        if framing.replace(state).is_some() {
            return Err(HttpError::BadLength);
        }
    }
    Ok(match status {
        204 | 304 => State::Done,
        _ => framing.unwrap_or(State::UntilClose),
    })
}

fn content_len(value: &[u8], max: usize) -> Result<usize, HttpError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HttpError::BadLength);
    }
    number(value, 10, max)
}

/// Reads the line before a chunk; extensions after `;` are ignored.
fn chunk_len(line: &[u8], max: usize) -> Result<usize, HttpError> {
    let digits = line
        .split(|&byte| byte == b';')
        .next()
        .unwrap_or(line)
        .trim_ascii_end();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(HttpError::BadChunk);
    }
    number(digits, 16, max)
}

/// The length that `digits` are, `max` at most.
fn number(digits: &[u8], radix: u32, max: usize) -> Result<usize, HttpError> {
    let number = str::from_utf8(digits)
        .ok()
        .and_then(|text| usize::from_str_radix(text, radix).ok());
    number
        .filter(|&len| len <= max)
        .ok_or_else(|| too_long(max))
}

fn too_long(limit: usize) -> HttpError {
    HttpError::BodyTooLong { limit }
}

/// Bytes of a line between chunks at most.
const CHUNK_LINE_LEN_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    const TOO_LONG: HttpError = HttpError::BodyTooLong {
        limit: TRACKER_BODY_LEN_MAX,
    };

    /// Reads `parts` in turn, then the end of the stream.
    fn read(parts: &[&[u8]]) -> Result<Response, HttpError> {
        let mut reader = ResponseReader::default();
        for part in parts {
            if let Some(response) = reader.received(part)? {
                return Ok(response);
            }
        }
        reader.end_of_stream()
    }

    fn ok(body: &[u8]) -> Result<Response, HttpError> {
        Ok(Response {
            status: 200,
            location: None,
            body: body.to_vec(),
        })
    }

    /// The chunked body follows the example of RFC 9112, section 7.1; the rest section 6.3.
    const WHOLE: [(&str, &[u8], &[u8]); 8] = [
        (
            "length",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd",
            b"abcd",
        ),
        (
            "bytes after it",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabcd",
            b"ab",
        ),
        (
            "no body",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"",
        ),
        ("until close", b"HTTP/1.0 200 OK\r\n\r\nabcd", b"abcd"),
        (
            "bare newlines",
            b"HTTP/1.1 200 OK\nX: y\ncontent-length:4\n\nabcd",
            b"abcd",
        ),
        (
            "chunks",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n\
              4\r\nWiki\r\n005;x=y\r\npedia\r\nA \r\n0123456789\r\n0\r\nTrailer: z\r\n\r\nrest",
            b"Wikipedia0123456789",
        ),
        (
            "100-continue first",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n\
              HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
            b"ok",
        ),
        (
            "no reason phrase",
            b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx",
            b"x",
        ),
    ];

    #[test]
    fn every_framing_of_rfc_9112_is_read() {
        for (name, bytes, body) in WHOLE {
            assert_eq!(read(&[bytes]), ok(body), "{name}");
        }
    }

    #[test]
    fn every_split_gives_the_same_response() {
        for (name, bytes, body) in WHOLE {
            for at in 0..=bytes.len() {
                let (front, back) = bytes.split_at(at);
                assert_eq!(read(&[front, back]), ok(body), "{name}, split at {at}");
            }
            let parts: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(read(&parts), ok(body), "{name}, byte by byte");
        }
    }

    #[test]
    fn redirects_are_reported_with_their_target() {
        let bytes = b"HTTP/1.1 302 Found\r\nlocation: /a?b\r\nContent-Length: 0\r\n\r\n";
        let response = read(&[bytes]).expect("a response");
        assert_eq!(
            (response.status, response.location.as_deref()),
            (302, Some("/a?b"))
        );
        assert!(response.is_redirect());
        let cases: [&[u8]; 3] = [
            b"HTTP/1.1 302 Found\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: \xff\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nLocation: /a\r\n\r\n",
        ];
        for bytes in cases {
            let response = read(&[bytes]).expect("a response");
            assert!(!response.is_redirect(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_cut_response_is_never_taken_for_a_whole_one() {
        for (name, bytes, body) in WHOLE.into_iter().filter(|case| case.0 != "until close") {
            for len in 0..bytes.len() {
                match read(&[&bytes[..len]]) {
                    Err(HttpError::NoAnswer) => assert_eq!(len, 0, "{name}"),
                    Err(error) => assert_eq!(error, HttpError::Truncated, "{name}"),
                    whole => assert_eq!(whole, ok(body), "{name}, {len} B"),
                }
            }
        }
    }

    /// Row 78 of the hostile inputs.
    #[test]
    fn what_has_two_readings_or_no_end_is_refused() {
        use HttpError as E;
        let cases: [(&str, E); 26] = [
            ("Content-Length: -1\r\n\r\n", E::BadLength),
            ("Content-Length: +1\r\n\r\n", E::BadLength),
            ("Content-Length: 1x\r\n\r\n", E::BadLength),
            ("Content-Length:\r\n\r\n", E::BadLength),
            ("Content-Length: 1, 1\r\n\r\n", E::BadLength),
            (
                "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
                E::BadLength,
            ),
            (
                "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
                E::BadLength,
            ),
            (
                "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                E::BadLength,
            ),
            ("Content-Length: 2097153\r\n\r\n", TOO_LONG),
            ("Content-Length: 1073741824\r\n\r\n", TOO_LONG),
            ("Content-Length: 99999999999999999999999\r\n\r\n", TOO_LONG),
            ("Content-Encoding: gzip\r\n\r\n", E::Encoded),
            ("Transfer-Encoding: gzip, chunked\r\n\r\n", E::Encoded),
            ("Transfer-Encoding: chunked\r\n\r\nx\r\n", E::BadChunk),
            ("Transfer-Encoding: chunked\r\n\r\n\r\n", E::BadChunk),
            ("Transfer-Encoding: chunked\r\n\r\n-1\r\n", E::BadChunk),
            ("Transfer-Encoding: chunked\r\n\r\n0x1\r\n", E::BadChunk),
            ("Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", E::BadChunk),
            ("Transfer-Encoding: chunked\r\n\r\n200001\r\n", TOO_LONG),
            (
                "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
                TOO_LONG,
            ),
            (
                "Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\n",
                TOO_LONG,
            ),
            ("No colon\r\n\r\n", E::NotHttp),
            ("A: b\r\n c: folded\r\n\r\n", E::NotHttp),
            ("Nul: \0\r\n\r\n", E::NotHttp),
            ("Content-Length: 9\r\n\r\nshort", E::Truncated),
            ("Transfer-Encoding: chunked\r\n\r\n5\r\nab", E::Truncated),
        ];
        for (rest, error) in cases {
            let bytes = format!("HTTP/1.1 200 OK\r\n{rest}");
            assert_eq!(read(&[bytes.as_bytes()]), Err(error), "{rest:?}");
        }
        let cases: [(&[u8], E); 8] = [
            (b"", E::NoAnswer),
            (b"HTTP/1.1 200", E::Truncated),
            (b"HTTP/2.0 200 OK\r\n\r\n", E::NotHttp),
            (b"HTTP/1.1 20 OK\r\n\r\n", E::NotHttp),
            (b"HTTP/1.1 099 OK\r\n\r\n", E::NotHttp),
            (b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", E::NotHttp),
            (b"d8:intervali1ee\n\n", E::NotHttp),
            (
                b"HTTP/1.1 101 Switching\r\n\r\n",
                E::Interim { status: 101 },
            ),
        ];
        for (bytes, error) in cases {
            assert_eq!(read(&[bytes]), Err(error), "{}", bytes.escape_ascii());
        }
    }

    /// Row 78 of the hostile inputs: `part` again and again after `start`, until it is enough.
    #[test]
    fn nothing_endless_is_read_to_its_end() {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let trailer = [&chunked[..], b"0\r\n"].concat();
        let cases: [(&[u8], &[u8], HttpError, usize); 7] = [
            (b"HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 4096], TOO_LONG, 2 << 20),
            (
                b"HTTP/1.1 200 OK\r\nX: ",
                &[b'x'; 100],
                HttpError::HeadTooLong,
                16 << 10,
            ),
            (
                b"HTTP/1.1 200 OK\r\n",
                b"X: y\r\n",
                HttpError::HeadTooLong,
                16 << 10,
            ),
            (
                b"",
                b"HTTP/1.1 100 Continue\r\n\r\n",
                HttpError::Interim { status: 100 },
                256,
            ),
            (chunked, b"1\r\nx\r\n", TOO_LONG, 13 << 20),
            (chunked, b"1;extension", HttpError::BadChunk, 2048),
            (&trailer, b"Trailer: x\r\n", HttpError::BadChunk, 1024),
        ];
        for (start, part, expected, len_max) in cases {
            let mut reader = ResponseReader::default();
            let mut sent = start.len();
            let mut outcome = reader.received(start);
            while outcome == Ok(None) {
                sent += part.len();
                assert!(
                    sent <= start.len() + len_max + part.len(),
                    "{sent} B: {expected}"
                );
                outcome = reader.received(part);
            }
            assert_eq!(outcome, Err(expected));
        }
        let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
        head.extend((0..=HTTP_FIELDS_MAX).flat_map(|_| *b"X: y\r\n"));
        head.extend(b"\r\n");
        assert_eq!(read(&[&head]), Err(HttpError::TooManyFields));
    }

    #[test]
    fn limit_of_the_body_is_the_readers_own() {
        let of = |len: usize| {
            let mut bytes =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").into_bytes();
            bytes.resize(bytes.len() + len, b'x');
            ResponseReader::with_body_max(5_000_000).received(&bytes)
        };
        let whole = of(5_000_000).expect("within the limit").expect("whole");
        assert_eq!(whole.body.len(), 5_000_000);
        let limit = 5_000_000;
        assert_eq!(of(5_000_001), Err(HttpError::BodyTooLong { limit }));
    }

    #[test]
    fn random_bytes_give_the_same_result_in_any_split_and_never_panic() {
        let mut rng = Rng::new(9112);
        for round in 0..4000 {
            let mut bytes = WHOLE[round % WHOLE.len()].1.to_vec();
            for _ in 0..rng.below(4) {
                let at = rng.below(bytes.len() as u32) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            let mut parts = Vec::new();
            let mut left = &bytes[..];
            while !left.is_empty() {
                let (part, rest) = left.split_at(left.len().min(1 + rng.below(20) as usize));
                parts.push(part);
                left = rest;
            }
            assert_eq!(read(&parts), read(&[&bytes]), "{}", bytes.escape_ascii());
        }
    }
}
