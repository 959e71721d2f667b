//! The rule that counts for a key is the one that is found by looking at all of them.

use claw_core::policy::Policy;
use claw_core::rules::Rules;
use proptest::prelude::*;

use crate::any;

/// Names of few letters, about as long as the part that is compared as one number.
fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::collection::vec(prop::sample::select(vec!["a", "b", "\0", "é"]), 0..4),
        prop::collection::vec(prop::sample::select(vec!["aaaaaaaaaaaaaa", "a", "b", "\0"]), 0..5),
    ]
    .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(any::cases(1_000))]

    #[test]
    fn the_rule_that_counts(
        patterns in prop::collection::hash_set((names(), any::<bool>()), 0..40),
        keys in prop::collection::vec(names(), 1..20),
    ) {
        let patterns: Vec<(String, bool)> =
            patterns.into_iter().filter(|(name, exact)| !exact || !name.is_empty()).collect();
        let mut text = String::new();
        for (capacity, (name, exact)) in patterns.iter().enumerate() {
            text += &format!("{name}{} {capacity} 1/1;", if *exact { "" } else { "*" });
        }
        let rules = Rules::parse(&text).unwrap();
        prop_assert_eq!(rules.len(), patterns.len());
        // Every pattern is a key too.
        for key in keys.iter().chain(patterns.iter().map(|(name, _)| name)) {
            let fits = |(name, exact): &(String, bool)| match exact {
                true => name == key,
                false => key.starts_with(name.as_str()),
            };
            let fitting = patterns.iter().enumerate().filter(|(_, pattern)| fits(pattern));
            let best = fitting.max_by_key(|(_, (name, exact))| (*exact, name.len()));
            let expected = best.map(|(capacity, _)| u64::try_from(capacity).unwrap());
            let found = rules.policy_of(key.as_bytes()).as_ref().map(Policy::capacity);
            prop_assert_eq!(found, expected, "{:?} of {:?}", key, text);
        }
    }
}
