//! What region sync is configured with, and what it is sent as.

use crate::world::{PATIENCE, TICK, World, entries, field, share, status};
use claw_testkit::{Server, cmd, error, eventually, int, ints, module_path, run};
use std::fs;
use std::time::Duration;

#[test]
fn only_keys_that_match_are_shared() {
    let world = World::start_with(2, Duration::ZERO, &|_, builder| {
        builder.config("claw.sync-keys", "user:*")
    });
    let (conn, other) = (&mut world.connection(0), &mut world.connection(1));
    for key in ["user:1", "page:1"] {
        run(conn, &[&format!("CL.TAKE {key} 3 CAPACITY 10 REFILL 0")]);
    }
    eventually(PATIENCE, TICK, "the shared key", || int(other, "EXISTS user:1") == 1);
    world.wait_until_quiet();
    assert_eq!(int(other, "EXISTS page:1"), 0);
    assert_eq!(int(conn, "HEXISTS page:1 debits"), 0);
    // What comes in is taken only for keys that are shared here, and for no hash of somebody
    // else's; both sides count what was not.
    run(
        other,
        &["HSET page:2 user ann", "HSET user:2 name ann", "EXPIRE user:2 600", "SET user:3 x"],
    );
    run(conn, &["CONFIG SET claw.sync-keys *"]);
    for (key, refused) in [("page:1", 1), ("page:2", 2), ("user:2", 3), ("user:3", 4)] {
        eventually(PATIENCE, TICK, key, || {
            run(conn, &[&format!("CL.TAKE {key} 1 CAPACITY 1000000 REFILL 0")]);
            field(conn, "sync_states_refused") >= refused
                && field(other, "sync_states_rejected") >= refused
        });
        world.wait_until_quiet();
    }
    assert_eq!(int(other, "EXISTS page:1"), 0);
    assert_eq!(claw_testkit::ask::<Vec<String>>(other, "HGETALL page:2"), ["user", "ann"]);
    assert_eq!(claw_testkit::ask::<Vec<String>>(other, "HGETALL user:2"), ["name", "ann"]);
    assert!(int(other, "TTL user:2") > 500);
    assert_eq!(claw_testkit::ask::<String>(other, "GET user:3"), "x");
    // They are no reason to count the peer as away, and others go on.
    assert_eq!(share(conn), 1_000);
    run(other, &["CONFIG SET claw.sync-keys *"]);
    eventually(PATIENCE, TICK, "the other key", || {
        run(conn, &["CL.TAKE page:3 1 CAPACITY 10 REFILL 0"]);
        int(other, "EXISTS page:3") == 1
    });
}

/// What is excluded here stays apart, whatever a peer shares.
#[test]
fn excluded_keys_are_not_shared() {
    let world = World::start_with(2, Duration::ZERO, &|region, builder| {
        builder.config_args("claw.sync-keys", [["limit:* user:*", "limit:*  !limit:tmp:*"][region]])
    });
    let (conn, other) = (&mut world.connection(0), &mut world.connection(1));
    let keys = |conn: &mut redis::Connection| {
        claw_testkit::ask::<[String; 2]>(conn, "CONFIG GET claw.sync-keys")[1].clone()
    };
    assert_eq!(keys(other), "limit:* !limit:tmp:*");
    for key in ["limit:tmp:1", "user:1", "limit:1"] {
        run(conn, &[&format!("CL.TAKE {key} 3 CAPACITY 10 REFILL 0")]);
    }
    eventually(PATIENCE, TICK, "the shared key", || int(other, "EXISTS limit:1") == 1);
    eventually(PATIENCE, TICK, "the others to be refused", || {
        field(conn, "sync_states_refused") >= 2 && field(other, "sync_states_rejected") >= 2
    });
    assert_eq!(int(other, "EXISTS limit:tmp:1 user:1"), 0);
    let refused =
        ["ERR key 'limit:tmp:1' is not shared here", "ERR key 'user:1' is not shared here"];
    assert!(refused.contains(&status(conn, "peers")[0]["last_error"].as_str()));
    // What is taken of them there counts nothing for others.
    run(
        other,
        &["CL.TAKE limit:tmp:1 1 CAPACITY 10 REFILL 0", "CL.TAKE limit:1 1 CAPACITY 10 REFILL 0"],
    );
    eventually(PATIENCE, TICK, "the shared key", || {
        ints(conn, "CL.PEEK limit:1 0 CAPACITY 10 REFILL 0")[2] == 6
    });
    assert_eq!(
        (int(conn, "HEXISTS limit:tmp:1 debits"), int(other, "HEXISTS limit:tmp:1 debits")),
        (1, 0)
    );
    assert_eq!(ints(other, "CL.PEEK limit:tmp:1 0 CAPACITY 10 REFILL 0")[2], 9);
    // Exclusions alone leave all others.
    for conn in [&mut *conn, &mut *other] {
        claw_testkit::call(conn, &["CONFIG", "SET", "claw.sync-keys", "!limit:* !tmp:*"]).unwrap();
    }
    eventually(PATIENCE, TICK, "a key of the others", || {
        run(conn, &["CL.TAKE page:1 1 CAPACITY 1000000 REFILL 0"]);
        int(other, "EXISTS page:1") == 1
    });
    run(conn, &["CL.TAKE limit:2 1 CAPACITY 10 REFILL 0", "CL.TAKE tmp:2 1 CAPACITY 10 REFILL 0"]);
    assert_eq!((int(conn, "HEXISTS limit:2 debits"), int(conn, "HEXISTS tmp:2 debits")), (0, 0));
    assert_eq!(int(conn, "HEXISTS page:1 debits"), 1);
}

#[test]
fn every_database_is_covered() {
    let world = World::start(2, Duration::ZERO);
    let (conn, other) = (&mut world.connection(0), &mut world.connection(1));
    for db in [0, 3, 15] {
        run(
            conn,
            &[&format!("SELECT {db}"), &format!("CL.TAKE k {} CAPACITY 50 REFILL 0", db + 1)],
        );
    }
    for db in [0, 3, 15] {
        run(other, &[&format!("SELECT {db}")]);
        eventually(PATIENCE, TICK, &format!("database {db}"), || {
            ints(other, "CL.PEEK k 0 CAPACITY 50 REFILL 0")[2] == 49 - db
        });
    }
}

/// A user with no more rights than the documentation names, whose password is in a
/// file.
#[test]
fn a_user_with_the_least_rights_will_do() {
    let peer = Server::builder()
        .config("claw.replica-id", "far")
        .config("claw.peers", "redis://127.0.0.1:1")
        .start();
    let far = &mut peer.connection();
    run(far, &["ACL SETUSER claw on >s3cr3t -@all +cl.sync|states +cl.sync|round ~*"]);
    let near = Server::builder().start();
    let conn = &mut near.connection();
    let file = near.dir().join("password");
    fs::write(&file, "s3cr3t\n").unwrap();
    run(
        conn,
        &[
            &format!("CONFIG SET claw.peers-password-file {}", file.display()),
            &format!("CONFIG SET claw.peers redis://claw@127.0.0.1:{}", peer.port()),
            "CONFIG SET claw.replica-id near",
        ],
    );
    eventually(PATIENCE, TICK, "to be connected", || field(conn, "sync_peers_connected") == 1);
    run(conn, &["CL.TAKE k 4 CAPACITY 10 REFILL 0"]);
    eventually(PATIENCE, TICK, "the take to be known", || int(far, "EXISTS k") == 1);
    assert_eq!(ints(far, "CL.PEEK k 0 CAPACITY 10 REFILL 0")[2], 6);
    assert_eq!(status(conn, "peers")[0]["replica_id"], "far");
    // A wrong one is told, and shown nowhere.
    fs::write(&file, "wr0ng\n").unwrap();
    run(conn, &["CONFIG SET claw.sync-interval-ms 60"]);
    eventually(PATIENCE, TICK, "an error", || !status(conn, "peers")[0]["last_error"].is_empty());
    let texts = [format!("{:?}", cmd(conn, "CL.SYNC STATUS").unwrap()), near.log(), peer.log()];
    assert!(texts.iter().all(|text| !text.contains("s3cr3t") && !text.contains("wr0ng")));
}

#[test]
fn the_module_is_unloaded_with_sync_on() {
    let world = World::start(2, Duration::ZERO);
    let (conn, other) = (&mut world.connection(0), &mut world.connection(1));
    run(conn, &["CL.TAKE k 4 CAPACITY 10 REFILL 0"]);
    world.wait_until_quiet();
    run(conn, &["MODULE UNLOAD claw"]);
    assert!(error(conn, "CL.TAKE k").starts_with("ERR unknown command"));
    // The other side goes on, and so does this one when it is loaded again.
    run(other, &["CL.TAKE k 1 CAPACITY 10 REFILL 0"]);
    let load = format!(
        "MODULE LOADEX {} CONFIG claw.replica-id r0 ARGS sync-interval-ms 20",
        module_path().display()
    );
    run(conn, &[&load, &format!("CONFIG SET claw.peers {}", world.peers(0))]);
    world.wait_until_connected();
    eventually(PATIENCE, TICK, "both to agree", || {
        let left = world.left("CL.PEEK k 0 CAPACITY 10 REFILL 0");
        left == [5, 5]
    });
    // Also while a peer hangs; at most it has to be asked twice.
    world.set_cut(0, 1, true);
    run(conn, &["CL.TAKE k 1 CAPACITY 10 REFILL 0"]);
    eventually(PATIENCE, TICK, "to be unloaded", || cmd(conn, "MODULE UNLOAD claw").is_ok());
    assert_eq!(int(conn, "EXISTS k"), 1);
    world.no_warnings();
}

/// Where a server is named and has no peers, nothing is counted; where it is none
/// of both, nothing changes.
#[test]
fn without_peers_buckets_stay_as_they_are() {
    let server = Server::builder().config("claw.replica-id", "alone").start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k 4 CAPACITY 10 REFILL 0"]);
    assert_eq!(int(conn, "HLEN k"), 3);
    assert!(entries(conn, "k").is_empty());
    assert_eq!(
        error(conn, "CL.SYNC NOW"),
        "ERR region sync is off: claw.replica-id and claw.peers are not both set"
    );
}

/// Each region admits by its own rules, and every status names whose differ.
#[test]
fn regions_with_other_rules_are_named() {
    let world = World::start_with(2, Duration::ZERO, &|region, builder| {
        builder.config_args("claw.policies", [["api:* 100 0/1000", "api:* 50 0/1000"][region]])
    });
    let (conn, other) = (&mut world.connection(0), &mut world.connection(1));
    let rules = |conn: &mut redis::Connection, expected: &str| {
        eventually(PATIENCE, TICK, expected, || {
            let heard = status(conn, "heard");
            heard.len() == 1 && heard[0]["rules"] == expected
        });
    };
    for conn in [&mut *conn, &mut *other] {
        rules(conn, "differ");
        assert_eq!(field(conn, "sync_peers_rules_differ"), 1);
    }
    // What is taken is counted in both, each of its own limit, and no policy is stored. Where a
    // region first hears of a key that has another limit there, the bucket begins full.
    run(conn, &["CL.TAKE api:k 30"]);
    eventually(PATIENCE, TICK, "the key", || int(other, "EXISTS api:k") == 1);
    assert_eq!(ints(other, "CL.PEEK api:k 0")[1..3], [50, 50]);
    run(conn, &["CL.TAKE api:k 10"]);
    eventually(PATIENCE, TICK, "what was taken elsewhere", || {
        ints(other, "CL.PEEK api:k 0")[1..3] == [50, 40]
    });
    assert_eq!(ints(conn, "CL.PEEK api:k 0")[1..3], [100, 60]);
    for conn in [&mut *conn, &mut *other] {
        assert_eq!(int(conn, "HEXISTS api:k policy"), 0);
    }
    // The same rules, written otherwise.
    claw_testkit::call(other, &["CONFIG", "SET", "claw.policies", " api:*  1e2 0/1000;"]).unwrap();
    for conn in [&mut *conn, &mut *other] {
        rules(conn, "same");
        assert_eq!(field(conn, "sync_peers_rules_differ"), 0);
    }
    run(conn, &["CL.TAKE api:k 1"]);
    eventually(PATIENCE, TICK, "the same tokens", || {
        ints(other, "CL.PEEK api:k 0")[1..3] == [100, 59]
    });
}

/// Where the system gives no thread when sync is to begin, it begins when there are some.
#[test]
fn a_start_that_failed_is_tried_again() {
    let server = Server::builder().config("claw.replica-id", "here").start();
    let conn = &mut server.connection();
    let pid = libc::pid_t::try_from(server.pid()).unwrap();
    let limit_memory = |bytes: libc::rlim_t| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the limit is live, and the former one is not asked for.
        let done = unsafe { libc::prlimit(pid, libc::RLIMIT_AS, &limit, std::ptr::null_mut()) };
        assert_eq!(done, 0);
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let has = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let has: u64 = has.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    // Less than the stack of a thread has.
    limit_memory((has << 10) + (1 << 20));
    run(conn, &["CONFIG SET claw.peers redis://127.0.0.1:1"]);
    eventually(PATIENCE, TICK, "the log to say so", || {
        server.log().contains("region sync cannot start: cannot start a thread")
    });
    assert_eq!(field(conn, "sync_peers"), 0);
    limit_memory(libc::RLIM_INFINITY);
    eventually(PATIENCE, TICK, "sync to be on", || field(conn, "sync_peers") == 1);
}
