//! What the property tests of every part draw their inputs with.

use proptest::prelude::*;

/// `default` cases, or as many as `PROPTEST_CASES` says.
pub fn cases(default: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(default), ..ProptestConfig::default() }
}

/// 0..=max, each length in bits equally often.
pub fn log_uniform(max: u64) -> impl Strategy<Value = u64> {
    let bits = u64::BITS - max.leading_zeros();
    (0..=bits, any::<u64>())
        .prop_map(move |(bits, raw)| raw.checked_shr(u64::BITS - bits).unwrap_or(0).min(max))
}
