//! HTTP requests as they come to a tracker, and the answers (RFC 9112).
//!
//! Slices of any size go in, whole heads come out. Clients are strangers: what is too long or has
//! two readings is refused, and an idle connection keeps no buffer.

use bytes::Bytes;

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// Whether the stream stays open after the answer.
    pub keep_alive: bool,
    target: Box<str>,
    path_len: usize,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The thing itself.
    Get,
    /// What its head would be.
    Head,
    /// Anything else.
    Other,
}

/// Why a stream brings no request that we take. It is answered with [`RequestError::respond`] and
/// closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not HTTP, or HTTP that is broken.
    #[error("the request is not HTTP/1.x")]
    NotHttp,
}

/// Takes the bytes of a stream of requests, in parts of any size.
#[derive(Debug, Default)]
pub struct RequestReader {
    /// The head while it is incomplete; empty and without memory between requests.
    head: Vec<u8>,
    /// Bytes of a body that are still to be passed over.
    body_left: usize,
}

impl RequestReader {
    /// Takes bytes from the front of `bytes`, at most up to the end of one head; returns how many
    /// were used, and the request once its head is whole. To be called again with the rest: a
    /// client may send several requests at once, which are answered in order.
    ///
    /// # Errors
    /// If this cannot become a request that we take. The reader is of no use after that.
    pub fn received(&mut self, bytes: &[u8]) -> Result<(usize, Option<Request>), RequestError> {
        let _ = (bytes, &self.head, self.body_left);
        todo!()
    }

    /// Whether a request has begun and is not whole; such a one has to end in time.
    pub fn is_within(&self) -> bool {
        todo!()
    }
}

impl Request {
    /// The path, as it was sent: not decoded.
    pub fn path(&self) -> &str {
        &self.target[..self.path_len]
    }

    /// The query, as it was sent; empty if there is none.
    pub fn query(&self) -> &str {
        ""
    }
}

impl RequestError {
    /// The answer, after which the stream is to be closed.
    pub fn respond(self) -> Bytes {
        todo!()
    }
}

/// An answer of ours to `request`: head, and body unless it was asked for the head alone.
pub fn respond(request: &Request, status: u16, content_type: &str, body: &[u8]) -> Bytes {
    let _ = (request, status, content_type, body);
    todo!()
}
