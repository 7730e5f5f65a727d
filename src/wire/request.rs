//! HTTP requests as they come to a tracker, and the answers (RFC 9112).
//!
//! Slices of any size go in, whole heads come out. Clients are strangers: what is too long or has
//! two readings is refused, and between two requests no buffer is kept.
//!
//! ```text
//!        "\r\n\r\n"                 body_left == 0
//! Head ─────────────▶ a request ──────────────────────▶ Head
//!                          └── Content-Length ── Body ───▲
//! ```

use std::mem::MaybeUninit;

use bytes::Bytes;

use super::bencode::put_decimal;
use crate::base::limits::{HTTP_FIELDS_MAX, REQUEST_BODY_LEN_MAX, REQUEST_HEAD_LEN_MAX};

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is to be done with it.
    pub method: Method,
    /// Whether the stream stays open after the answer.
    pub keep_alive: bool,
    /// Path, and query if there is one.
    target: Box<str>,
    path_len: usize,
}

/// What is to be done with what a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Send it.
    Get,
    /// Send its head.
    Head,
    /// Anything else.
    Other,
}

/// Why a stream brings no request that we take. [`RequestError::respond`] is the answer, after
/// which the stream is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not HTTP, or HTTP that is broken.
    #[error("the request is not HTTP/1.x")]
    NotHttp,
    /// The head does not end.
    #[error("the head of the request exceeds {REQUEST_HEAD_LEN_MAX} B")]
    HeadTooLong,
    /// The head has too many lines.
    #[error("the head of the request has more than {HTTP_FIELDS_MAX} fields")]
    TooManyFields,
    /// The body's length is no number, or given twice.
    #[error("the request's body has no clear length")]
    BadLength,
    /// Nothing here takes a body; a small one is passed over.
    #[error("the request's body exceeds {REQUEST_BODY_LEN_MAX} B")]
    BodyTooLong,
    /// The body comes in a way that hides its end.
    #[error("the request's body is encoded")]
    Encoded,
}

/// Takes the bytes of a stream of requests, in parts of any size.
#[derive(Debug, Default)]
pub struct RequestReader {
    /// The head while it is incomplete; without memory between requests.
    head: Vec<u8>,
    /// Bytes of a body that are still to be passed over.
    body_left: usize,
}

impl RequestReader {
    /// Takes bytes from the front of `bytes`, up to the end of one head; returns how many were
    /// used, and the request once its head is whole.
    ///
    /// To be called again with the rest: a client may send several requests at once, which are
    /// answered in their order.
    ///
    /// # Errors
    /// If this cannot become a request that we take. The reader is of no use after that.
    pub fn received(&mut self, bytes: &[u8]) -> Result<(usize, Option<Request>), RequestError> {
        let passed_over = self.pass_over(bytes);
        let bytes = &bytes[passed_over..];
        let held = self.head.len();
        let part = bytes.len().min(REQUEST_HEAD_LEN_MAX - held);
        // Most requests come whole: those are read where they lie.
        if held == 0
            && let Some(end) = head_end(&bytes[..part], 0)
        {
            let request = self.parse(&bytes[..end])?;
            return Ok((passed_over + end, Some(request)));
        }
        self.head.extend_from_slice(&bytes[..part]);
        let Some(end) = head_end(&self.head, held) else {
            if self.head.len() == REQUEST_HEAD_LEN_MAX {
                return Err(RequestError::HeadTooLong);
            }
            return Ok((passed_over + part, None));
        };
        let mut text = std::mem::take(&mut self.head);
        text.truncate(end);
        let request = self.parse(&text)?;
        Ok((passed_over + end - held, Some(request)))
    }

    /// Whether a request has begun and not ended; such a one has to end in time.
    pub fn is_within(&self) -> bool {
        !self.head.is_empty() || self.body_left > 0
    }

    /// How many bytes are of no interest: of a body, and empty lines between requests.
    fn pass_over(&mut self, bytes: &[u8]) -> usize {
        let body = self.body_left.min(bytes.len());
        self.body_left -= body;
        if !self.head.is_empty() {
            return body;
        }
        let is_empty_line = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        body + bytes[body..].iter().take_while(is_empty_line).count()
    }

    fn parse(&mut self, text: &[u8]) -> Result<Request, RequestError> {
        let mut fields = [const { MaybeUninit::uninit() }; HTTP_FIELDS_MAX];
        let mut head = httparse::Request::new(&mut []);
        match head.parse_with_uninit_headers(text, &mut fields) {
            Ok(httparse::Status::Complete(end)) if end == text.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(RequestError::TooManyFields),
            Ok(_) | Err(_) => return Err(RequestError::NotHttp),
        }
        let method = match head.method {
            Some("GET") => Method::Get,
            Some("HEAD") => Method::Head,
            _ => Method::Other,
        };
        let (keep_alive, body_len) = read_fields(head.headers, head.version == Some(1))?;
        let target = origin_form(head.path.ok_or(RequestError::NotHttp)?);
        self.body_left = body_len;
        Ok(Request {
            method,
            keep_alive,
            path_len: target.find('?').unwrap_or(target.len()),
            target: target.into(),
        })
    }
}

impl Request {
    /// The path as it was sent, not decoded.
    pub fn path(&self) -> &str {
        &self.target[..self.path_len]
    }

    /// The query as it was sent; empty if there is none.
    pub fn query(&self) -> &str {
        self.target.get(self.path_len + 1..).unwrap_or("")
    }
}

impl RequestError {
    /// The answer. After it the stream is to be closed.
    pub fn respond(self) -> Bytes {
        let status = match self {
            Self::NotHttp | Self::BadLength => 400,
            Self::BodyTooLong => 413,
            Self::HeadTooLong | Self::TooManyFields => 431,
            Self::Encoded => 501,
        };
        let mut out = Vec::new();
        let body = self.to_string();
        put_head(&mut out, status, "text/plain", body.len(), false);
        out.extend_from_slice(body.as_bytes());
        out.into()
    }
}

/// The answer to `request`: head, and body unless it was asked for the head alone.
///
/// With `status` 503 the stream is closed, as the head says: who is too much shall go.
pub fn respond(request: &Request, status: u16, content_type: &str, body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEAD_LEN + content_type.len() + body.len());
    let keep_alive = request.keep_alive && status != 503;
    put_head(&mut out, status, content_type, body.len(), keep_alive);
    if request.method != Method::Head {
        out.extend_from_slice(body);
    }
    out.into()
}

fn put_head(
    out: &mut Vec<u8>,
    status: u16,
    content_type: &str,
    content_len: usize,
    keep_alive: bool,
) {
    let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
    put(match status {
        200 => "HTTP/1.1 200 OK\r\n",
        400 => "HTTP/1.1 400 Bad Request\r\n",
        404 => "HTTP/1.1 404 Not Found\r\n",
        405 => "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD\r\n",
        413 => "HTTP/1.1 413 Content Too Large\r\n",
        431 => "HTTP/1.1 431 Request Header Fields Too Large\r\n",
        501 => "HTTP/1.1 501 Not Implemented\r\n",
        503 => "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\n",
        _ => "HTTP/1.1 500 Internal Server Error\r\n",
    });
    put("Content-Type: ");
    put(content_type);
    put(match keep_alive {
        true => "\r\nConnection: keep-alive\r\nContent-Length: ",
        false => "\r\nConnection: close\r\nContent-Length: ",
    });
    put_decimal(out, content_len as u64);
    out.extend_from_slice(b"\r\n\r\n");
}

/// Where the first empty line of `text` ends, if one does; none did in the first `known` bytes.
fn head_end(text: &[u8], known: usize) -> Option<usize> {
    let mut from = known.saturating_sub(2);
    loop {
        from += text[from..].iter().position(|&byte| byte == b'\n')? + 1;
        match text[from..] {
            [b'\n', ..] => return Some(from + 1),
            [b'\r', b'\n', ..] => return Some(from + 2),
            _ => {}
        }
    }
}

/// Whether the stream is kept (RFC 9112, section 9.3), and the length of the body (6.3).
fn read_fields(
    fields: &[httparse::Header<'_>],
    is_http_1_1: bool,
) -> Result<(bool, usize), RequestError> {
    let (mut says_close, mut says_keep_alive) = (false, false);
    let mut body_len = None;
    for field in fields {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("connection") {
            for word in field.value.split(|&byte| byte == b',') {
                let word = word.trim_ascii();
                says_close |= word.eq_ignore_ascii_case(b"close");
                says_keep_alive |= word.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if is("transfer-encoding") {
            return Err(RequestError::Encoded);
        } else if is("content-length") && body_len.replace(content_len(field.value)?).is_some() {
            return Err(RequestError::BadLength);
        }
    }
    let keep_alive = !says_close && (is_http_1_1 || says_keep_alive);
    Ok((keep_alive, body_len.unwrap_or(0)))
}

fn content_len(value: &[u8]) -> Result<usize, RequestError> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(RequestError::BadLength);
    }
    let text = str::from_utf8(digits).map_err(|_| RequestError::BadLength)?;
    let len = text.parse().map_err(|_| RequestError::BodyTooLong)?;
    match len {
        0..=REQUEST_BODY_LEN_MAX => Ok(len),
        _ => Err(RequestError::BodyTooLong),
    }
}

/// Path and query of a target that may be a whole address (RFC 9112, section 3.2.2).
fn origin_form(target: &str) -> &str {
    let is_http = |scheme: &[u8]| scheme.eq_ignore_ascii_case(b"http://");
    if !target.as_bytes().get(..7).is_some_and(is_http) {
        return target;
    }
    let after_scheme = &target[7..];
    match after_scheme.find(['/', '?']) {
        Some(at) => &after_scheme[at..],
        None => "/",
    }
}

/// Room for the head of an answer, bytes.
const HEAD_LEN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// All requests of a stream that comes in `parts`, and the error that ended it.
    fn read<'a>(
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<Request>, Option<RequestError>, bool) {
        let mut reader = RequestReader::default();
        let mut requests = Vec::new();
        for mut bytes in parts {
            while !bytes.is_empty() {
                match reader.received(bytes) {
                    Ok((used, request)) => {
                        assert!(used > 0 && used <= bytes.len());
                        bytes = &bytes[used..];
                        requests.extend(request);
                    }
                    Err(error) => return (requests, Some(error), reader.is_within()),
                }
            }
        }
        (requests, None, reader.is_within())
    }

    fn one(text: &[u8]) -> Result<Request, RequestError> {
        match read([text]) {
            (_, Some(error), _) => Err(error),
            (mut requests, None, _) => Ok(requests.pop().expect("a request")),
        }
    }

    #[test]
    fn requests_of_clients_are_read() {
        // As libtorrent 2.0, aria2 1.36 and `nc` send them.
        #[rustfmt::skip]
        let cases: [(&[u8], Method, &str, &str, bool); 12] = [
            (b"GET /announce?info_hash=%01 HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n",
                Method::Get, "/announce", "info_hash=%01", false),
            (b"GET /announce?a=b HTTP/1.1\r\nHost: a:1\r\n\r\n",
                Method::Get, "/announce", "a=b", true),
            (b"GET /scrape HTTP/1.0\r\n\r\n", Method::Get, "/scrape", "", false),
            (b"GET /scrape? HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
                Method::Get, "/scrape", "", true),
            (b"HEAD /a HTTP/1.1\nHost: a\n\n", Method::Head, "/a", "", true),
            (b"POST /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Method::Other, "/a", "", true),
            (b"get /a HTTP/1.1\r\n\r\n", Method::Other, "/a", "", true),
            (b"\r\n\r\nGET /a HTTP/1.1\r\n\r\n", Method::Get, "/a", "", true),
            (b"GET HTTP://host:1/a?b?c HTTP/1.1\r\n\r\n", Method::Get, "/a", "b?c", true),
            (b"GET http://host HTTP/1.1\r\n\r\n", Method::Get, "/", "", true),
            (b"GET /a HTTP/1.1\r\nConnection: keep-alive, close\r\n\r\n",
                Method::Get, "/a", "", false),
            (b"OPTIONS * HTTP/1.1\r\n\r\n", Method::Other, "*", "", true),
        ];
        for (text, method, path, query, keep_alive) in cases {
            let request = one(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
            let shown = text.escape_ascii();
            assert_eq!(request.method, method, "{shown}");
            assert_eq!(request.path(), path, "{shown}");
            assert_eq!(request.query(), query, "{shown}");
            assert_eq!(request.keep_alive, keep_alive, "{shown}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let fields = |count| {
            let mut text = b"GET / HTTP/1.1\r\n".to_vec();
            (0..count).for_each(|_| text.extend_from_slice(b"a: b\r\n"));
            text.extend_from_slice(b"\r\n");
            text
        };
        let head_of = |len: usize| {
            let mut text = b"GET /".to_vec();
            text.resize(len - 13, b'a');
            text.extend_from_slice(b" HTTP/1.1\r\n\r\n");
            text
        };
        let with = |field: &str| format!("POST / HTTP/1.1\r\n{field}\r\n\r\n").into_bytes();
        #[rustfmt::skip]
        let cases = [
            ("not HTTP",         b"BitTorrent\r\n\r\n".to_vec(),   Err(RequestError::NotHttp)),
            ("HTTP/0.9",         b"GET /\r\n\r\n".to_vec(),        Err(RequestError::NotHttp)),
            ("HTTP/2",           b"PRI * HTTP/2.0\r\n\r\n".to_vec(), Err(RequestError::NotHttp)),
            ("NUL",              b"GET /\0 HTTP/1.1\r\n\r\n".to_vec(), Err(RequestError::NotHttp)),
            ("folded field",     with("a: b\r\n c"),               Err(RequestError::NotHttp)),
            ("space before `:`", with("Content-Length : 1"),       Err(RequestError::NotHttp)),
            ("as many fields",   fields(HTTP_FIELDS_MAX),          Ok(())),
            ("too many fields",  fields(HTTP_FIELDS_MAX + 1),  Err(RequestError::TooManyFields)),
            ("longest head",     head_of(REQUEST_HEAD_LEN_MAX),    Ok(())),
            ("too long",         head_of(REQUEST_HEAD_LEN_MAX + 1), Err(RequestError::HeadTooLong)),
            ("no end",           vec![b'a'; 1 << 20],              Err(RequestError::HeadTooLong)),
            ("negative length",  with("Content-Length: -1"),       Err(RequestError::BadLength)),
            ("no length",        with("Content-Length:"),          Err(RequestError::BadLength)),
            ("two lengths",      with("Content-Length: 1\r\nContent-Length: 1"),
                                                                   Err(RequestError::BadLength)),
            ("long body",        with("Content-Length: 4097"),     Err(RequestError::BodyTooLong)),
            ("endless length",   with(&format!("Content-Length: {:0>40}", 1)), Ok(())),
            ("overflow",         with("Content-Length: 99999999999999999999"),
                                                                   Err(RequestError::BodyTooLong)),
            ("chunked",          with("Transfer-Encoding: chunked"), Err(RequestError::Encoded)),
        ];
        for (name, text, expected) in cases {
            assert_eq!(one(&text).map(|_| ()), expected, "{name}");
        }
    }

    #[test]
    fn every_error_is_an_answer_that_closes() {
        #[rustfmt::skip]
        let cases = [
            (RequestError::NotHttp,       "400 "), (RequestError::BadLength,   "400 "),
            (RequestError::HeadTooLong,   "431 "), (RequestError::BodyTooLong, "413 "),
            (RequestError::TooManyFields, "431 "), (RequestError::Encoded,     "501 "),
        ];
        for (error, status) in cases {
            let answer = String::from_utf8(error.respond().to_vec()).unwrap();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{answer}"
            );
            assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
            assert!(answer.ends_with(&error.to_string()), "{answer}");
        }
    }

    #[test]
    fn every_split_gives_the_same_requests() {
        let stream = b"GET /a?b=1 HTTP/1.1\r\nHost: x\r\n\r\n\
            POST /c HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /\
            \r\nGET /d HTTP/1.0\n\nHEAD /e";
        let (whole, error, is_within) = read([&stream[..]]);
        let paths: Vec<_> = whole.iter().map(Request::path).collect();
        assert_eq!(paths, ["/a", "/c", "/d"]);
        assert!(error.is_none() && is_within);
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let parts = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(
                    read(parts),
                    (whole.clone(), None, true),
                    "{first}, {second}"
                );
            }
        }
        let bytes = stream.chunks(1);
        assert_eq!(read(bytes), (whole, None, true));
    }

    #[test]
    fn nothing_is_kept_between_requests() {
        let mut reader = RequestReader::default();
        for part in [&b"GET /a HT"[..], b"TP/1.1\r\n\r\n", b"\r\n"] {
            reader.received(part).expect("a request in parts");
        }
        assert!(!reader.is_within());
        assert_eq!(reader.head.capacity(), 0);
        assert!(size_of::<RequestReader>() <= 32);
    }

    #[test]
    fn random_streams_are_read_or_refused_alike_in_any_split() {
        let alphabet: [&[u8]; 14] = [
            b"GET ",
            b"/",
            b"?",
            b" HTTP/1.1",
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\0",
            b"a",
            b": ",
            b"Content-Length: 3",
            b"Connection: close",
            b"\xff",
            b" ",
        ];
        let mut rng = Rng::new(91);
        for _ in 0..20_000 {
            let mut stream = Vec::new();
            for _ in 0..rng.below(20) {
                stream.extend_from_slice(alphabet[rng.below(14) as usize]);
            }
            let cut = rng.below(stream.len() as u32 + 1) as usize;
            let parts = [&stream[..cut], &stream[cut..]];
            let shown = stream.escape_ascii();
            assert_eq!(read(parts), read([&stream[..]]), "{shown} cut at {cut}");
        }
    }

    #[test]
    fn answers_are_as_the_request_wants_them() {
        let get = one(b"GET /a HTTP/1.1\r\n\r\n").unwrap();
        let head = one(b"HEAD /a HTTP/1.0\r\n\r\n").unwrap();
        #[rustfmt::skip]
        let cases = [
            (&get, 200, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\
                Connection: keep-alive\r\nContent-Length: 3\r\n\r\nabc"),
            (&head, 404, "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\n\
                Connection: close\r\nContent-Length: 3\r\n\r\n"),
            (&get, 503, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\n\
                Content-Type: text/plain\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"),
        ];
        for (request, status, expected) in cases {
            let answer = respond(request, status, "text/plain", b"abc");
            assert_eq!(String::from_utf8(answer.to_vec()).unwrap(), expected);
        }
    }
}
