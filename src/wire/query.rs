//! Parameters of announces and scrapes.
