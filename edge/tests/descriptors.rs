//! The descriptor files of `envoyproxy/ratelimit`: what is read, what a request falls under,
//! what it is charged, and what Envoy is told. The cases are those of that project's own tests.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use clap::Parser;
use claw_edge::config::Config;
use claw_edge::limits::source::{Source, Sources};
use claw_edge::limits::{Found, Limits, Mistake};
use claw_testkit::Server;
use common::Edge;
use common::rls::{Client, descriptor};

/// The limits of some files, with some settings as flags.
fn load(files: &[&str], flags: &[&str]) -> Result<Limits, Mistake> {
    let config = Config::parse_from(["claw-edge"].iter().chain(flags));
    let source = |(index, text): (usize, &&str)| Source {
        path: format!("{}.yaml", ["a", "b"][index]).into(),
        text: (*text).to_owned(),
    };
    let descriptors = files.iter().enumerate().map(source).collect();
    Sources { named: Vec::new(), descriptors }.limits(&config)
}

const WALK: &str = "
domain: shop
descriptors:
- key: plan
  value: free
  descriptors:
  - key: user
    rate_limit: {unit: second, requests_per_unit: 5}
  - key: user
    value: ann
    rate_limit: {unit: second, requests_per_unit: 10}
    shadow_mode: true
- key: path
  rate_limit: {unit: minute, requests_per_unit: 20}
- key: path
  value: /login
  rate_limit: {unit: Minute, requests_per_unit: 30}
- key: path
  value: /health
- key: hourly
  rate_limit: {unit: HOUR, requests_per_unit: 1}
  quota_mode: true
- key: named
  rate_limit: {name: by_day, unit: day, requests_per_unit: 1}
- key: deep
  value: one
  rate_limit: {unit: week, requests_per_unit: 15}
  descriptors:
  - key: deeper
    value: two
    rate_limit: {unit: month, requests_per_unit: 25}
- key: year
  rate_limit: {unit: year, requests_per_unit: 4294967295}
- key: free
  rate_limit: {unlimited: true}
- key: number
  value: 404
  rate_limit: {unit: day, requests_per_unit: 0}
";

const WILD: &str = "
domain: wild
descriptors:
- {key: a, value: foo*, rate_limit: {unit: minute, requests_per_unit: 20}}
- {key: plain, value: foo, rate_limit: {unit: minute, requests_per_unit: 20}}
- {key: mid, value: bar*b, rate_limit: {unit: minute, requests_per_unit: 20}}
- {key: many, value: foo*bar*baz, rate_limit: {unit: minute, requests_per_unit: 10}}
- {key: same, value: a*a, rate_limit: {unit: minute, requests_per_unit: 9}}
- {key: order, value: x*, rate_limit: {unit: minute, requests_per_unit: 1}}
- {key: order, value: xy*, rate_limit: {unit: minute, requests_per_unit: 2}}
- {key: order, value: xyz, rate_limit: {unit: minute, requests_per_unit: 3}}
- {key: order, rate_limit: {unit: minute, requests_per_unit: 4}}
- {key: any, value: '*', rate_limit: {unit: minute, requests_per_unit: 5}}
- key: nest
  value: v
  descriptors:
  - {key: a, value: goo*, rate_limit: {unit: minute, requests_per_unit: 20}}
";

const SHARE: &str = "
domain: share
descriptors:
- {key: files, value: files/*, share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 100}}
- key: files
  value: top/*
  share_threshold: true
  descriptors:
  - {key: files, value: nested/*, share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 30}}
- key: route
  value: api/*
  share_threshold: true
  value_to_metric: true
  descriptors:
  - {key: method, rate_limit: {unit: minute, requests_per_unit: 60}}
- key: svc
  value: svc/*
  share_threshold: true
  descriptors:
  - {key: end, detailed_metric: true, rate_limit: {unit: minute, requests_per_unit: 80}}
- key: path
  value: p/*
  share_threshold: true
  descriptors:
  - key: file
    value: f/*
    share_threshold: false
    descriptors:
    - {key: type, rate_limit: {unit: minute, requests_per_unit: 12}}
- {key: one, value: test1, rate_limit: {unit: minute, requests_per_unit: 50}}
- {key: one, value: test*, share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 10}}
- {key: mid, value: /api*v1, share_threshold: true, value_to_metric: true, rate_limit: {unit: minute, requests_per_unit: 7}}
- {key: many, value: s*e*r, share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 5}}
";

const METRICS: &str = "
domain: m
descriptors:
- {key: detailed, detailed_metric: true, rate_limit: {unit: minute, requests_per_unit: 1}}
- key: a
  value_to_metric: true
  descriptors:
  - key: b
    value_to_metric: true
    rate_limit: {unit: minute, requests_per_unit: 2}
    descriptors:
    - {key: c, rate_limit: {unit: minute, requests_per_unit: 3}}
- key: up
  descriptors:
  - {key: down, detailed_metric: true, rate_limit: {unit: minute, requests_per_unit: 4}}
- {key: w, value: 'x*', value_to_metric: true, rate_limit: {unit: minute, requests_per_unit: 5}}
- {key: v, value: fixed, value_to_metric: true, rate_limit: {unit: minute, requests_per_unit: 6}}
- key: mixed
  value_to_metric: true
  descriptors:
  - {key: leaf, detailed_metric: true, rate_limit: {unit: minute, requests_per_unit: 7}}
";

#[test]
fn what_a_descriptor_falls_under() {
    #[rustfmt::skip]
    let table = [
        // Domain, descriptor; limit, key, name in metrics.
        (WALK, "shop", "plan=free", "-"),
        (WALK, "shop", "plan=paid user=bob", "-"),
        (WALK, "shop", "plan=free user=bob", "5/second shop/plan=free/user=bob shop.plan_free.user"),
        (WALK, "shop", "plan=free user=ann", "10/second shadow shop/plan=free/user=ann shop.plan_free.user_ann"),
        (WALK, "shop", "plan=free user=bob more=x", "-"),
        (WALK, "shop", "user=bob", "-"),
        (WALK, "shop", "path=/a", "20/minute shop/path=%2Fa shop.path"),
        (WALK, "shop", "path=", "20/minute shop/path= shop.path"),
        (WALK, "shop", "path=/login", "30/minute shop/path=%2Flogin shop.path_/login"),
        (WALK, "shop", "path=/login more=x", "-"),
        (WALK, "shop", "path=/health", "-"),
        (WALK, "shop", "hourly=x", "1/hour quota shop/hourly=x shop.hourly"),
        (WALK, "shop", "named=x", "1/day by_day shop/named=x shop.named"),
        (WALK, "shop", "deep=one", "15/week shop/deep=one shop.deep_one"),
        (WALK, "shop", "deep=one deeper=two", "25/month shop/deep=one/deeper=two shop.deep_one.deeper_two"),
        (WALK, "shop", "deep=one deeper=three", "-"),
        (WALK, "shop", "year=x", "4294967295/year shop/year=x shop.year"),
        (WALK, "shop", "free=x", "unlimited"),
        (WALK, "shop", "number=404", "0/day shop/number=404 shop.number_404"),
        (WALK, "shop", "", "-"),
        (WALK, "elsewhere", "path=/a", "-"),
        (WALK, "elsewhere", "path=/a @5/minute", "-"),
        // A limit that Envoy brings.
        (WALK, "shop", "path=/a @5/minute", "5/minute shop/path=%2Fa/5/minute shop.override"),
        (WALK, "shop", "path=/a @5/hour", "5/hour shop/path=%2Fa/5/hour shop.override"),
        (WALK, "shop", "unknown=x @7/day", "7/day shop/unknown=x/7/day shop.override"),
        (WALK, "shop", "plan=free user=ann @7/day", "7/day shop/plan=free/user=ann/7/day shop.override"),
        (WALK, "shop", "path=/a @5/fortnight", "bad unit"),
        // Keys stay apart whatever values hold.
        (WALK, "shop", "path=a/b=c%", "20/minute shop/path=a%2Fb%3Dc%25 shop.path"),
        // Stars.
        (WILD, "wild", "a=foo1", "20/minute wild/a=foo1 wild.a_foo*"),
        (WILD, "wild", "a=foo", "20/minute wild/a=foo wild.a_foo*"),
        (WILD, "wild", "a=fo", "-"),
        (WILD, "wild", "plain=foo1", "-"),
        (WILD, "wild", "mid=bar123b", "20/minute wild/mid=bar123b wild.mid_bar*b"),
        (WILD, "wild", "mid=barb", "20/minute wild/mid=barb wild.mid_bar*b"),
        (WILD, "wild", "mid=bar", "-"),
        (WILD, "wild", "mid=bar123", "-"),
        (WILD, "wild", "many=foo1bar2baz", "10/minute wild/many=foo1bar2baz wild.many_foo*bar*baz"),
        (WILD, "wild", "many=foobarbaz", "10/minute wild/many=foobarbaz wild.many_foo*bar*baz"),
        (WILD, "wild", "many=foobaz", "-"),
        (WILD, "wild", "many=foobarba", "-"),
        (WILD, "wild", "same=a", "-"),
        (WILD, "wild", "same=aa", "9/minute wild/same=aa wild.same_a*a"),
        (WILD, "wild", "order=xyq", "1/minute wild/order=xyq wild.order_x*"),
        (WILD, "wild", "order=xyz", "3/minute wild/order=xyz wild.order_xyz"),
        (WILD, "wild", "order=q", "4/minute wild/order=q wild.order"),
        (WILD, "wild", "any=", "5/minute wild/any= wild.any_*"),
        (WILD, "wild", "nest=v a=goo7", "20/minute wild/nest=v/a=goo7 wild.nest_v.a_goo*"),
        (WILD, "wild", "nest=v a=foo7", "-"),
        // One bucket for all that a star fits.
        (SHARE, "share", "files=files/a.pdf", "100/minute share/files=files%2F* share.files_files/*"),
        (SHARE, "share", "files=files/b.pdf", "100/minute share/files=files%2F* share.files_files/*"),
        (SHARE, "share", "files=top/1 files=nested/2", "30/minute share/files=top%2F*/files=nested%2F* share.files_top/*.files_nested/*"),
        (SHARE, "share", "route=api/x method=GET", "60/minute share/route=api%2F*/method=GET share.route_api/*.method"),
        (SHARE, "share", "svc=svc/1 end=get", "80/minute share/svc=svc%2F*/end=get share.svc_svc/*.end_get"),
        (SHARE, "share", "svc=svc/1 end=", "80/minute share/svc=svc%2F*/end= share.svc_svc/*.end"),
        (SHARE, "share", "path=p/1 file=f/2 type=x", "12/minute share/path=p%2F*/file=f%2F2/type=x share.path_p/*.file_f/*.type"),
        (SHARE, "share", "one=test1", "50/minute share/one=test1 share.one_test1"),
        (SHARE, "share", "one=test2", "10/minute share/one=test* share.one_test*"),
        (SHARE, "share", "mid=/api/7/v1", "7/minute share/mid=%2Fapi*v1 share.mid_/api*v1"),
        (SHARE, "share", "many=s1e2r", "5/minute share/many=s*e*r share.many_s*e*r"),
        // Names in metrics.
        (METRICS, "m", "detailed=x", "1/minute m/detailed=x m.detailed_x"),
        (METRICS, "m", "detailed=", "1/minute m/detailed= m.detailed_"),
        (METRICS, "m", "a=1 b=2", "2/minute m/a=1/b=2 m.a_1.b_2"),
        (METRICS, "m", "a=1 b=", "2/minute m/a=1/b= m.a_1.b"),
        (METRICS, "m", "a=1 b=2 c=3", "3/minute m/a=1/b=2/c=3 m.a_1.b_2.c"),
        (METRICS, "m", "up=1 down=2", "4/minute m/up=1/down=2 m.up_1.down_2"),
        (METRICS, "m", "w=xyz", "5/minute m/w=xyz m.w_xyz"),
        (METRICS, "m", "v=fixed", "6/minute m/v=fixed m.v_fixed"),
        (METRICS, "m", "mixed=1 leaf=2", "7/minute m/mixed=1/leaf=2 m.mixed_1.leaf_2"),
    ];
    for (config, domain, text, expected) in table {
        let limits = load(&[config], &[]).unwrap();
        let found = limits.of_descriptors(domain, &[descriptor(text)]);
        let told: Vec<String> = found.iter().map(tell).collect();
        assert_eq!(told, [expected], "{domain}: {text}");
    }
}

/// A limit in one line.
fn tell(found: &Found) -> String {
    match found {
        Found::Nothing => "-".to_owned(),
        Found::Unlimited => "unlimited".to_owned(),
        Found::BadOverride => "bad unit".to_owned(),
        Found::Limited { leaf, key, metric } => {
            let mut words =
                vec![format!("{}/{}", leaf.shown.requests_per_unit, leaf.shown.unit().name())];
            words.extend(leaf.is_shadow.then(|| "shadow".to_owned()));
            words.extend(leaf.is_quota.then(|| "quota".to_owned()));
            words.extend((!leaf.shown.name.is_empty()).then(|| leaf.shown.name.clone()));
            let key = String::from_utf8(key.to_vec()).unwrap();
            words.push(key.strip_prefix("claw:rls/").unwrap().to_owned());
            words.push(metric.to_string());
            words.join(" ")
        }
    }
}

#[test]
fn values_that_are_too_long_for_a_key_stay_apart() {
    let limits = load(&[WALK], &[]).unwrap();
    let key = |value: String| match &limits
        .of_descriptors("shop", &[descriptor(&format!("path={value}"))])[0]
    {
        Found::Limited { key, .. } => String::from_utf8(key.to_vec()).unwrap(),
        found => panic!("{found:?}"),
    };
    let (one, other) = (key("a".repeat(129) + "1"), key("a".repeat(129) + "2"));
    assert!(one != other && one.len() < 80, "{one} {other}");
    assert_eq!(key("a".repeat(128)), format!("claw:rls/shop/path={}", "a".repeat(128)));
}

#[test]
fn a_file_that_is_wrong_is_refused_with_its_line() {
    let one = |rate: &str| format!("domain: d\ndescriptors:\n- key: a\n  rate_limit: {rate}\n");
    #[rustfmt::skip]
    let table: [(&[&str], &str); 25] = [
        (&["descriptors:\n"], "a.yaml: the file names no domain"),
        (&["domain: ''\n"], "a.yaml: the file names no domain"),
        (&["domain:\ndescriptors:\n"], "a.yaml: the file names no domain"),
        (&[""], "a.yaml: the file names no domain"),
        (&["domain: d\n", "\ndomain: d\n"], "b.yaml:2: domain 'd' is in a.yaml too: one file for each domain, unless MERGE_DOMAIN_CONFIG is true"),
        (&["domain: d\ndescriptors:\n- value: x\n"], "a.yaml:3: a descriptor has no key"),
        (&["domain: d\ndescriptors:\n- key: ''\n"], "a.yaml:3: a descriptor has no key"),
        (&["domain: d\ndescriptors:\n- key:\n"], "a.yaml:3: a descriptor has no key"),
        (&["domain: d\ndescriptors:\n- key: a\n  value: b\n- key: c\n- key: a\n  value: b\n"], "a.yaml:6: descriptor 'd.a_b' is there twice"),
        (&["domain: d\ndescriptors:\n- key: a\n  value: b\n- key: a_b\n"], "a.yaml:5: descriptor 'd.a_b' is there twice"),
        (&[&one("{unit: foo, requests_per_unit: 5}")], "a.yaml:4: 'foo' is no unit of a rate limit: second, minute, hour, day, week, month, year"),
        (&[&one("{unit: unknown, requests_per_unit: 5}")], "a.yaml:4: 'unknown' is no unit of a rate limit: second, minute, hour, day, week, month, year"),
        (&[&one("{requests_per_unit: 5}")], "a.yaml:4: '' is no unit of a rate limit: second, minute, hour, day, week, month, year"),
        (&[&one("{unlimited: true, unit: day, requests_per_unit: 5}")], "a.yaml:4: 'd.a' is unlimited: it can have no unit"),
        (&[&one("\n    unit: day\n    requests_per_unit: 5\n    name: n\n    replaces:\n    - name: m\n    - name: n\n")], "a.yaml:10: a limit cannot replace itself"),
        (&[&one("{unit: day, requests_per_unit: 5, replaces: [{name: }]}")], "a.yaml:4: replaces needs the name of a limit"),
        (&[&one("{unit: day, requests_per_unit: -1}")], "a.yaml:4: "),
        (&[&one("{unit: day, requests_per_unit: 4294967296}")], "a.yaml:4: "),
        (&["'''\n"], "a.yaml:"),
        (&["domain: d\ndescriptors:\n- key: a\n  ratelimit:\n    unit: day\n"], "a.yaml:4: unknown field `ratelimit`"),
        (&[&one("\n    unit: day\n    requestsperunit: 5\n")], "a.yaml:6: unknown field `requestsperunit`"),
        (&["0.25: d\n"], "a.yaml:1: unknown field `0.25`"),
        (&["domain: d\ndescriptors:\n- a\n- b\n"], "a.yaml:3: "),
        (&["domain: d\ndescriptors:\n- key: a\n  value: b\n  share_threshold: true\n"], "a.yaml:3: share_threshold needs a '*' in the value: 'd.a_b' has none"),
        (&["domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: day, requests_per_unit: 5, shadow_mode: true}\n"], "a.yaml:4: unknown field `shadow_mode`"),
    ];
    for (files, expected) in table {
        let told = load(files, &[]).unwrap_err().to_string();
        assert!(told.starts_with(expected), "{files:?}\n{told}\n{expected}");
        assert!(!told.contains('\n'), "{told}");
    }
}

#[test]
fn files_of_one_domain_are_merged_if_that_is_wanted() {
    let one =
        "domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: minute, requests_per_unit: 10}\n";
    let two =
        "domain: d\ndescriptors:\n- key: b\n  rate_limit: {unit: minute, requests_per_unit: 20}\n";
    let limits = load(&[one, two], &["--merge-domain-config"]).unwrap();
    let found = limits.of_descriptors("d", &[descriptor("a=1"), descriptor("b=1")]);
    let told: Vec<String> = found.iter().map(tell).collect();
    assert_eq!(told, ["10/minute d/a=1 d.a", "20/minute d/b=1 d.b"]);
    let twice = load(&[one, one], &["--merge-domain-config"]).unwrap_err().to_string();
    assert_eq!(twice, "b.yaml:3: descriptor 'd.a' is there twice");
}

/// What a service says, request by request. Each row goes on where the one before it left off.
const SERVICE: &str = "
domain: DOMAIN
descriptors:
- {key: five, rate_limit: {unit: day, requests_per_unit: 5}}
- {key: two, rate_limit: {unit: day, requests_per_unit: 2}}
- {key: none, rate_limit: {unit: day, requests_per_unit: 0}}
- {key: shadow, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 2}}
- {key: free, rate_limit: {unlimited: true}}
- {key: q, value: one, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: q, value: two, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 2}}
- {key: sq, shadow_mode: true, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: banned, rate_limit: {name: ban, unit: day, requests_per_unit: 0}}
- {key: small, rate_limit: {name: small, unit: day, requests_per_unit: 1}}
- {key: pardon, rate_limit: {replaces: [{name: ban}], unit: day, requests_per_unit: 2}}
- {key: large, rate_limit: {replaces: [{name: small}, {name: other}], unit: day, requests_per_unit: 4}}
- {key: waived, rate_limit: {unlimited: true, replaces: [{name: small}]}}
";

type Steps = &'static [(&'static str, &'static str)];

#[rustfmt::skip]
const DECISIONS: &[(&[(&str, &str)], Steps)] = &[
    (&[], &[
        // Nothing to go by.
        ("", "InvalidArgument: the domain is empty"),
        (": five=x", "InvalidArgument: the domain is empty"),
        ("d", "InvalidArgument: there is no descriptor"),
        ("d: five=x @5/fortnight", "InvalidArgument: the unit of a descriptor's limit is not known"),
        ("elsewhere: five=x", "OK: ok"),
        ("d: unknown=x | ", "OK: ok"),
        // One limit; others; the request's hits and a descriptor's own.
        ("d: five=a", "OK: ok 4 of 5/day"),
        ("d*3: five=a", "OK: ok 1 of 5/day"),
        ("d*3: five=a", "OVER: over 0 of 5/day"),
        ("d: five=a", "OK: ok 0 of 5/day"),
        ("d: five=a", "OVER: over 0 of 5/day"),
        ("d: five=b", "OK: ok 4 of 5/day"),
        ("d*9: five=b +2", "OK: ok 2 of 5/day"),
        ("d*6: five=b", "OVER: over 0 of 5/day"),
        // A look, which takes nothing.
        ("d: five=b +0", "OK: ok 2 of 5/day"),
        ("d: five=a +0", "OVER: over 0 of 5/day"),
        ("d: five=c +0", "OK: ok 5 of 5/day"),
        // Given back, no more than there was.
        ("d: five=b -2", "OK: ok 4 of 5/day"),
        ("d: five=b -9", "OK: ok 5 of 5/day"),
        ("d: five=new -9", "OK: ok 5 of 5/day"),
        ("d: five=a -1", "OK: ok 1 of 5/day"),
        // What a descriptor names by itself is owed where there is less, a capacity at the most.
        ("d: five=e +4", "OK: ok 1 of 5/day"),
        // Also where another limit refuses, and where there is enough.
        ("d: five=e +3 | two=e +1", "OVER: over 0 of 5/day | ok 1 of 2/day"),
        ("d: five=h +9 | two=e", "OVER: over 0 of 5/day | ok 1 of 2/day"),
        ("d: two=e +1", "OK: ok 0 of 2/day"),
        ("d: five=e +0", "OVER: over 0 of 5/day"),
        ("d: five=e -2", "OK: ok 0 of 5/day"),
        ("d: five=e +0", "OVER: over 0 of 5/day"),
        ("d: five=e -1", "OK: ok 1 of 5/day"),
        ("d: five=e +0", "OK: ok 1 of 5/day"),
        ("d: five=f +18446744073709551615", "OVER: over 0 of 5/day"),
        ("d: five=f -9", "OK: ok 4 of 5/day"),
        ("d: five=g +6 @5/day | five=g +1", "OVER: over 0 of 5/day | ok 4 of 5/day"),
        ("d: five=g -6 @5/day", "OK: ok 5 of 5/day"),
        ("d: shadow=e +9 | q=one +0", "OK: ok 0 of 2/day | ok 1 of 1/day"),
        ("d: shadow=e -3", "OK: ok 1 of 2/day"),
        // Statuses are in order; a refusal charges nobody.
        ("d: two=a | none=x | five=d", "OVER: ok 2 of 2/day | over 0 of 0/day | ok 5 of 5/day"),
        ("d: unknown=x | two=a | free=x | five=d", "OK: ok | ok 1 of 2/day | ok unlimited | ok 4 of 5/day"),
        ("d: five=d | two=a", "OK: ok 3 of 5/day | ok 0 of 2/day"),
        ("d: five=d | two=a", "OVER: ok 3 of 5/day | over 0 of 2/day"),
        ("d: five=d +0", "OK: ok 3 of 5/day"),
        ("d: five=d +1 | five=d +2", "OK: ok 2 of 5/day | ok 0 of 5/day"),
        // A limit of nothing.
        ("d: none=x", "OVER: over 0 of 0/day"),
        ("d: none=x +0", "OVER: over 0 of 0/day"),
        // A limit that only watches.
        ("d: shadow=a", "OK: ok 1 of 2/day"),
        ("d: shadow=a +2", "OK: ok 0 of 2/day"),
        ("d: shadow=a", "OK: ok 0 of 2/day"),
        ("d: shadow=a", "OK: ok 0 of 2/day"),
        ("d: shadow=a | none=x", "OVER: ok 0 of 2/day | over 0 of 0/day"),
        // What Envoy brings is another bucket, and is never watched only.
        ("d: five=a @1/day", "OK: ok 0 of 1/day"),
        ("d: five=a @1/day", "OVER: over 0 of 1/day"),
        ("d: five=a @2/day", "OK: ok 1 of 2/day"),
        ("d: shadow=a @1/day", "OK: ok 0 of 1/day"),
        ("d: shadow=a @1/day", "OVER: over 0 of 1/day"),
        ("d: five=a @0/day", "OVER: over 0 of 0/day"),
        // Quotas refuse together only, and are charged each for itself.
        ("d: q=one | q=two", "OK: ok 0 of 1/day | ok 1 of 2/day"),
        ("d: q=one | q=two", "OK: over 0 of 1/day | ok 0 of 2/day"),
        ("d: q=one | q=two", "OVER: over 0 of 1/day | over 0 of 2/day"),
        ("d: q=one | five=q", "OVER: over 0 of 1/day | ok 4 of 5/day"),
        ("d: q=one | unknown=x", "OVER: over 0 of 1/day | ok"),
        ("d: q=one | free=x", "OVER: over 0 of 1/day | ok unlimited"),
        ("d: sq=a | q=one", "OK: ok 0 of 1/day | over 0 of 1/day"),
        ("d: sq=a | q=one", "OK: ok 0 of 1/day | over 0 of 1/day"),
        ("d: sq=a | q=one | none=x", "OVER: ok 0 of 1/day | over 0 of 1/day | over 0 of 0/day"),
        // A limit that replaces others.
        ("d: banned=x", "OVER: over 0 of 0/day"),
        ("d: banned=x | five=r", "OVER: over 0 of 0/day | ok 5 of 5/day"),
        ("d: banned=x | pardon=a", "OK: ok | ok 1 of 2/day"),
        ("d: pardon=a | banned=x", "OK: ok 0 of 2/day | ok"),
        ("d: banned=x | pardon=a", "OVER: ok | over 0 of 2/day"),
        ("d: small=a | large=a", "OK: ok | ok 3 of 4/day"),
        ("d: small=a", "OK: ok 0 of 1/day"),
        ("d: small=a", "OVER: over 0 of 1/day"),
        ("d: small=a | large=a", "OK: ok | ok 2 of 4/day"),
        ("d: small=a | waived=x", "OK: ok | ok unlimited"),
        ("d: small=a | unknown=x", "OVER: over 0 of 1/day | ok"),
    ]),
    (&[("RLS_OVERDRAW", "false")], &[
        ("d: five=a +6", "OVER: over 0 of 5/day"),
        ("d: five=a +0", "OK: ok 5 of 5/day"),
    ]),
    (&[("SHADOW_MODE", "true")], &[
        ("d: two=a", "OK: ok 1 of 2/day"),
        ("d: two=a", "OK: ok 0 of 2/day"),
        ("d: two=a", "OK: over 0 of 2/day"),
        ("d: none=x | two=b", "OK: over 0 of 0/day | ok 2 of 2/day"),
        ("d: two=a @0/day", "OK: over 0 of 0/day"),
    ]),
    (&[("QUOTA_MODE", "1")], &[
        ("d: two=a | five=a", "OK: ok 1 of 2/day | ok 4 of 5/day"),
        ("d*2: two=a | five=a", "OK: over 0 of 2/day | ok 2 of 5/day"),
        ("d*3: two=a | five=a", "OVER: over 0 of 2/day | over 0 of 5/day"),
        ("d: five=a @1/day | none=x", "OK: ok 0 of 1/day | over 0 of 0/day"),
    ]),
];

/// A block holds also for who names his hits: there is nothing that could be owed.
#[tokio::test]
async fn who_is_blocked_is_refused() {
    let redis = Server::start();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("d.yaml"), SERVICE.replace("DOMAIN", "d")).unwrap();
    let edge = Edge::builder(&redis.url())
        .env("DECISION_TIMEOUT", "5s")
        .env("RLS_CONFIG", dir.path())
        .start();
    let client = Client::new(edge.grpc);
    assert_eq!(client.line("d: five=a +1").await, "OK: ok 4 of 5/day");
    let conn = &mut redis.connection();
    let [key]: [String; 1] = redis::cmd("KEYS").arg("*five*").query(conn).unwrap();
    let block = |for_a_time: &[&str]| {
        let mut block = redis::cmd("CL.POLICY");
        block.arg(&key).arg("CAPACITY").arg(0).arg(for_a_time);
        block
    };
    for block in [block(&[]), block(&["FOR", "600000"])] {
        block.exec(conn).unwrap();
        for request in ["d: five=a +1", "d: five=a +9", "d: five=a"] {
            assert_eq!(client.line(request).await, "OVER: over 0 of 5/day", "{request}");
        }
    }
}

#[tokio::test]
async fn what_a_service_decides() {
    for (settings, steps) in DECISIONS {
        let redis = Server::start();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("d.yaml"), SERVICE.replace("DOMAIN", "d")).unwrap();
        let edge =
            Edge::builder(&redis.url()).env("DECISION_TIMEOUT", "5s").env("RLS_CONFIG", dir.path());
        let edge = settings.iter().fold(edge, |edge, (name, value)| edge.env(name, value)).start();
        let client = Client::new(edge.grpc);
        for (row, (request, expected)) in steps.iter().enumerate() {
            assert_eq!(client.line(request).await, *expected, "{settings:?} {row}: {request}");
        }
    }
}
