//! Finding peers: addresses that might be dialled, from wherever they come.

use crate::meta::metainfo::Metainfo;

pub mod candidates;
pub mod gate;
pub mod lsd;
pub mod overlay;
pub mod pex;

/// Whether peers of a torrent may be found by other roads than its trackers (BEP 27).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// Every road is open.
    Public,
    /// Its trackers and its user name its peers, and nobody else.
    Private,
}

impl Privacy {
    /// What the torrent says about itself.
    pub fn of(meta: &Metainfo) -> Self {
        match meta.private {
            true => Self::Private,
            false => Self::Public,
        }
    }
}
