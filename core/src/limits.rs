//! Every bound of the contract, in one table.

/// Millionths of a token in one token: the resolution of everything inside.
pub const MICRO: u64 = 1_000_000;

/// Largest capacity, and largest number of tokens in one request: 10^12 tokens.
pub const MAX_TOKENS: u64 = 1_000_000_000_000;

/// Largest amount that a field or an option can hold, in millionths of a token.
pub const MAX_MICRO_TOKENS: u64 = 1_000_000_000_000_000_000;

/// Deepest debt of a bucket, in millionths of a token: 9 * 10^12 tokens. One server books down to
/// minus the capacity; what several regions have booked unseen adds up to more.
pub const MAX_DEBT: i64 = 9_000_000_000_000_000_000;

/// Shortest refill interval: 1 ms.
pub const MIN_INTERVAL_MS: u64 = 1;

/// Longest refill interval: 366 days, in milliseconds.
pub const MAX_INTERVAL_MS: u64 = 31_622_400_000;

/// Refill interval when a call or a configuration gives none, in milliseconds.
pub const DEFAULT_INTERVAL_MS: u64 = 1_000;

/// Capacity when nothing is configured, in tokens.
pub const DEFAULT_CAPACITY: u64 = 1_000;

/// Refill per [`DEFAULT_INTERVAL_MS`] when nothing is configured, in tokens.
pub const DEFAULT_REFILL: u64 = 5;

/// Largest `userWeight`; the smallest is 1.
pub const MAX_WEIGHT: u8 = 10;

/// Least common multiple of all weights. A share of a weight-w bucket is 1/w of
/// it; counted in 1/2520 of the smallest unit, every share is an integer.
pub const SHARES: u64 = 2_520;

/// How far a stored timestamp may be ahead of the clock, in microseconds: 30 days.
///
/// A clock that was set back leaves timestamps ahead of it, so some lead has to
/// be lived with; a lead of more than this is a mistake in the field (most often
/// nanoseconds written for microseconds).
pub const MAX_LEAD_US: u64 = 2_592_000_000_000;

/// Latest instant that can be written or read, in unix microseconds:
/// 9999-12-30T22:00:00.999999Z, the last that exists in every time zone.
pub const MAX_TIMESTAMP_US: u64 = 253_402_207_200_999_999;

/// Most replicas that one bucket may know.
pub const MAX_REPLICAS: usize = 16;

/// Largest number of a change of policy or weight that is believed: far above any count of
/// changes, and far below where counting on would end.
pub const MAX_VERSION: u64 = 1 << 62;
