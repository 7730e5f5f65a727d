//! What nobody outside knows: the keys of connection ids and tables.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::digest::siphash;
use crate::base::id::PeerId;
use crate::base::rng::Rng;
use crate::base::time::Instant;

/// The key of everything here, made by the shell at start from the system's entropy.
#[derive(Clone)]
pub struct Secret([u8; 16]);

impl Secret {
    /// The key `random`, which is used for nothing else.
    pub fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// A generator whose numbers strangers cannot foresee by their own.
    pub(super) fn rng(&self) -> Rng {
        Rng::new(siphash(&self.0, b"rng"))
    }

    /// The number of a client: by its peer id, or by its address if it has none.
    pub(super) fn client(&self, peer_id: Option<PeerId>, addr: SocketAddr) -> u64 {
        let Some(peer_id) = peer_id else {
            let mut text = [0; 18];
            text[..16].copy_from_slice(&ip_bits(addr.ip()).to_be_bytes());
            text[16..].copy_from_slice(&addr.port().to_be_bytes());
            return siphash(&self.0, &text);
        };
        siphash(&self.0, &peer_id.0)
    }

    /// Where `ip` stands in a table of `len` places: nobody can aim at the place of another.
    pub(super) fn place(&self, ip: u128, len: usize) -> usize {
        let mut text = [0; 21];
        text[..5].copy_from_slice(b"place");
        text[5..].copy_from_slice(&ip.to_be_bytes());
        (siphash(&self.0, &text) % len as u64) as usize
    }

    /// The connection id (BEP 15) of `ip` at `now`: the same for all that it asks in a minute.
    ///
    /// No memory is kept of it. Its first byte is `0x?e`, which neither uTP (BEP 29) nor the DHT
    /// (BEP 5) has, so that a datagram's first byte tells what it is.
    pub fn connection_id(&self, ip: IpAddr, now: Instant) -> u64 {
        self.connection_id_of(ip, slot(now))
    }

    /// Whether `id` was given to `ip` in the last [`CONNECTION_ID_VALID_MIN`] to
    /// [`CONNECTION_ID_VALID_MAX`].
    pub fn is_connection_id(&self, id: u64, ip: IpAddr, now: Instant) -> bool {
        let slot = slot(now);
        id == self.connection_id_of(ip, slot)
            || (slot > 0 && id == self.connection_id_of(ip, slot - 1))
    }

    fn connection_id_of(&self, ip: IpAddr, slot: u64) -> u64 {
        let mut text = [0; 26];
        text[..2].copy_from_slice(b"id");
        text[2..18].copy_from_slice(&ip_bits(ip).to_be_bytes());
        text[18..].copy_from_slice(&slot.to_be_bytes());
        siphash(&self.0, &text) & !(0xf << 56) | 0xe << 56
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// An address as one number: IPv4 as it is mapped into IPv6.
pub(super) fn ip_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn slot(now: Instant) -> u64 {
    now.as_micros() / CONNECTION_ID_VALID_MIN.as_micros() as u64
}

/// For how long a connection id is good in any case (BEP 15: a client uses it for a minute).
pub const CONNECTION_ID_VALID_MIN: Duration = Duration::from_secs(60);
/// When a connection id is good no more in any case (BEP 15: two minutes).
pub const CONNECTION_ID_VALID_MAX: Duration = Duration::from_secs(120);

const _: () = assert!(CONNECTION_ID_VALID_MAX.as_secs() == 2 * CONNECTION_ID_VALID_MIN.as_secs());

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    /// Row 95 of the hostile inputs: forged, expired, another's, from the future.
    #[test]
    fn connection_id_is_good_for_its_address_and_time_only() {
        let secret = Secret::new([7; 16]);
        let [ip, other]: [IpAddr; 2] = ["10.0.0.2", "10.0.0.3"].map(|ip| ip.parse().unwrap());
        for issued in [0, 1, 59, 60, 61, 119, 100_000] {
            let id = secret.connection_id(ip, at(issued));
            assert!(secret.is_connection_id(id, ip, at(issued)), "{issued}");
            assert!(secret.is_connection_id(id, ip, at(issued + 60)), "{issued}");
            for late in [120, 121, 180, 3600] {
                assert!(
                    !secret.is_connection_id(id, ip, at(issued + late)),
                    "{issued}"
                );
            }
            assert!(!secret.is_connection_id(id, other, at(issued)), "{issued}");
            assert!(!secret.is_connection_id(id ^ 1, ip, at(issued)), "{issued}");
            let future = secret.connection_id(ip, at(issued + 60));
            assert!(!secret.is_connection_id(future, ip, at(issued)), "{issued}");
            let forged = Secret::new([8; 16]).connection_id(ip, at(issued));
            assert!(!secret.is_connection_id(forged, ip, at(issued)), "{issued}");
        }
        assert!(!secret.is_connection_id(0, ip, at(0)));
    }

    #[test]
    fn mapped_address_is_the_address_that_it_maps() {
        let secret = Secret::new([7; 16]);
        let id = secret.connection_id("10.0.0.2".parse().unwrap(), at(5));
        let mapped = "::ffff:10.0.0.2".parse().unwrap();
        assert!(secret.is_connection_id(id, mapped, at(5)));
    }

    #[test]
    fn first_byte_of_a_connection_id_is_neither_utps_nor_the_dhts() {
        let secret = Secret::new([9; 16]);
        for last in 0..=255 {
            let id = secret.connection_id(IpAddr::from([10, 0, 0, last]), at(0));
            let [first, ..] = id.to_be_bytes();
            assert!(first & 0xf == 0xe && first != b'd');
        }
    }

    #[test]
    fn secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new([0xab; 16])), "Secret(***)");
    }
}
