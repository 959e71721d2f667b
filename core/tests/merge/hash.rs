//! A bucket kept as the text fields of a hash, merged as `CL.MERGE` merges.

use claw_core::bucket::Demand;
use claw_core::codec::{self, Besides, BlobError, Newer};
use claw_core::configured::Configured;
use claw_core::debits::Region;
use claw_core::decimal::Decimal;
use claw_core::merge::{Join, State};
use claw_core::open::OpenBucket;
use claw_core::policy::Policy;
use claw_core::record::{Field, Record};
use std::collections::BTreeMap;

const FIELDS: [Field; 5] =
    [Field::Tokens, Field::Timestamp, Field::Policy, Field::Weight, Field::Remainder];

/// The fields of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hash(BTreeMap<&'static str, String>);

impl Hash {
    /// `HSET key field value ..`
    pub fn new(fields: &[(&'static str, &str)]) -> Self {
        Self(fields.iter().map(|(name, text)| (*name, (*text).to_owned())).collect())
    }

    /// A key that `state` was written to.
    pub fn holding(state: &State) -> Self {
        let mut hash = Self::default();
        hash.write(
            &OpenBucket::merged(
                None,
                state,
                &Configured::new(Policy::DEFAULT).of(b"key"),
                false,
                0,
            )
            .to_record(),
        );
        hash
    }

    pub fn read(&self, now: u64) -> Record {
        let mut record = Record::default();
        for field in FIELDS {
            if let Some(text) = self.0.get(field.name()) {
                record.read(field, text.as_bytes(), now).unwrap();
            }
        }
        record
    }

    pub fn state(&self, defaults: &Configured, now: u64) -> State {
        self.read(now).state(&defaults.of(b"key"), now)
    }

    /// Writes what has to be written, as text.
    fn write(&mut self, record: &Record) {
        let texts = [
            (Field::Tokens, record.tokens.map(|micros| Decimal::signed(micros).to_string())),
            (Field::Timestamp, record.timestamp.map(|us| us.to_string())),
            (Field::Policy, record.policy.map(|stored| stored.to_string())),
            (Field::Weight, record.weight.map(|weight| weight.get().to_string())),
            (Field::Remainder, record.remainder.map(|remainder| remainder.to_string())),
        ];
        for (field, text) in texts {
            match text {
                Some(text) => self.0.insert(field.name(), text),
                None => self.0.remove(field.name()),
            };
        }
    }

    /// `CL.MERGE self FROM 1 source STRATEGY strategy` at `now`.
    pub fn merge(&mut self, source: &Self, strategy: Join, defaults: &Configured, now: u64) {
        let local = self.state(defaults, now);
        let merged = local.join(&source.state(defaults, now), strategy);
        self.write(
            &OpenBucket::merged(Some(self.read(now)), &merged, &defaults.of(b"key"), false, now)
                .to_record(),
        );
    }

    /// `self` after [`Self::merge`].
    pub fn merged(&self, source: &Self, strategy: Join, defaults: &Configured, now: u64) -> Self {
        let mut hash = self.clone();
        hash.merge(source, strategy, defaults, now);
        hash
    }

    /// `CL.TAKE self tokens` at `now`; whether they were there.
    pub fn take(&mut self, tokens: u64, defaults: &Configured, now: u64) -> bool {
        let mut opened = OpenBucket::new(Some(self.read(now)), &defaults.of(b"key"), now);
        let taken = opened.take(Demand::all(tokens), now, &Region::default()).unwrap().taken > 0;
        if taken || opened.terms_changed() {
            self.write(&opened.to_record());
        }
        taken
    }

    /// `CL.GIVE self tokens` at `now`, also when nothing goes back.
    pub fn give(&mut self, tokens: u64, defaults: &Configured, now: u64) {
        let mut opened = OpenBucket::new(Some(self.read(now)), &defaults.of(b"key"), now);
        opened.give(tokens, now, &Region::default()).unwrap();
        self.write(&opened.to_record());
    }
}

/// A state as a blob, with fields of later versions.
pub fn encode(state: &State, newer: &Newer) -> Result<Vec<u8>, BlobError> {
    codec::encode(state, &Besides { newer: newer.clone(), ..Besides::default() })
}

/// The record of a blob that counts no debits, and fields of later versions.
pub fn decode(blob: &[u8], now: u64) -> Result<(Record, Newer), BlobError> {
    codec::decode(blob, now).map(|decoded| (Record::from(&decoded), decoded.besides.newer))
}
