//! Full and partial resyncs under load.

use crate::common::clients::Clients;
use crate::common::{PATIENCE, TICK, assert_equal, assert_sound};
use crate::servers::{master, no_other_warnings, stat};
use claw_testkit::{Builder, Server, cmd, error, eventually, info_field, ints, run, soak};

#[test]
fn a_full_resync_under_load_ends_equal() {
    // How the master sends its data, and how the replica loads them.
    for (send, load) in [("no", "disabled"), ("yes", "disabled"), ("yes", "swapdb")] {
        let master = master()
            .config("repl-diskless-sync", send)
            // In microseconds: makes the save last while commands come in.
            .config("rdb-key-save-delay", "200")
            .start();
        let clients = Clients::of(&master, 10);
        let replica = |builder: Builder| builder.config("repl-diskless-load", load).start();
        let replicas = clients.under_load(|| {
            clients.go_on(2_000);
            let with = replica(Server::replica_of(&master));
            clients.go_on(1_000);
            let without = replica(Server::replica_of(&master).without_module());
            clients.go_on(1_000);
            // Once more, over data that is there already.
            cmd(&mut with.connection(), "REPLICAOF NO ONE").unwrap();
            cmd(&mut with.connection(), "CL.TAKE only-here").unwrap();
            let full = stat(&master, "sync_full");
            cmd(&mut with.connection(), &format!("REPLICAOF 127.0.0.1 {}", master.port())).unwrap();
            eventually(PATIENCE, TICK, "another full resync", || {
                stat(&master, "sync_full") > full
                    && info_field(&mut with.connection(), "replication", "master_link_status")
                        .as_deref()
                        == Some("up")
            });
            clients.go_on(1_000);
            [with, without]
        });
        for replica in &replicas {
            assert_equal(&master, replica);
            assert_sound(replica);
        }
        no_other_warnings(&master);
    }
}

#[test]
fn a_partial_resync_under_load_ends_equal() {
    let master = master().start();
    let clients = Clients::of(&master, 20);
    let with = Server::replica_of(&master).start();
    let without = Server::replica_of(&master).without_module().start();
    let full = stat(&master, "sync_full");
    clients.under_load(|| {
        for round in 0..4 * soak() {
            clients.go_on(1_000);
            let partial = stat(&master, "sync_partial_ok");
            match round % 2 {
                // Either side may break the connection.
                0 => cmd(&mut master.connection(), "CLIENT KILL TYPE replica").unwrap(),
                _ => {
                    cmd(&mut with.connection(), "CLIENT KILL TYPE master").unwrap();
                    cmd(&mut without.connection(), "CLIENT KILL TYPE master").unwrap()
                }
            };
            eventually(PATIENCE, TICK, "both replicas to be back", || {
                stat(&master, "sync_partial_ok") >= partial + 2
            });
        }
        clients.go_on(1_000);
    });
    assert_eq!(stat(&master, "sync_full"), full);
    for replica in [&with, &without] {
        assert_equal(&master, replica);
        assert_sound(replica);
    }
    no_other_warnings(&master);
}

/// With `repl-diskless-load swapdb` a replica answers from what it has while it loads what
/// its master sends, and then from that; as a primary it goes on where its master was.
#[test]
fn a_replica_answers_while_it_loads() {
    const LOOK: &str = "CL.PEEK k 0 CAPACITY 100 REFILL 0";
    const TAKE: &str = "CL.TAKE k 10 CAPACITY 100 REFILL 0";
    // Too small for what will be missed.
    let master = master().config("repl-backlog-size", "16kb").config("save", "").start();
    let replica = Server::replica_of(&master)
        .config("repl-diskless-load", "swapdb")
        .config("loading-process-events-interval-bytes", "1024")
        // In microseconds: a second for what is there.
        .config("key-load-delay", "1000")
        .start();
    let (ours, theirs) = (&mut master.connection(), &mut replica.connection());
    for key in 0..1_000 {
        run(ours, &[&format!("CL.TAKE other:{key} 1 CAPACITY 100 REFILL 0")]);
    }
    run(ours, &[TAKE]);
    assert_equal(&master, &replica);
    let missed = "redis.call('HSET', 'missed', 'x', string.rep('x', 100000))";
    let mut away = redis::pipe();
    away.atomic().cmd("CLIENT").arg(&["KILL", "TYPE", "replica"]);
    for _ in 0..50 {
        away.cmd("EVAL").arg(missed).arg(0);
    }
    away.cmd("CL.TAKE").arg("k").arg(10).exec(ours).unwrap();
    eventually(PATIENCE, TICK, "the replica to load beside what it has", || {
        info_field(theirs, "persistence", "async_loading").unwrap() == "1"
    });
    assert_eq!(ints(theirs, LOOK)[2], 90, "what it had");
    assert_eq!(info_field(theirs, "persistence", "async_loading").unwrap(), "1");
    assert!(error(theirs, TAKE).starts_with("READONLY "));
    eventually(PATIENCE, TICK, "what the master has", || ints(theirs, LOOK)[2] == 80);
    assert_equal(&master, &replica);
    run(theirs, &["REPLICAOF NO ONE"]);
    assert_eq!(ints(theirs, TAKE)[..3], [10, 100, 70]);
    assert_sound(&replica);
}
