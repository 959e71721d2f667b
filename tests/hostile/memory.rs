//! When there is no memory left, writers are refused before they do anything,
//! and readers go on.

use claw_testkit::{Server, cmd, digest, error, ints};
use redis::{Value, cmd as command};

const WRITERS: &[&str] = &[
    "CL.TAKE pinned",
    "CL.TAKE absent 1 CAPACITY 5 REFILL 5",
    "CL.GIVE pinned",
    "CL.TAKEALL pinned AND absent",
    "CL.POLICY pinned",
    "CL.POLICY pinned CAPACITY 7",
    "CL.POLICY pinned RESET",
    "CL.THROTTLE pinned 5 5 60",
];
const READERS: &[&str] =
    &["CL.PEEK pinned", "CL.PEEK absent", "CL.PEEK pinned 5 CAPACITY 3 REFILL 5"];

const CALL: &str = "return redis.call(unpack(ARGV))";
const PCALL: &str = "return redis.pcall(unpack(ARGV))";
const ALLOW_OOM: &str = "#!lua flags=allow-oom\nreturn redis.call(unpack(ARGV))";
const LIBRARY: &str = "#!lua name=memory\n\
    redis.register_function('through', function(_, args) return redis.call(unpack(args)) end)";

fn call(how: &[&str], line: &str) -> redis::Cmd {
    let mut cmd = redis::Cmd::new();
    cmd.arg(how).arg(line.split(' ').collect::<Vec<_>>());
    cmd
}

#[test]
fn without_memory_nothing_is_half_done() {
    let server = Server::start();
    let mut conn = server.connection();
    let loaded: String =
        command("FUNCTION").arg("LOAD").arg(LIBRARY).query(&mut conn).expect("it loads");
    assert_eq!(loaded, "memory");
    // Pinned, so that nothing expires meanwhile.
    cmd(&mut conn, "CL.POLICY pinned CAPACITY 10 REFILL 0 WEIGHT 3").expect("it is pinned");
    assert_eq!(ints(&mut conn, "CL.TAKE pinned 4"), [4, 10, 6, 0, -1]);
    cmd(&mut conn, "CONFIG SET maxmemory 1").expect("it is set");
    let before = digest(&mut conn);

    for line in WRITERS {
        assert!(error(&mut conn, line).starts_with("OOM "), "{line}");
        for how in [["EVAL", CALL, "0"], ["EVAL", PCALL, "0"], ["FCALL", "through", "0"]] {
            let refused = call(&how, line).query::<Value>(&mut conn).expect_err(line);
            assert_eq!(refused.code(), Some("OOM"), "{how:?} {line}");
        }
        cmd(&mut conn, "MULTI").expect("a transaction begins");
        assert!(error(&mut conn, line).starts_with("OOM "), "{line}");
        assert!(error(&mut conn, "EXEC").starts_with("EXECABORT "), "{line}");
        assert_eq!(digest(&mut conn), before, "{line}");
    }
    for line in READERS {
        let direct = ints(&mut conn, line);
        for how in [["EVAL", CALL, "0"], ["EVAL_RO", CALL, "0"]] {
            let scripted: Vec<i64> = call(&how, line).query(&mut conn).expect(line);
            assert_eq!(scripted, direct, "{how:?} {line}");
        }
    }
    assert_eq!(digest(&mut conn), before);

    let allowed: Vec<i64> =
        call(&["EVAL", ALLOW_OOM, "0"], "CL.TAKE pinned").query(&mut conn).expect("allowed");
    assert_eq!(allowed, [1, 10, 5, 0, -1]);
    cmd(&mut conn, "CONFIG SET maxmemory 0").expect("it is set");
    assert_eq!(ints(&mut conn, "CL.TAKE pinned"), [1, 10, 4, 0, -1]);
    let warnings = server.warnings();
    assert!(warnings.iter().all(|line| line.contains("maxmemory value")), "{warnings:?}");
}
