//! A panic in a command is an error reply, and the server goes on.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use claw_testkit::{Server, cmd, digest, error, info_field, ints, wire_error};
use redis::{Connection, Value, cmd as command};

/// The module with `CL.PANIC`, a command that panics.
fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        // Apart from the other builds, which have other features.
        let target = env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
        let target = root.join(target).join("panic-probe");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--lib", "--package", "redis-claw"])
            .args(["--features", "panic-probe", "--target-dir"])
            .arg(&target)
            .current_dir(root)
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the module with CL.PANIC cannot be built");
        let module = target.join("debug/libredis_claw.so");
        assert!(module.is_file(), "no module at {}", module.display());
        module
    })
}

fn server() -> Server {
    // With backtraces the log would be all there is to see.
    Server::builder().module(probe()).env("RUST_BACKTRACE", "0").start()
}

fn is_caught(text: &str) -> bool {
    text.starts_with("ERR internal error: a panic was caught")
}

/// The server has caught so many panics, said so, and had no other trouble.
fn logged(server: &Server, panics: usize) {
    let warnings = server.warnings();
    let expected = "# <claw> a panic was caught in cl.panic";
    assert!(warnings.iter().all(|line| line.ends_with(expected)), "{warnings:?}");
    assert_eq!(warnings.len(), panics);
}

fn goes_on(conn: &mut Connection) {
    let before = ints(conn, "CL.PEEK k 0")[2];
    assert_eq!(ints(conn, "CL.TAKE k")[..3], [1, 1_000, before - 1]);
}

#[test]
fn a_panic_is_an_error_reply() {
    let server = server();
    let mut conn = server.connection();
    // Nothing refills, so that a number says how often something was taken.
    cmd(&mut conn, "CL.POLICY k REFILL 0").expect("it is pinned");
    goes_on(&mut conn);

    let text = error(&mut conn, "CL.PANIC");
    assert!(is_caught(&text), "{text}");
    goes_on(&mut conn);
    // Also for whoever speaks RESP3.
    let text = error(&mut server.connection_resp3(), "CL.PANIC");
    assert!(is_caught(&text), "{text}");
    goes_on(&mut server.connection());
    logged(&server, 2);
}

#[test]
fn a_panic_in_a_transaction_leaves_the_rest_of_it() {
    let server = server();
    let mut conn = server.connection();
    let answer = redis::pipe()
        .atomic()
        .ignore_errors()
        .add_command(command("CL.TAKE").arg("k").clone())
        .add_command(command("CL.PANIC"))
        .add_command(command("CL.TAKE").arg("k").clone())
        .query::<Vec<Value>>(&mut conn)
        .expect("the transaction is executed");
    let taken = |left: i64| [1, 1_000, left, 0].map(Value::Int);
    assert!(matches!(&answer[0], Value::Array(five) if five[..4] == taken(999)), "{answer:?}");
    assert!(
        matches!(&answer[1], Value::ServerError(e)
            if e.code() == "ERR" && e.details().is_some_and(|text| text.starts_with("internal"))),
        "{answer:?}"
    );
    assert!(matches!(&answer[2], Value::Array(five) if five[..4] == taken(998)), "{answer:?}");
    logged(&server, 1);
}

#[test]
fn a_script_can_catch_it() {
    let server = server();
    let mut conn = server.connection();
    let mut eval = |script: &str| command("EVAL").arg(script).arg(0).query::<Value>(&mut conn);

    let caught = eval(
        "local e = redis.pcall('CL.PANIC') \
         local t = redis.call('CL.TAKE', 'k') \
         return {e['err'], t[1], t[3]}",
    );
    let Ok(Value::Array(items)) = &caught else { panic!("{caught:?}") };
    let Value::BulkString(text) = &items[0] else { panic!("{caught:?}") };
    assert!(is_caught(&String::from_utf8_lossy(text)), "{caught:?}");
    assert_eq!(items[1..], [Value::Int(1), Value::Int(999)]);

    // Or leave it alone.
    let uncaught = eval("redis.call('CL.PANIC') return redis.call('CL.TAKE', 'k')");
    let text = wire_error(&uncaught.expect_err("the script ends")).expect("an answer");
    assert!(is_caught(&text), "{text}");
    goes_on(&mut conn);
    logged(&server, 2);
}

#[test]
fn many_panics_cost_no_memory_and_write_nothing() {
    const MANY: usize = 2_000;
    let server = server();
    let mut conn = server.connection();
    cmd(&mut conn, "CL.POLICY k CAPACITY 5").expect("it is pinned");
    let used = |conn: &mut Connection| -> u64 {
        let used = info_field(conn, "memory", "used_memory").expect("memory is used");
        used.parse().expect("a number")
    };
    assert!(is_caught(&error(&mut conn, "CL.PANIC")));
    let (data, memory) = (digest(&mut conn), used(&mut conn));
    for _ in 1..MANY {
        assert!(is_caught(&error(&mut conn, "CL.PANIC")));
    }
    assert_eq!(digest(&mut conn), data);
    let grown = used(&mut conn).saturating_sub(memory);
    assert!(grown < 64 * MANY as u64, "{grown} bytes for {MANY} panics");
    logged(&server, MANY);
}

#[test]
fn a_release_cannot_be_made_to_panic() {
    let server = Server::start();
    let text = error(&mut server.connection(), "CL.PANIC");
    assert!(text.starts_with("ERR unknown command"), "{text}");
}
