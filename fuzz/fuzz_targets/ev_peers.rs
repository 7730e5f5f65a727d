//! An `ev_peers` body: what can be read is written to a body that reads the same.
#![no_main]

use evpeer::wire::ev_peers::{
    Digest, EntriesWriter, EvPeersError, Message, Records, Roots, Swarms, Want, is_hello,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(first) = again(body) else { return };
    assert!(first.len() <= body.len(), "it grew");
    assert_eq!(again(&first).as_ref(), Ok(&first));
});

fn again(body: &[u8]) -> Result<Vec<u8>, EvPeersError> {
    let message = Message::decode(body)?;
    assert_eq!(is_hello(body), matches!(message, Message::Hello(_)));
    let body = match message {
        Message::Hello(hello) => hello.encode().to_vec(),
        Message::Swarms(swarms) => {
            let items = swarms.iter().collect::<Result<Vec<_>, _>>()?;
            Swarms::encode(swarms.epoch, items).to_vec()
        }
        Message::Entries(entries) => {
            let records = entries.records();
            write(EntriesWriter::entries(entries.why, records.newest()), records)?
        }
        Message::Roots(roots) => Roots::encode(roots.iter()).to_vec(),
        Message::Digest(digest) => {
            let sums: Vec<u64> = digest.sums().collect();
            assert_eq!(sums.len(), 1 << digest.bits);
            Digest::encode(digest.handle, &sums).to_vec()
        }
        Message::Want(want) => {
            let wanted: Vec<bool> = (0..1 << want.bits).map(|i| want.has(i)).collect();
            assert!(!want.has(8 * body.len()), "a bucket beyond the body");
            Want::encode(want.handle, &wanted, want.more).to_vec()
        }
        Message::Bye(bye) => {
            let records = bye.records();
            write(EntriesWriter::bye(bye.reason, records.newest()), records)?
        }
    };
    Ok(body)
}

fn write(mut writer: EntriesWriter, records: Records<'_>) -> Result<Vec<u8>, EvPeersError> {
    for record in records {
        let (handle, entry) = record?;
        writer.push(handle, &entry);
    }
    Ok(writer.finish().to_vec())
}
