//! What was set on purpose: the later of two changes, in whatever order they are heard of.

use crate::any::{START, cases};
use claw_core::bucket::Weight;
use claw_core::debits::{Terms, Version};
use claw_core::policy::{Policy, StoredPolicy, Temporary};
use proptest::prelude::*;

/// So few that the same number and origin often meet.
fn policy() -> impl Strategy<Value = Policy> {
    let parts = (1..=2_u64, 1..=2_u64, 1..=2_u64);
    parts.prop_map(|(capacity, refill, ms)| Policy::new(capacity, refill, ms).unwrap())
}

fn terms() -> impl Strategy<Value = Terms> {
    let origin = prop::option::of(prop::sample::select(vec!["a", "b"]));
    let version = (0..=2_u64, origin).prop_map(|(number, origin)| Version {
        number,
        origin: origin.map(|name| name.parse().unwrap()),
    });
    let stored = (policy(), prop::option::weighted(0.8, 0..=2_u64))
        .prop_map(|(policy, pin)| StoredPolicy { policy, pin });
    let temporary = (policy(), 0..=2_u64, 1..=2_u64).prop_map(|(policy, version, us)| Temporary {
        policy,
        until: START + us,
        version,
    });
    let weight = (1..=2_u64).prop_map(|weight| Weight::new(weight).unwrap());
    (version, prop::option::of(stored), prop::option::of(temporary), weight).prop_map(
        |(version, stored, temporary, weight)| Terms { version, stored, temporary, weight },
    )
}

/// The change: not what calls bring, which is every region's own, and not the end of a pin, which
/// each fixes by its own clock.
fn change(terms: &Terms) -> impl PartialEq + std::fmt::Debug + use<> {
    let temporary = terms.temporary.map(|pin| (pin.version, pin.policy));
    (lasting(terms), temporary)
}

/// The same without the pin that ends by itself.
fn lasting(terms: &Terms) -> impl PartialEq + std::fmt::Debug + use<> {
    let pinned = terms.stored.filter(|stored| stored.is_pinned());
    let pins = [pinned.and_then(|stored| stored.pin), terms.temporary.map(|pin| pin.version)];
    let number = pins.into_iter().flatten().fold(terms.version.number, u64::max);
    (number, terms.version.origin, pinned, terms.weight)
}

fn merged(here: &Terms, there: &Terms) -> Terms {
    if here.yields_to(there) { *there } else { *here }
}

/// Whether one is the other after its pin has ended.
fn ended(a: &Terms, b: &Terms) -> bool {
    lasting(a) == lasting(b) && a.temporary.is_some() != b.temporary.is_some()
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn regions_agree_whatever_order_changes_come_in(a in terms(), b in terms(), c in terms()) {
        prop_assume!(![(&a, &b), (&b, &c), (&a, &c)].into_iter().any(|(a, b)| ended(a, b)));
        let ab = merged(&a, &b);
        prop_assert_eq!(change(&ab), change(&merged(&b, &a)));
        prop_assert_eq!(merged(&a, &a), a);
        prop_assert_eq!(merged(&ab, &a), ab);
        prop_assert_eq!(merged(&ab, &b), ab);
        prop_assert_eq!(change(&merged(&ab, &c)), change(&merged(&a, &merged(&b, &c))));
        prop_assert_eq!(change(&merged(&merged(&c, &a), &b)), change(&merged(&ab, &c)));
    }

    /// Where a pin has ended it does not come back, and where it has not it goes on.
    #[test]
    fn a_pin_ends_in_each_region_by_itself(pinned in terms()) {
        let number = pinned.temporary.map_or(0, |pin| pin.version).max(pinned.version.number);
        let version = Version { number, ..pinned.version };
        let past = Terms { version, temporary: None, ..pinned };
        prop_assert!(!past.yields_to(&pinned) && !pinned.yields_to(&past));
    }
}
