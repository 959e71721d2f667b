//! `claw.policies`: what is read, what is refused, and which rule counts.

use claw_core::rules::{MAX_PATTERN, MAX_RULES, Rules};

#[test]
fn what_is_read_and_how_it_shows() {
    let table = [
        ("", ""),
        (" ; ;", ""),
        ("login:* 5 5/900000; api:* 100 100/60000", "login:* 5 5/900000; api:* 100 100/60000"),
        ("z* 1 1/1;a* 1 1/1;", "z* 1 1/1; a* 1 1/1"),
        ("\tx*  1e2\n 0.50/6e4 ", "x* 100 0.5/60000"),
        ("* 5.0 1e-06/1000.0", "* 5 0.000001/1000"),
        ("x* 0 0/1", "x* 0 0/1"),
        ("key 1 1/1; key* 2 1/1", "key 1 1/1; key* 2 1/1"),
        ("größe:* 1 1/1", "größe:* 1 1/1"),
    ];
    for (text, shown) in table {
        let rules = Rules::parse(text).unwrap();
        assert_eq!(rules.as_str(), shown, "{text:?}");
        assert_eq!(Rules::parse(shown).as_ref(), Ok(&rules), "{text:?}");
    }
}

#[test]
fn what_is_refused() {
    let long = format!("{}* 1 1/1", "k".repeat(MAX_PATTERN));
    let many: String = (0..=MAX_RULES).map(|number| format!("k{number} 1 1/1;")).collect();
    let (form, star) = (
        "is not 'PREFIX* capacity refill/interval'",
        "has a '*' elsewhere than at the end of its pattern",
    );
    let capacity = "needs a whole capacity from 0 to 1000000000000";
    let refill = "needs a refill of 0 or from 0.000001 to 1000000000000";
    let interval = "needs a whole interval from 1 to 31622400000 ms";
    let table: [(&str, usize, &str); 21] = [
        ("a*", 1, form),
        ("a* 1", 1, form),
        ("a* 1 1", 1, form),
        ("a* 1 1/1 pinned", 1, form),
        ("a* 1 1/1, b* 1 1/1", 1, form),
        ("a* 1 1/1; b* 1", 2, form),
        ("a*b 1 1/1", 1, star),
        ("a** 1 1/1", 1, star),
        ("*a 1 1/1", 1, star),
        ("a* -1 1/1", 1, capacity),
        ("a* 1.5 1/1", 1, capacity),
        ("a* 1000000000001 1/1", 1, capacity),
        ("a* 1 -1/1", 1, refill),
        ("a* 1 1e-9/1", 1, refill),
        ("a* 1 1000000000000.5/1", 1, refill),
        ("a* 1 1/0", 1, interval),
        ("a* 1 1/1/1", 1, interval),
        ("a* 1 1/31622400001", 1, interval),
        ("a* 1 1/1; b* 1 1/1;; a* 2 2/2", 4, "has the pattern of entry 1"),
        (&long, 1, "has a pattern of more than 256 bytes"),
        (&many, MAX_RULES + 1, "is one more than the 1024 that there may be"),
    ];
    for (text, number, why) in table {
        let refused = Rules::parse(text).unwrap_err();
        let found = (refused.number, refused.why.to_string());
        assert_eq!(found, (number, why.to_owned()), "{text:?}");
        let entry = text.split(';').nth(number - 1).map(str::trim);
        assert_eq!(Some(&*refused.entry), entry, "{text:?}");
    }
}

#[test]
fn which_rule_counts() {
    let rules = "a* 1 1/1; api:* 2 1/1; api:user:* 3 1/1; api:user:7 4 1/1; api:user:7* 5 1/1; \
                 api:userland:* 6 1/1; abcdefgh* 7 1/1; abcdefghi 8 1/1; b 9 1/1";
    let rules = Rules::parse(rules).unwrap();
    let table: [(&[u8], Option<u64>); 18] = [
        (b"", None),
        (b"c", None),
        (b"a", Some(1)),
        (b"api", Some(1)),
        (b"api:", Some(2)),
        (b"api:user", Some(2)),
        (b"api:users", Some(2)),
        (b"api:user:", Some(3)),
        (b"api:user:6", Some(3)),
        // The key itself counts for more than a prefix of the same length.
        (b"api:user:7", Some(4)),
        (b"api:user:70", Some(5)),
        (b"api:user:8", Some(3)),
        (b"api:userland:x", Some(6)),
        (b"abcdefgh", Some(7)),
        (b"abcdefghi", Some(8)),
        (b"abcdefghij", Some(7)),
        (b"b", Some(9)),
        (b"ba", None),
    ];
    for (key, expected) in table {
        let found = rules.policy_of(key).map(|policy| policy.capacity());
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(key));
    }
    // A prefix of nothing fits everything.
    let all = Rules::parse("* 1 1/1").unwrap();
    for key in [&b""[..], b"\0", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"key"] {
        assert!(all.policy_of(key).is_some());
    }
}

/// Peers compare it: of the same rules it is the same, however they are written, and it never
/// changes from one version to another.
#[test]
fn the_fingerprint() {
    let of = |text: &str| Rules::parse(text).unwrap().fingerprint();
    assert_eq!(of("a* 1 1/1; b 2 2/2"), of(" b 2.0 2e0/2 ;a* 1 1/1"));
    assert_ne!(of("a* 1 1/1; b 2 2/2"), of("a* 1 1/1; b* 2 2/2"));
    assert_ne!(of("a* 1 1/1"), of("a* 1 1/2"));
    assert_eq!(of(""), Rules::default().fingerprint());
    let printed = of("login:* 5 5/900000; api:* 100 100/60000");
    assert_eq!(format!("{printed:016x}"), "513e708804c8616f");
}
