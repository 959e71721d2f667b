//! Any bytes in the field `debits` are an error or a bucket that regions share: it
//! can be taken from, merged and written, and is read as it was written.

#![no_main]

use claw_core::bucket::Demand;
use claw_core::codec::{DebitsText, encode_debits};
use claw_core::debits::Region;
use claw_core::shared::Remote;
use claw_core::configured::Configured;
use claw_core::membership::{PartitionPolicy, Instants, Membership};
use claw_core::policy::Policy;
use claw_core::open::OpenBucket;
use claw_core::record::{Field, Record};
use claw_core::replica::Writer;
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_773_914_400_000_000;

fuzz_target!(|input: &[u8]| {
    // The first byte says what the bucket holds and where the second field begins.
    let Some((first, fields)) = input.split_first() else { return };
    let (here, there) = fields.split_at((usize::from(*first) * 4).min(fields.len()));
    let defaults = Configured::new(Policy::DEFAULT);
    let region = Region {
        writer: Some(Writer::new("here".parse().expect("a name"), 7)),
        peers: Membership::new(PartitionPolicy::Share, 3, 2_000_000, Instants::default()),
    };
    let open = |debits: &[u8], tokens: i64| {
        let mut record = Record { timestamp: Some(NOW), ..Record::default() };
        record.tokens = Some(tokens);
        record.read(Field::Debits, debits, NOW).ok()?;
        Some(OpenBucket::shared(Some(record), &defaults.of(b"key"), &region, NOW, None))
    };
    // In debt, empty, or not.
    let held = |number: u8| (i64::from(number) - 2) * 1_000_000;
    let Some(mut here) = open(here, held(first % 6)) else { return };
    if let Some(there) = open(there, held(first / 6 % 4)) {
        let bucket = there.as_shared().expect("it is shared").clone();
        let remote = Remote { from: Some("there".parse().expect("a name")), bucket, stored: None, temporary: None };
        // A refusal leaves it as it was.
        let _ = here.receive(&remote, &region);
    }
    if here.can_count(&region) {
        let demand = Demand { tokens: 1, partial: true, keep: u64::from(first % 3) };
        here.take(demand, NOW, &region).expect("there is room");
        here.settle(1, u64::from(first % 8), NOW, &region).expect("there is room");
    }
    let shared = here.as_shared().expect("it is shared");
    assert!(shared.level() >= 0);
    let bucket = here.bucket();
    assert!(bucket.tokens() <= bucket.policy().capacity_micros());
    let mut written = DebitsText::default();
    encode_debits(shared, &mut written);
    let written = written.as_bytes().expect("there is room for it");
    let again = open(written, bucket.tokens()).expect("what is written is read");
    assert_eq!(again.as_shared(), Some(shared));
});
