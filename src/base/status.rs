//! How disk and loop are, as plain values that the core may be told.

/// What storage says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStatus {
    /// Payload that waits for its pages, bytes.
    pub waiting_bytes: u64,
    /// Payload stored but not hashed yet, bytes.
    pub hash_backlog_bytes: u64,
}
