//! How much work a second strangers may cause.
