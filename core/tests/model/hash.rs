//! A bucket kept as the text fields of a hash: what the module does around the
//! crate, without a server.

use crate::exact::{Options, Q, Reply, Terms, Want, all, q};
use claw_core::bucket::{Answer, Bucket, Demand, Weight};
use claw_core::configured::Configured;
use claw_core::debits::Region;
use claw_core::decimal::Decimal;
use claw_core::expiry::Expiry;
use claw_core::open::OpenBucket;
use claw_core::policy::{Asked, Policy};
use claw_core::record::{Field, FieldError, Record};
use std::collections::BTreeMap;

const FIELDS: [Field; 5] =
    [Field::Tokens, Field::Timestamp, Field::Policy, Field::Weight, Field::Remainder];

/// The name of the key.
pub const KEY: &[u8] = b"api:key";

/// The fields of one key.
pub type Fields = BTreeMap<&'static str, String>;

/// One key, and the configuration.
#[derive(Debug, Clone)]
pub struct Server {
    pub defaults: Configured,
    /// `None` for a missing key.
    pub key: Option<Fields>,
}

impl Server {
    pub fn new(default: Terms) -> Self {
        Self { defaults: Configured::new(policy(default)), key: None }
    }

    /// A server with a key that has these fields.
    pub fn with(default: Terms, fields: &[(&'static str, String)]) -> Self {
        Self { key: Some(fields.iter().cloned().collect()), ..Self::new(default) }
    }

    pub fn load(&self, now: u64) -> Result<Option<Record>, FieldError> {
        let Some(fields) = &self.key else {
            return Ok(None);
        };
        let mut record = Record::default();
        for field in FIELDS {
            if let Some(text) = fields.get(field.name()) {
                record.read(field, text.as_bytes(), now)?;
            }
        }
        record.foreign = fields.keys().any(|name| FIELDS.iter().all(|own| own.name() != *name));
        Ok(Some(record))
    }

    /// The bucket as a call finds it.
    pub fn open(&self, now: u64) -> Result<OpenBucket, FieldError> {
        Ok(OpenBucket::new(self.load(now)?, &self.defaults.of(KEY), now))
    }

    /// The bucket as a call with these options finds it.
    pub fn ask(&self, options: Options, now: u64) -> Result<OpenBucket, FieldError> {
        let mut opened = self.open(now)?;
        let asked = Asked { capacity: options.capacity, refill: options.refill };
        opened.ask(asked.whole().expect("options are whole and within their bounds"));
        Ok(opened)
    }

    /// Writes what has to be written, as text.
    pub fn save(&mut self, opened: &OpenBucket) {
        let record = opened.to_record();
        let texts = [
            (Field::Tokens, record.tokens.map(|micros| Decimal::signed(micros).to_string())),
            (Field::Timestamp, record.timestamp.map(|us| us.to_string())),
            (Field::Policy, record.policy.map(|stored| stored.to_string())),
            (Field::Weight, record.weight.map(|weight| weight.get().to_string())),
            (Field::Remainder, record.remainder.map(|remainder| remainder.to_string())),
        ];
        let fields = self.key.get_or_insert_default();
        for (field, text) in texts {
            match text {
                Some(text) => fields.insert(field.name(), text),
                None => fields.remove(field.name()),
            };
        }
        let read = self.load(opened.bucket().timestamp());
        assert_eq!(read, Ok(Some(record)), "a record must be read as it was written");
    }

    /// Asking for nothing is looking, which writes nothing.
    pub fn take(&mut self, want: Want, options: Options, now: u64) -> Result<Answer, FieldError> {
        let mut opened = self.ask(options, now)?;
        let answer = opened.take(demand(want), now, &alone()).unwrap();
        if answer.taken > 0 || (want.tokens > 0 && opened.terms_changed()) {
            self.save(&opened);
        }
        Ok(answer)
    }

    pub fn peek(&self, tokens: u64, options: Options, now: u64) -> Result<Answer, FieldError> {
        Ok(self.ask(options, now)?.take(demand(all(tokens)), now, &alone()).unwrap())
    }

    pub fn settle(
        &mut self,
        (reserved, used): (u64, u64),
        options: Options,
        now: u64,
    ) -> Result<Answer, FieldError> {
        let mut opened = self.ask(options, now)?;
        let before = opened.bucket().tokens();
        let answer = opened.settle(reserved, used, now, &alone()).unwrap();
        if opened.bucket().tokens() != before || opened.terms_changed() {
            self.save(&opened);
        }
        Ok(answer)
    }

    pub fn give(&mut self, tokens: u64, now: u64) -> Result<Answer, FieldError> {
        let mut opened = self.open(now)?;
        let before = opened.bucket().tokens();
        let answer = opened.give(tokens, now, &alone()).unwrap();
        if opened.bucket().tokens() != before {
            self.save(&opened);
        }
        Ok(answer)
    }

    pub fn pin(
        &mut self,
        options: Options,
        weight: Option<u8>,
        now: u64,
    ) -> Result<(), FieldError> {
        let mut opened = self.open(now)?;
        opened.ask(None);
        let asked = Asked { capacity: options.capacity, refill: options.refill };
        if !asked.is_empty() {
            let policy = asked.over(opened.bucket().policy());
            opened.pin(policy.expect("options are within their bounds"), &alone()).unwrap();
        }
        if let Some(weight) = weight {
            opened.set_weight(Weight::new(u64::from(weight)).expect("1..=10"), &alone()).unwrap();
        }
        let new = self.key.is_none() && opened.to_record().is_kept();
        if new || opened.terms_changed() {
            self.save(&opened);
        }
        Ok(())
    }

    pub fn reset(&mut self, now: u64) -> Result<(), FieldError> {
        let mut opened = self.open(now)?;
        opened.reset(&alone()).unwrap();
        if opened.terms_changed() {
            self.save(&opened);
        }
        Ok(())
    }

    /// When the key may expire, if it exists.
    pub fn expiry(&self, now: u64) -> Result<Option<Expiry>, FieldError> {
        let opened = self.open(now)?;
        let foreign = opened.record().is_some_and(|record| record.foreign);
        Ok(self.key.as_ref().map(|_| opened.expiry(foreign, &alone())))
    }
}

/// The same, as the crate has it.
pub fn demand(Want { tokens, partial, keep }: Want) -> Demand {
    Demand { tokens, partial, keep }
}

/// A server without peers.
pub fn alone() -> Region {
    Region::default()
}

pub fn policy(terms: Terms) -> Policy {
    Policy::new(terms.capacity, terms.refill, terms.interval)
        .expect("policies are within their bounds")
}

/// What a bucket holds, exactly.
pub fn held(bucket: &Bucket) -> Q {
    let part = q(bucket.remainder()) / q(parts(bucket.policy()));
    (q(bucket.tokens()) + part) / q(1_000_000)
}

/// How many parts of a `remainder` make a millionth of a token.
pub fn parts(policy: Policy) -> u64 {
    2_520 * policy.interval_us().get()
}

/// An answer as the reply carries it.
pub fn reply(answer: &Answer) -> Reply {
    Reply {
        taken: answer.taken,
        capacity: answer.capacity,
        remaining: answer.remaining,
        retry_after: answer.retry_after.as_millis(),
        reset_after: answer.reset_after.as_millis(),
    }
}
