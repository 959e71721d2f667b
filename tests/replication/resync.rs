//! Full and partial resyncs under load.

use crate::common::clients::Clients;
use crate::common::{PATIENCE, TICK, assert_equal, assert_sound};
use crate::servers::{master, no_other_warnings, stat};
use claw_testkit::{Builder, Server, cmd, eventually, info_field, soak};

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
