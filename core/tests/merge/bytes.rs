//! Any bytes at all are safe to read: an error or a state, and little memory.

use crate::any::{self, Family, NOW};
use crate::hash::{decode, encode};
use crate::memory;
use claw_core::codec::{self, BlobError, MAX_BLOB, Newer, RegionStates};
use claw_core::configured::Configured;
use claw_core::merge::State;
use claw_core::policy::Policy;
use claw_core::replica::ReplicaId;
use proptest::prelude::*;
use rmpv::Value;

/// The most that reading may hold: some hundreds of bytes for each byte read, never
/// what a byte merely claims.
fn allowance(blob: &[u8]) -> usize {
    65_536 + 300 * blob.len()
}

/// Reads `blob` as a state and as fields kept in a hash, and looks at the result.
fn read(blob: &[u8]) -> Result<(), TestCaseError> {
    let decoded = decode(blob, NOW);
    if let Some(newer) = codec::decode_newer(blob) {
        let bytes = codec::encode_newer(&newer).unwrap();
        let again = codec::decode_newer(&bytes).map(|again| codec::encode_newer(&again).unwrap());
        prop_assert_eq!(again, Some(bytes).filter(|bytes| bytes.len() <= MAX_BLOB));
    }
    let Ok((record, newer)) = decoded else {
        return Ok(());
    };
    let defaults = Configured::new(Policy::DEFAULT);
    let state = record.state(&defaults.of(b"key"), NOW);
    prop_assert!(state.bucket.tokens() <= state.bucket.policy().capacity_micros());
    prop_assert!(state.bucket.timestamp() <= NOW + 30 * 86_400_000_000);
    // What was read can be written, and says the same.
    let blob = encode(&state, &newer).unwrap();
    if blob.len() <= MAX_BLOB {
        let (record, again) = decode(&blob, NOW).unwrap();
        prop_assert_eq!(record.state(&defaults.of(b"key"), NOW), state);
        prop_assert_eq!(codec::encode_newer(&again).unwrap(), codec::encode_newer(&newer).unwrap());
    }
    Ok(())
}

proptest! {
    #![proptest_config(any::cases(500))]

    /// What regions have of a bucket is kept whatever the default policy is.
    #[test]
    fn regions_are_read_as_they_were_written(family in any::family::<3>()) {
        let names = ('a'..='c').map(|name| ReplicaId::new(name.to_string().as_bytes()).unwrap());
        let now = |state: &State| State::of(state.bucket, state.policy);
        let regions: RegionStates = names.zip(family.states.iter().map(now)).collect();
        let bytes = codec::encode_regions(&regions).unwrap();
        prop_assert_eq!(codec::decode_regions(&bytes), Some(regions));
    }
}

/// One change to a blob.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Set(u16, u8),
    Flip(u16, u8),
    Remove(u16),
    Insert(u16, u8),
    Cut(u16),
    Repeat(u16, u16),
}

impl Damage {
    fn apply(self, bytes: &mut Vec<u8>) {
        let place = |at: u16, length: usize| usize::from(at) % length.max(1);
        let length = bytes.len();
        match self {
            Self::Set(at, byte) if length > 0 => bytes[place(at, length)] = byte,
            Self::Flip(at, bit) if length > 0 => bytes[place(at, length)] ^= 1 << (bit % 8),
            Self::Remove(at) if length > 0 => drop(bytes.remove(place(at, length))),
            Self::Insert(at, byte) => bytes.insert(place(at, length + 1), byte),
            Self::Cut(at) => bytes.truncate(place(at, length + 1)),
            Self::Repeat(from, to) => {
                let (from, to) = (place(from, length + 1), place(to, length + 1));
                bytes.extend_from_within(from.min(to)..from.max(to));
            }
            _ => {}
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        3 => any::<(u16, u8)>().prop_map(|(at, byte)| Damage::Set(at, byte)),
        3 => any::<(u16, u8)>().prop_map(|(at, bit)| Damage::Flip(at, bit)),
        1 => any::<u16>().prop_map(Damage::Remove),
        1 => any::<(u16, u8)>().prop_map(|(at, byte)| Damage::Insert(at, byte)),
        1 => any::<u16>().prop_map(Damage::Cut),
        1 => any::<(u16, u16)>().prop_map(|(from, to)| Damage::Repeat(from, to)),
    ]
}

/// Bytes that mean something in MessagePack more often than not.
fn markers() -> impl Strategy<Value = u8> {
    prop_oneof![
        any::<u8>(),
        0xc0..=0xdf_u8,
        0x80..=0x9f_u8,
        Just(0xa1),
        prop::sample::select(b"vtokensweightpolicy".to_vec()),
    ]
}

proptest! {
    #![proptest_config(any::cases(2_000))]

    #[test]
    fn random_bytes(blob in prop::collection::vec(any::<u8>(), 0..100)) {
        read(&blob)?;
    }

    #[test]
    fn random_markers(blob in prop::collection::vec(markers(), 0..150)) {
        read(&blob)?;
    }

    #[test]
    fn damaged_states(
        Family { states: [state], .. } in any::family::<1>(),
        damage in prop::collection::vec(damage(), 1..4),
    ) {
        let newer = Newer::from([
            ("shards".to_owned(), Value::Map(vec![("eu".into(), Value::Array(vec![1.into()]))])),
            ("seen".to_owned(), Value::Binary(vec![1, 2])),
        ]);
        let mut blob = encode(&state, &newer).unwrap();
        damage.iter().for_each(|damage| damage.apply(&mut blob));
        read(&blob)?;
    }
}

/// The fields of a state, and then one of a later version, `x`, whose value begins
/// with these bytes.
fn then(value: &[u8]) -> Vec<u8> {
    [&b"\x84\xa1v\x01\xa6tokens\x05\xa9timestamp\x05\xa1x"[..], value].concat()
}

#[test]
fn the_frame_is_a_state() {
    assert!(decode(&then(&[0x05]), NOW).is_ok());
}

/// A few bytes that claim thousands of millions of values, or as many bytes.
#[test]
fn claims() {
    let table: [(&str, &[u8]); 12] = [
        ("array32", b"\xdd\xff\xff\xff\xff"),
        ("array16", b"\xdc\xff\xff"),
        ("map32", b"\xdf\xff\xff\xff\xff"),
        ("map16", b"\xde\xff\xff"),
        ("str32", b"\xdb\xff\xff\xff\xff"),
        ("str16", b"\xda\xff\xff"),
        ("bin32", b"\xc6\xff\xff\xff\xff"),
        ("bin16", b"\xc5\xff\xff"),
        ("ext32", b"\xc9\xff\xff\xff\xff\x01"),
        ("ext16", b"\xc8\xff\xff\x01"),
        ("array32 of a few", b"\xdd\xff\xff\xff\xff\x01\x02\x03"),
        ("map32 of a few", b"\xdf\xff\xff\xff\xff\xa1a\x02\xa1b\x03"),
    ];
    for (what, claim) in table {
        // As the state, as a value in it, as the policy, nested in one another.
        let nested = [b"\xdd\xff\xff\xff\xff".repeat(10), claim.to_vec()].concat();
        let maps = [b"\xdf\xff\xff\xff\xff\xa1a".repeat(10), claim.to_vec()].concat();
        let policy =
            [&b"\x84\xa1v\x01\xa6tokens\x05\xa9timestamp\x05\xa6policy"[..], claim].concat();
        let blobs = [claim.to_vec(), then(claim), then(&nested), then(&maps), nested, maps, policy];
        for blob in blobs {
            let (read, held) = memory::peak(|| decode(&blob, NOW).map(drop));
            assert_eq!(read, Err(BlobError::Malformed), "{what}");
            assert!(held <= allowance(&blob), "{what}: {held} bytes held for {}", blob.len());
            let (kept, held) = memory::peak(|| codec::decode_newer(&blob));
            assert_eq!(kept, None, "{what}");
            assert!(held <= allowance(&blob), "{what}: {held} bytes held for {}", blob.len());
        }
    }
}

/// Nesting is malformed long before it is deep.
#[test]
fn nesting() {
    let arrays = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
    let maps = |depth: usize| [b"\x81\xa1a".repeat(depth), vec![0xc0]].concat();
    for nested in [arrays, maps] {
        let deepest = (0..MAX_BLOB / 4)
            .filter(|depth| decode(&then(&nested(*depth)), NOW).is_ok())
            .max()
            .unwrap();
        assert!((5..100).contains(&deepest), "{deepest}");
        // All up to there, so that what was read before can be read again.
        for depth in 0..=deepest {
            let (_, newer) = decode(&then(&nested(depth)), NOW).unwrap();
            let kept = codec::encode_newer(&newer).unwrap();
            assert_eq!(codec::decode_newer(&kept), Some(newer), "{depth} deep, in the hash");
        }
        // Whatever the hash holds.
        let many = [&b"\x81\xa1x"[..], &nested(1_000)].concat();
        assert_eq!(codec::decode_newer(&many), None);
    }
}

/// The longest blobs, of what takes the most room in memory for a byte.
#[test]
fn the_longest() {
    let fill = |unit: &[u8], count: usize| unit.repeat(count);
    let values: [Vec<u8>; 4] = [
        [&b"\xdc\x0f\x80"[..], &fill(b"\x90", 0x0f80)].concat(),
        [&b"\xdc\x0f\x80"[..], &fill(b"\xc0", 0x0f80)].concat(),
        [&b"\xde\x07\xc0"[..], &fill(b"\xc0\xc0", 0x07c0)].concat(),
        [&b"\xdc\x07\xc0"[..], &fill(b"\x91\xc0", 0x07c0)].concat(),
    ];
    for value in values {
        let blob = then(&value);
        assert!(blob.len() <= MAX_BLOB, "{}", blob.len());
        let (read, held) = memory::peak(|| decode(&blob, NOW));
        let (_, newer) = read.unwrap();
        assert!(held <= allowance(&blob), "{held} bytes held for {}", blob.len());
        let kept = codec::encode_newer(&newer).unwrap();
        let (again, held) = memory::peak(|| codec::decode_newer(&kept));
        assert_eq!(again, Some(newer));
        assert!(held <= allowance(&blob), "{held} bytes held for {}", kept.len());
    }
}
