//! Replicas, without the module.

use claw_testkit::{Server, cmd, digest, error, info_field, int, wait_for_offset};

#[test]
fn a_replica_has_what_its_master_has() {
    let master = Server::builder().without_module().start();
    int(&mut master.connection(), "INCR before");
    let replica = Server::replica_of(&master).start();
    assert_eq!(digest(&mut replica.connection()), digest(&mut master.connection()));
    for _ in 0..1000 {
        int(&mut master.connection(), "INCR n");
    }
    wait_for_offset(&master, &replica);
    assert_eq!(digest(&mut replica.connection()), digest(&mut master.connection()));
    assert!(error(&mut replica.connection(), "INCR n").starts_with("READONLY "));
    assert_eq!(master.warnings(), Vec::<String>::new());
    assert_eq!(replica.warnings(), Vec::<String>::new());

    let replica = replica.restart();
    int(&mut master.connection(), "INCR n");
    wait_for_offset(&master, &replica);

    // Without its master it can still be restarted and promoted.
    drop(master);
    let replica = replica.restart();
    cmd(&mut replica.connection(), "REPLICAOF NO ONE").unwrap();
    let role = info_field(&mut replica.connection(), "replication", "role");
    assert_eq!(role.as_deref(), Some("master"));
}
