//! Clusters, without the module.

use std::time::Duration;

use claw_testkit::{Cluster, cmd, error, eventually, int, slot_of};
use redis::Commands;

#[test]
fn three_masters_share_the_slots() {
    let cluster = Cluster::start_with(3, 0, |node| node.without_module());
    assert_eq!(cluster.nodes().len(), 3);
    for node in cluster.nodes() {
        assert_eq!(node.warnings(), Vec::<String>::new());
    }
    assert_eq!(cluster.node_for_slot(0), 0);
    assert_eq!(cluster.node_for_slot(16_383), 2);
    let mut conn = cluster.cluster_client().get_connection().unwrap();
    for key in ["a", "b", "c", "x{a}", "{}", "{", "k}{é}"] {
        let slot = int(&mut cluster.nodes()[0].connection(), &format!("CLUSTER KEYSLOT {key}"));
        assert_eq!(i64::from(slot_of(key)), slot, "{key}");
        conn.set::<_, _, ()>(key, 1).unwrap();
    }

    let slot = slot_of("a");
    let from = cluster.node_for_slot(slot);
    let to = (from + 1) % 3;
    for n in 0..250 {
        conn.set::<_, _, ()>(format!("{{a}}{n}"), n).unwrap();
    }
    let mut old = cluster.nodes()[from].connection();
    let port = cluster.nodes()[to].port();

    cluster.begin_migration(slot, from, to);
    assert_eq!(error(&mut old, "GET {a}none"), format!("ASK {slot} 127.0.0.1:{port}"));
    // The keys written above: a, x{a} and the 250.
    assert_eq!(cluster.move_keys(slot, from, to), 252);
    cluster.finish_migration(slot, from, to);
    assert_eq!(cluster.node_for_slot(slot), to);
    assert_eq!(error(&mut old, "GET a"), format!("MOVED {slot} 127.0.0.1:{port}"));
    assert_eq!(conn.get::<_, i64>("{a}249").unwrap(), 249);

    cluster.migrate_slot(slot, to, from);
    assert_eq!(cluster.node_for_slot(slot), from);
    cmd(&mut old, "GET a").unwrap();
    for node in cluster.nodes() {
        assert_eq!(node.warnings(), Vec::<String>::new());
    }
}

#[test]
fn a_replica_takes_over_from_its_master() {
    let mut cluster = Cluster::start_with(3, 1, |node| node.without_module());
    let slot = slot_of("k");
    let master = cluster.node_for_slot(slot);
    let replicas = cluster.replicas_of(master);
    assert_eq!(replicas.len(), 1);
    assert!(replicas[0] >= 3);

    cluster.kill(master);
    assert_eq!(cluster.owner_of_slot(slot), None);
    eventually(
        Duration::from_secs(30),
        Duration::from_millis(50),
        "the replica to take over",
        || cluster.owner_of_slot(slot) == Some(replicas[0]),
    );
    cluster.wait_until_ok();
    let mut conn = cluster.cluster_client().get_connection().unwrap();
    conn.set::<_, _, ()>("k", 1).unwrap();

    cluster.revive(master);
    eventually(
        Duration::from_secs(30),
        Duration::from_millis(50),
        "the old master to become a replica",
        || cluster.replicas_of(replicas[0]) == [master],
    );
    cluster.wait_until_ok();
}
