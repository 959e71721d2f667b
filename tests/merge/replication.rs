//! What replicas and the append only file get of a merge, and when merged buckets expire.

use crate::buckets::random_bucket;
use crate::calls::{load_example, merge_state, now_us, state};
use claw_testkit::{
    Random, Server, ask, call, cmd, digest, error, int, ints, run, wait_for_offset,
};
use std::fs;

/// Replicas and the AOF get hash writes, and neither merges nor functions.
#[test]
fn only_effects_are_replicated() {
    let master = Server::builder().config("appendonly", "yes").start();
    let replica = Server::replica_of(&master).start();
    let conn = &mut master.connection();
    load_example(conn, "premium-first.lua");
    load_example(conn, "published-weighted.lua");
    let random = &mut Random::new(5);
    let mut changed = 0;
    for round in 0..200 {
        let now = now_us();
        let (dst, src) = (format!("d{}", round % 10), format!("s{}", round % 7));
        random_bucket(random, &src, now, false).exec(conn).unwrap();
        let strategy = *random.pick(&[
            "max",
            "min",
            "weighted",
            "lww",
            "fn:premium_first",
            "fn:published_weighted",
        ]);
        let mut answers = vec![
            ints(conn, &format!("CL.MERGE {dst} FROM 1 {src} STRATEGY {strategy}")),
            ints(
                conn,
                &format!("CL.MERGE {dst} FIELDS tokens 50 userWeight 2 STRATEGY {strategy}"),
            ),
        ];
        let mut blob = state(conn, &src);
        blob[0] += 1;
        blob.extend_from_slice(b"\xa5later\x01");
        answers.push(merge_state(conn, &dst, &[blob], strategy));
        changed += answers.iter().map(|answer| answer[0]).sum::<i64>();
    }
    assert!(changed > 100, "{changed}");
    run(conn, &["MULTI", "CL.MERGE d1 FROM 1 s1 STRATEGY fn:premium_first", "EXEC"]);
    // Nothing that is near its expiry is to vanish meanwhile.
    for key in ask::<Vec<String>>(conn, "KEYS *") {
        run(conn, &[&format!("PERSIST {key}")]);
    }
    wait_for_offset(&master, &replica);
    let other = &mut replica.connection();
    assert_eq!(digest(other), digest(conn));
    let stats: String = redis::cmd("INFO").arg("commandstats").query(other).unwrap();
    for command in ["cl.merge", "fcall"] {
        assert!(!stats.contains(&format!("cmdstat_{command}")), "{stats}");
    }
    assert!(stats.contains("cmdstat_hset"), "{stats}");
    // A replica reads and checks, and does not merge.
    assert!(error(other, "CL.MERGE d1 FROM 1 s1").starts_with("READONLY "));
    assert_eq!(cmd(other, "CL.STATE d1").unwrap(), cmd(conn, "CL.STATE d1").unwrap());
    assert!(cmd(other, "CL.VERIFY fn:premium_first SAMPLES 10").is_ok());
    assert_eq!(replica.warnings(), Vec::<String>::new());

    let mut aof = Vec::new();
    for entry in fs::read_dir(master.dir().join("appendonlydir")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().ends_with(".incr.aof") {
            aof.extend(fs::read(path).unwrap().to_ascii_lowercase());
        }
    }
    let has = |word: &str| aof.windows(word.len()).any(|window| window == word.as_bytes());
    assert!(has("hset") && !has("cl.merge") && !has("fcall"));
    let before = digest(conn);
    let master = master.restart();
    assert_eq!(digest(&mut master.connection()), before);
}

/// Merged buckets expire as taken ones do.
#[test]
fn merged_buckets_expire_like_others() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.MERGE plain FIELDS tokens 400"]);
    // 600 are missing, 5 come a second: 120 s, half of that, and 2 s.
    let ttl = int(conn, "PTTL plain");
    assert!((120_000..=183_000).contains(&ttl), "{ttl}");
    for (field, value) in
        [("userWeight", "2"), ("policy", "500 0/1000"), ("policy", "100 5/1000 pinned 1")]
    {
        run(conn, &["DEL kept"]);
        call(conn, &["CL.MERGE", "kept", "FIELDS", "tokens", "400", field, value]).unwrap();
        assert_eq!(int(conn, "PTTL kept"), -1, "{field} {value}");
    }
    run(conn, &["HSET mine note hello", "CL.MERGE mine FIELDS tokens 400 STRATEGY min"]);
    assert_eq!(int(conn, "PTTL mine"), -1);
    // A weight that comes in by a merge keeps the key from then on.
    run(conn, &["CL.MERGE plain FIELDS tokens 1000 userWeight 3 STRATEGY weighted"]);
    assert_eq!(int(conn, "PTTL plain"), -1);
    // A state so old that it has long been full does not stay.
    run(conn, &["CL.MERGE old FIELDS tokens 1 timestamp 1"]);
    let ttl = int(conn, "PTTL old");
    assert!(ttl != -1 && ttl <= 4_000, "{ttl}");
}
