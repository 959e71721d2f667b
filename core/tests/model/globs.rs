//! A key matches a list of patterns as it matches each of them.

use claw_core::glob::{self, Globs};
use proptest::prelude::*;

use crate::any;

/// Patterns of few letters, so that many match.
fn words() -> impl Strategy<Value = Vec<(bool, String)>> {
    let parts = prop::sample::select(vec!["*", "?", "a", "b", "!", "[ab]", "[^a]", "\\\\!", "é"]);
    let glob = prop::collection::vec(parts, 1..4).prop_map(|parts| parts.concat());
    let wanted = glob.prop_filter("it would exclude", |glob| !glob.starts_with('!'));
    prop::collection::vec((any::<bool>(), wanted), 1..6)
}

proptest! {
    #![proptest_config(any::cases(2_000))]

    #[test]
    fn what_matches(
        words in words(),
        blanks in prop::collection::vec(prop::sample::select(vec![" ", "  ", "\t", " \n"]), 6),
        keys in prop::collection::vec("[ab!é]{0,4}", 1..20),
    ) {
        let mut text = String::new();
        for ((excludes, glob), blank) in words.iter().zip(&blanks) {
            text += &format!("{}{glob}{blank}", if *excludes { "!" } else { "" });
        }
        let globs = Globs::parse(&text).unwrap();
        prop_assert_eq!(&Globs::parse(globs.as_str()).unwrap(), &globs);
        for key in keys {
            let matching = |excluding: bool| {
                let those = words.iter().filter(move |(excludes, _)| *excludes == excluding);
                those.filter(|(_, glob)| glob::matches(glob.as_bytes(), key.as_bytes())).count()
            };
            let all_exclude = words.iter().all(|(excludes, _)| *excludes);
            let expected = matching(true) == 0 && (all_exclude || matching(false) > 0);
            prop_assert_eq!(globs.matches(key.as_bytes()), expected, "{} {}", text, key);
        }
    }
}
