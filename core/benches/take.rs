//! What one call costs without the server around it.
//!
//! `cargo bench -p claw-core`

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark may panic, and criterion's macro makes a public item"
)]

use claw_core::bucket::{Bucket, Demand, Weight};
use claw_core::configured::Configured;
use claw_core::debits::Region;
use claw_core::decimal::{self, Decimal};
use claw_core::open::OpenBucket;
use claw_core::policy::{Policy, StoredPolicy};
use claw_core::record::{Field, Record};
use claw_core::timestamp;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

const NOW: u64 = 1_773_914_400_000_000;

/// The module's path from fields to answer and back to a record.
fn take(c: &mut Criterion) {
    let mut group = c.benchmark_group("take");
    let defaults = Configured::new(Policy::DEFAULT);
    let alone = Region::default();
    let left = |micros, timestamp| {
        Some(Record { tokens: Some(micros), timestamp: Some(timestamp), ..Record::default() })
    };
    for (name, record, tokens) in [
        ("granted", left(500_000_000, NOW - 100_000), 1),
        ("refused", left(250_000, NOW - 100_000), 1),
        ("missing key", None, 1),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut opened = OpenBucket::new(
                    black_box(record.clone()),
                    &defaults.of(b"key"),
                    black_box(NOW),
                );
                opened.ask(black_box(None));
                let answer = opened.take(Demand::all(black_box(tokens)), NOW, &alone).unwrap();
                let record = opened.to_record();
                (answer, opened.expiry(false, &alone), record)
            });
        });
    }
    group.finish();
}

/// 100 a minute: 5/3 millionths a microsecond, so there is a remainder.
fn credit(c: &mut Criterion) {
    let mut group = c.benchmark_group("credit");
    for (name, refill, interval_ms, then) in [
        ("per minute, with a remainder", 100_000_000, 60_000, NOW + 123_457),
        ("wide", 1_000_000_000_000_000_000, 31_622_400_000, NOW + 1_234_567_891),
    ] {
        let policy = Policy::new(1_000_000_000_000, refill, interval_ms).unwrap();
        let bucket = Bucket::new(policy, Weight::ONE, 1, 1, NOW);
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut bucket = black_box(bucket);
                bucket.advance(black_box(then));
                bucket
            });
        });
    }
    group.finish();
}

fn fields(c: &mut Criterion) {
    let mut group = c.benchmark_group("fields");
    group.bench_function("parse tokens", |b| b.iter(|| decimal::parse(black_box(b"499.123456"))));
    group.bench_function("print tokens", |b| {
        b.iter(|| Decimal::new(black_box(499_123_456)).as_bytes().len());
    });
    group.bench_function("parse timestamp", |b| {
        b.iter(|| timestamp::parse(black_box(b"1773914400000000")));
    });
    group.bench_function("parse RFC 3339", |b| {
        b.iter(|| timestamp::parse(black_box(b"2026-03-19T10:00:00Z")));
    });
    group.bench_function("parse policy", |b| {
        b.iter(|| StoredPolicy::parse(black_box(b"100 0.5/1000 pinned 3")));
    });
    let stored = StoredPolicy::parse(b"100 0.5/1000 pinned 3").unwrap();
    group.bench_function("print policy", |b| b.iter(|| black_box(stored).to_string()));
    group.bench_function("read record", |b| {
        b.iter(|| {
            let mut record = Record::default();
            record.read(Field::Tokens, black_box(b"499.123456"), NOW).unwrap();
            record.read(Field::Timestamp, black_box(b"1773914400000000"), NOW).unwrap();
            record
        });
    });
    group.finish();
}

criterion_group!(benches, take, credit, fields);
criterion_main!(benches);
