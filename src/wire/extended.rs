//! The extension handshake (BEP 10, message id 20, extended id 0) and the `upload_only` message.

use std::net::IpAddr;

use crate::base::limits::{CLIENT_NAME_LEN_MAX, METADATA_LEN_MAX, REQUESTS_OUT_MAX};
use crate::base::text::printable;

use super::bencode::{Encoder, Limits, Value};
use super::decoder::WireError;

/// What a peer tells about itself, once or again at any time; absent fields change nothing.
///
/// Fields that make no sense are absent too: a peer is not closed for its boasts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtHandshake {
    /// Which extended messages the sender wants, and under which ids.
    pub m: Ids,
    /// The client's name and version, safe to print.
    pub v: Option<String>,
    /// The TCP port on which the sender accepts peers, not 0.
    pub p: Option<u16>,
    /// Requests that the sender queues, 1 to [`REQUESTS_OUT_MAX`] when decoded.
    pub reqq: Option<u32>,
    /// The receiver's address as the sender sees it.
    pub yourip: Option<IpAddr>,
    /// Whether the sender wants no data (BEP 21).
    pub upload_only: Option<bool>,
    /// Bytes of the info dictionary (BEP 9), 1 to [`METADATA_LEN_MAX`] when decoded.
    ///
    /// A claim: memory is for what was received, not for what was announced.
    pub metadata_size: Option<u32>,
}

/// The ids under which a sender wants the extended messages that we know, by their names.
///
/// `None` leaves as it was what an earlier handshake said, 0 ends it (BEP 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Peer exchange (BEP 11).
    pub ut_pex: Option<u8>,
    /// The info dictionary in pieces (BEP 9).
    pub ut_metadata: Option<u8>,
    /// Whether the sender wants no data: one byte, 0 or 1 (BEP 21 as libtorrent sends it).
    pub upload_only: Option<u8>,
    /// A piece is gone (BEP 54).
    pub lt_donthave: Option<u8>,
    /// News of peers between evpeers, see [`ev_peers`](super::ev_peers).
    pub ev_peers: Option<u8>,
}

impl ExtHandshake {
    /// Reads the body of an extended message with id 0.
    ///
    /// # Errors
    /// If the body is no bencoded dictionary, or one nested too deep.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let dict = Value::decode(body, Limits::WIRE)?;
        let entries = dict.as_dict().ok_or(WireError::NotADictionary)?;
        let mut told = Self::default();
        for (key, value) in entries {
            match key {
                b"m" => told.m = Ids::from_dict(value),
                b"v" => told.v = value.as_bytes().and_then(client_name),
                b"p" => told.p = value.as_int().and_then(listen_port),
                b"reqq" => told.reqq = value.as_int().map(queue_len),
                b"yourip" => told.yourip = value.as_bytes().and_then(address),
                b"upload_only" => told.upload_only = value.as_int().map(|flag| flag != 0),
                b"metadata_size" => told.metadata_size = value.as_int().and_then(metadata_len),
                _ => {}
            }
        }
        Ok(told)
    }

    /// The body of an extended message with id 0. `m` is always there: rqbit demands it.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.dict_begin();
        self.m.encode(encoder.key(b"m"));
        let number = |encoder: &mut Encoder, key: &[u8], value: Option<u32>| {
            if let Some(value) = value {
                encoder.key(key).int(value.into());
            }
        };
        number(&mut encoder, b"metadata_size", self.metadata_size);
        number(&mut encoder, b"p", self.p.map(u32::from));
        number(&mut encoder, b"reqq", self.reqq);
        number(
            &mut encoder,
            b"upload_only",
            self.upload_only.map(u32::from),
        );
        if let Some(name) = &self.v {
            encoder.key(b"v").bytes(name.as_bytes());
        }
        match self.yourip {
            Some(IpAddr::V4(ip)) => encoder.key(b"yourip").bytes(&ip.octets()),
            Some(IpAddr::V6(ip)) => encoder.key(b"yourip").bytes(&ip.octets()),
            None => &mut encoder,
        };
        encoder.end();
        encoder.finish()
    }
}

impl Ids {
    /// Reads the dictionary `m`; ids that fit no byte are left out, as all of what is none.
    fn from_dict(m: Value<'_>) -> Self {
        let mut ids = Self::default();
        for (name, id) in m.entries() {
            let id = id.as_int().and_then(|id| u8::try_from(id).ok());
            match name {
                b"ut_pex" => ids.ut_pex = id,
                b"ut_metadata" => ids.ut_metadata = id,
                b"upload_only" => ids.upload_only = id,
                b"lt_donthave" => ids.lt_donthave = id,
                b"ev_peers" => ids.ev_peers = id,
                _ => {}
            }
        }
        ids
    }

    fn encode(&self, encoder: &mut Encoder) {
        let ids: [(&[u8], Option<u8>); 5] = [
            (b"ev_peers", self.ev_peers),
            (b"lt_donthave", self.lt_donthave),
            (b"upload_only", self.upload_only),
            (b"ut_metadata", self.ut_metadata),
            (b"ut_pex", self.ut_pex),
        ];
        encoder.dict_begin();
        for (name, id) in ids {
            if let Some(id) = id {
                encoder.key(name).int(id.into());
            }
        }
        encoder.end();
    }
}

/// Reads the body of an `upload_only` message; anything but one byte says nothing.
pub fn decode_upload_only(body: &[u8]) -> Option<bool> {
    match body {
        [flag] => Some(*flag != 0),
        _ => None,
    }
}

fn client_name(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| printable(bytes, CLIENT_NAME_LEN_MAX))
}

fn listen_port(port: i64) -> Option<u16> {
    u16::try_from(port).ok().filter(|&port| port != 0)
}

fn queue_len(reqq: i64) -> u32 {
    reqq.clamp(1, REQUESTS_OUT_MAX.into()) as u32
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).ok()
}

fn metadata_len(len: i64) -> Option<u32> {
    let len = u32::try_from(len).ok();
    len.filter(|len| (1..=METADATA_LEN_MAX).contains(len))
}

/// The id under which we want `ut_pex` (BEP 11).
pub const PEX_ID: u8 = 1;
/// The id under which we want `upload_only`. (2 is kept for ut_metadata.)
pub const UPLOAD_ONLY_ID: u8 = 3;
/// The id under which we want `ev_peers`.
pub const EV_PEERS_ID: u8 = 4;

/// The extended messages that we read.
pub const OURS: Ids = Ids {
    ut_pex: Some(PEX_ID),
    ut_metadata: None,
    upload_only: Some(UPLOAD_ONLY_ID),
    lt_donthave: None,
    ev_peers: Some(EV_PEERS_ID),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::wire::bencode::BencodeError;

    /// The example of BEP 10 (whose first length counts characters; here bytes), and one laid
    /// out as libtorrent sends it.
    #[test]
    fn handshakes_of_other_clients_are_read() {
        let bep_10 = b"d1:md11:LT_metadatai1e7:\xc2\xb5T_PEXi2ee1:pi6881e\
            1:v13:\xc2\xb5Torrent 1.2e";
        let expected = ExtHandshake {
            v: Some("µTorrent 1.2".to_owned()),
            p: Some(6881),
            ..ExtHandshake::default()
        };
        assert_eq!(ExtHandshake::decode(bep_10), Ok(expected));

        let libtorrent = b"d12:complete_agoi-1e1:ei0e4:ipv416:0123456789abcdef\
            1:md11:lt_donthavei7e10:share_modei8e11:upload_onlyi3e12:ut_holepunchi4e\
            11:ut_metadatai2e6:ut_pexi1ee13:metadata_sizei31235e4:reqqi2000e\
            11:upload_onlyi1e1:v17:libtorrent/2.0.116:yourip4:\x7f\0\0\x01e";
        let expected = ExtHandshake {
            m: Ids {
                ut_pex: Some(1),
                ut_metadata: Some(2),
                upload_only: Some(3),
                lt_donthave: Some(7),
                ev_peers: None,
            },
            v: Some("libtorrent/2.0.11".to_owned()),
            p: None,
            reqq: Some(2000),
            yourip: Some([127, 0, 0, 1].into()),
            upload_only: Some(true),
            metadata_size: Some(31235),
        };
        assert_eq!(ExtHandshake::decode(libtorrent), Ok(expected));
    }

    #[test]
    fn ours_is_laid_out_as_in_bep_10() {
        let ours = ExtHandshake {
            m: OURS,
            v: Some("evpeer 0.1.0".to_owned()),
            p: Some(6881),
            reqq: Some(2000),
            yourip: Some([10, 0, 0, 5].into()),
            upload_only: Some(true),
            metadata_size: Some(100),
        };
        let expected =
            b"d1:md8:ev_peersi4e11:upload_onlyi3e6:ut_pexi1ee13:metadata_sizei100e1:pi6881e\
            4:reqqi2000e11:upload_onlyi1e1:v12:evpeer 0.1.06:yourip4:\x0a\0\0\x05e";
        assert_eq!(
            ours.encode().escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
        assert_eq!(ExtHandshake::decode(&ours.encode()), Ok(ours));
        assert_eq!(ExtHandshake::default().encode(), b"d1:mdee");
    }

    /// Rows 66, 68 and 69 of the hostile inputs.
    #[test]
    fn absurd_values_are_ignored_or_clamped() {
        let told = ExtHandshake::default;
        let upload_only = |id| ExtHandshake {
            m: Ids {
                upload_only: id,
                ..Ids::default()
            },
            ..told()
        };
        let cases: [(&[u8], ExtHandshake); 24] = [
            (b"de", told()),
            (b"d1:mi1ee", told()),
            (b"d1:mle1:vle1:p1:xe", told()),
            (b"d1:md11:upload_onlyi255eee", upload_only(Some(255))),
            (b"d1:md11:upload_onlyi0eee", upload_only(Some(0))),
            (b"d1:md11:upload_onlyi256eee", upload_only(None)),
            (b"d1:md11:upload_onlyi-1eee", upload_only(None)),
            (b"d1:md11:upload_only1:3ee", upload_only(None)),
            (
                b"d4:reqqi0ee",
                ExtHandshake {
                    reqq: Some(1),
                    ..told()
                },
            ),
            (
                b"d4:reqqi-1ee",
                ExtHandshake {
                    reqq: Some(1),
                    ..told()
                },
            ),
            (
                b"d4:reqqi2001ee",
                ExtHandshake {
                    reqq: Some(2000),
                    ..told()
                },
            ),
            (
                b"d4:reqqi9223372036854775807ee",
                ExtHandshake {
                    reqq: Some(2000),
                    ..told()
                },
            ),
            (b"d1:pi0ee", told()),
            (b"d1:pi70000ee", told()),
            (b"d1:pi-1ee", told()),
            (
                b"d1:pi65535ee",
                ExtHandshake {
                    p: Some(65535),
                    ..told()
                },
            ),
            (b"d6:yourip5:12345e", told()),
            (b"d6:yourip0:e", told()),
            (b"d13:metadata_sizei0ee", told()),
            (b"d13:metadata_sizei-1ee", told()),
            (b"d13:metadata_sizei1099511627776ee", told()),
            (b"d13:metadata_sizei33554433ee", told()),
            (
                b"d11:upload_onlyi0ee",
                ExtHandshake {
                    upload_only: Some(false),
                    ..told()
                },
            ),
            (
                b"d1:v2:\x1b\ne",
                ExtHandshake {
                    v: Some("\\u{1b}\\u{a}".to_owned()),
                    ..told()
                },
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(
                ExtHandshake::decode(body),
                Ok(expected),
                "{}",
                body.escape_ascii()
            );
        }
    }

    #[test]
    fn ten_thousand_ids_are_read_and_depth_is_limited() {
        let mut body = b"d1:md".to_vec();
        for i in 0..10_000 {
            body.extend(format!("5:{i:05}i{}e", i % 300).bytes());
        }
        body.extend(b"6:ut_pexi9eee");
        let told = ExtHandshake::decode(&body).expect("odd, not broken");
        assert_eq!(told.m.ut_pex, Some(9));

        let bomb = [&[b'l'; 20_000][..], &[b'e'; 20_000]].concat();
        let error = ExtHandshake::decode(&bomb);
        assert!(matches!(
            error,
            Err(WireError::Bencode(BencodeError::TooDeep { .. }))
        ));
        assert_eq!(ExtHandshake::decode(b"le"), Err(WireError::NotADictionary));
    }

    #[test]
    fn broken_and_random_bodies_are_refused_without_panic() {
        let whole = ExtHandshake {
            m: OURS,
            v: Some("evpeer".to_owned()),
            ..ExtHandshake::default()
        };
        let whole = whole.encode();
        for len in 0..whole.len() {
            assert!(ExtHandshake::decode(&whole[..len]).is_err(), "{len} B");
        }
        let mut rng = Rng::new(10);
        for _ in 0..20_000 {
            let mut body = whole.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(body.len() as u32) as usize;
                body[at] = rng.next_u64() as u8;
            }
            if let Ok(told) = ExtHandshake::decode(&body) {
                assert_eq!(ExtHandshake::decode(&told.encode()), Ok(told));
            }
        }
    }

    #[test]
    fn upload_only_message_is_one_byte() {
        let cases: [(&[u8], Option<bool>); 4] = [
            (b"\0", Some(false)),
            (b"\x01", Some(true)),
            (b"", None),
            (b"\x01\0", None),
        ];
        for (body, expected) in cases {
            assert_eq!(decode_upload_only(body), expected);
        }
    }
}
