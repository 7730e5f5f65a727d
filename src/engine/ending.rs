//! How streams end.

/// How a stream ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending<'a> {
    /// The socket failed.
    Failed(&'a str),
    /// The other side closed it.
    Remote(&'a str),
    /// We close it, and may connect again.
    Local(&'a str),
    /// Neither side needs it.
    Redundant(&'a str),
    /// The other side broke the rules: the address is not dialled again.
    Fault(&'a str),
}

impl Ending<'_> {
    pub fn text(&self) -> &str {
        match self {
            Self::Failed(text)
            | Self::Remote(text)
            | Self::Local(text)
            | Self::Redundant(text)
            | Self::Fault(text) => text,
        }
    }
}
