//! Random shared buckets over the full bounds.

pub use crate::random::{cases, log_uniform};
use claw_core::bucket::{Bucket, Weight};
use claw_core::debits::{Account, Counter, Debits, Slack, Version};
use claw_core::limits::{
    MAX_DEBT, MAX_INTERVAL_MS, MAX_MICRO_TOKENS, MAX_REPLICAS, MAX_TOKENS, MAX_VERSION, MAX_WEIGHT,
};
use claw_core::policy::Policy;
use claw_core::replica::MAX_EPOCH;
use claw_core::replica::ReplicaId;
use claw_core::shared::SharedBucket;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A moment in 2026, where the histories begin.
pub const START: u64 = 1_773_914_400_000_000;

/// Both signs, each length in bits equally often.
fn wide() -> impl Strategy<Value = i128> {
    (0..=i128::BITS, any::<i128>()).prop_map(|(bits, raw)| raw.checked_shr(bits).unwrap_or(0))
}

pub fn id() -> impl Strategy<Value = ReplicaId> {
    "[a-c][a-zA-Z0-9._-]{0,3}|[a-z-]{31}|[0-9]".prop_map(|name| name.parse().unwrap())
}

pub fn policy() -> impl Strategy<Value = Policy> {
    let capacity = prop_oneof![
        3 => log_uniform(MAX_TOKENS).prop_map(|tokens| tokens.max(1)),
        2 => 1_u64..=100,
        1 => Just(MAX_TOKENS),
        // What blocks.
        1 => Just(0),
    ];
    let refill = prop_oneof![
        3 => log_uniform(MAX_MICRO_TOKENS),
        2 => (1_u64..=100).prop_map(|tokens| tokens * 1_000_000),
        1 => Just(0),
        1 => Just(MAX_MICRO_TOKENS),
    ];
    let interval = prop_oneof![
        3 => log_uniform(MAX_INTERVAL_MS).prop_map(|ms| ms.max(1)),
        2 => prop::sample::select(vec![1, 7, 1_000, 60_000]),
        1 => Just(MAX_INTERVAL_MS),
    ];
    (capacity, refill, interval)
        .prop_map(|(capacity, refill, interval)| Policy::new(capacity, refill, interval).unwrap())
}

pub fn weight() -> impl Strategy<Value = Weight> {
    prop_oneof![Just(1), 1..=MAX_WEIGHT].prop_map(|w| Weight::new(u64::from(w)).unwrap())
}

pub fn counter() -> impl Strategy<Value = Counter> {
    let counter = || prop_oneof![0_u64..4, log_uniform(u64::MAX)];
    (counter(), counter(), counter()).prop_map(|(epoch, spent, refunded)| {
        // Without an epoch there is no counter.
        if epoch == 0 { Counter::default() } else { Counter { epoch, spent, refunded } }
    })
}

fn slack() -> impl Strategy<Value = Slack> {
    (wide(), wide()).prop_map(|(overflow, withheld)| Slack { overflow, withheld })
}

fn accounts() -> impl Strategy<Value = Vec<Account>> {
    let account = || (counter(), prop::option::of(slack()));
    let few = prop_oneof![4 => 0..4_usize, 1 => 0..=MAX_REPLICAS];
    few.prop_flat_map(move |most| prop::collection::btree_map(id(), account(), 0..=most)).prop_map(
        |accounts: BTreeMap<_, _>| {
            let account = |(id, (counter, slack))| Account { id, counter, slack };
            accounts.into_iter().map(account).collect()
        },
    )
}

pub fn debits() -> impl Strategy<Value = Debits> {
    let version = (log_uniform(MAX_VERSION), prop::option::of(id()))
        .prop_map(|(number, origin)| Version { number, origin });
    let home = any::<u32>();
    (version, log_uniform(u64::MAX), home, accounts()).prop_map(
        |(version, fraction, home, accounts)| Debits { version, fraction, home, accounts },
    )
}

/// What a bucket of this policy can hold, in millionths: a part of it, nothing, all, or a debt.
fn held(policy: Policy) -> impl Strategy<Value = i64> {
    let capacity = policy.capacity_micros();
    prop_oneof![
        4 => 0..=capacity,
        2 => Just(0),
        1 => Just(capacity),
        2 => -capacity..=0,
        2 => log_uniform(MAX_DEBT.unsigned_abs()).prop_map(|owed| -owed.cast_signed()),
    ]
}

/// A bucket in any state that it can be stored in.
pub fn shared() -> impl Strategy<Value = SharedBucket> {
    let policy = policy().prop_flat_map(|policy| (Just(policy), held(policy)));
    (policy, weight(), debits(), log_uniform(20 * 86_400_000_000)).prop_map(
        |((policy, held), weight, debits, age)| {
            let bucket = Bucket::new(policy, weight, held, 0, START - age);
            // Of a whole millionth there is no fraction, and none is held beyond
            // the capacity.
            let parts = policy.interval_us().get() * 1_000;
            let full = held == policy.capacity_micros();
            let fraction = if full { 0 } else { debits.fraction % parts };
            SharedBucket::new(&bucket, Debits { fraction, ..debits })
        },
    )
}

/// As others get to know it: slack and home are nobody else's business, and replicas that counted
/// nothing are not sent.
pub fn counted(bucket: &SharedBucket) -> SharedBucket {
    let mut debits = bucket.debits();
    debits.accounts.retain(|account| account.counter.epoch != 0);
    debits.accounts.iter_mut().for_each(|account| account.slack = None);
    debits.home = 0;
    SharedBucket::new(&bucket.bucket(), debits)
}

/// Whether its epochs are believed.
pub fn sane(bucket: &SharedBucket) -> bool {
    bucket.accounts().iter().all(|account| account.counter.epoch <= MAX_EPOCH)
}
