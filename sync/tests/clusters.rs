//! Peers that are Redis Clusters: routing, slots that move, masters that die.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use claw_sync::PeerState;
use claw_testkit::{Cluster, run, slot_of};
use common::*;
use std::time::Duration;

fn cluster(replicas_each: usize) -> Cluster {
    Cluster::start_with(3, replicas_each, |node| node.without_module())
}

fn stored(cluster: &Cluster, key: &str) -> Option<String> {
    let mut conn = cluster.cluster_client().get_connection().ok()?;
    redis::cmd("HGET").arg(key).arg("state").query(&mut conn).ok()?
}

fn await_stored(cluster: &Cluster, key: &str, expected: &str) {
    soon(&format!("{key} to be {expected}"), || stored(cluster, key).as_deref() == Some(expected));
}

#[test]
fn states_go_to_the_master_of_their_slot() {
    let cluster = cluster(0);
    let (pusher, owner) = start(config([cluster.nodes()[1].url()]));
    settle(&pusher);
    for n in 0..1000 {
        note(&pusher, 0, &format!("k{n}"), &n.to_string());
        note(&pusher, 0, &format!("{{tag}}{n}"), &n.to_string());
    }
    await_status(&pusher, "all to be sent", |all| all[0].states_sent == 2000);
    for n in [0, 1, 2, 999] {
        await_stored(&cluster, &format!("k{n}"), &n.to_string());
        await_stored(&cluster, &format!("{{tag}}{n}"), &n.to_string());
    }
    let status = status(&pusher, 0);
    assert_eq!((status.errors, status.connections), (0, 3));
    // Each round has a heartbeat to every master.
    let opening = owner.rounds.lock().unwrap().iter().filter(|round| round.opening).count();
    assert_eq!(opening, 3);
    stop(pusher);
}

#[test]
fn the_least_rights_on_a_cluster() {
    let cluster = cluster(0);
    for node in cluster.nodes() {
        run(
            &mut node.connection(),
            &["ACL SETUSER region on >pw -@all +eval +hset +echo +cluster|slots +asking ~*"],
        );
    }
    let url = format!("redis://region:pw@127.0.0.1:{}", cluster.nodes()[0].port());
    let (pusher, owner) = start_with(config([url]), "ECHO x");
    settle(&pusher);
    for key in ["a", "b", "c", "d"] {
        note(&pusher, 0, key, "1");
        await_stored(&cluster, key, "1");
    }
    let slot = slot_of("new");
    let from = cluster.node_for_slot(slot);
    cluster.begin_migration(slot, from, (from + 1) % 3);
    note(&pusher, 0, "new", "1");
    await_status(&pusher, "the state to be sent", |all| all[0].states_sent == 5);
    assert_eq!(status(&pusher, 0).errors, 0);
    soon("a complete round", || owner.complete(0) > 0);
    stop(pusher);
}

#[test]
fn without_the_right_to_ask_for_the_slots_it_is_told() {
    let cluster = cluster(0);
    for node in cluster.nodes() {
        run(&mut node.connection(), &["ACL SETUSER region on >pw -@all +eval +hset +echo ~*"]);
    }
    let slot = slot_of("k");
    let other = (cluster.node_for_slot(slot) + 1) % 3;
    let url = format!("redis://region:pw@127.0.0.1:{}", cluster.nodes()[other].port());
    let (pusher, _) = start_with(config([url]), "ECHO x");
    settle(&pusher);
    note(&pusher, 0, "k", "1");
    await_status(&pusher, "the reason to show", |all| {
        all[0].last_error.as_ref().is_some_and(|e| e.contains("needs the right to CLUSTER SLOTS"))
    });
    assert_eq!(status(&pusher, 0).states_refused, 0);
    stop(pusher);
}

#[test]
fn slots_move_while_states_are_sent() {
    let cluster = cluster(0);
    let (pusher, owner) = start(config([cluster.nodes()[0].url()]));
    settle(&pusher);
    let slot = slot_of("{x}");
    let from = cluster.node_for_slot(slot);
    let to = (from + 1) % 3;
    note(&pusher, 0, "{x}old", "1");
    await_stored(&cluster, "{x}old", "1");

    cluster.begin_migration(slot, from, to);
    // One is still where it was, the other is to be asked for at the new place.
    note(&pusher, 0, "{x}old", "2");
    note(&pusher, 0, "{x}new", "2");
    note(&pusher, 0, "y", "2");
    await_status(&pusher, "all to be sent", |all| all[0].states_sent == 4);
    let before = owner.complete(0);
    soon("complete rounds go on", || owner.complete(0) > before);
    cluster.move_keys(slot, from, to);
    note(&pusher, 0, "{x}old", "3");
    await_status(&pusher, "all to be sent", |all| all[0].states_sent == 5);
    cluster.finish_migration(slot, from, to);
    note(&pusher, 0, "{x}old", "4");
    note(&pusher, 0, "{x}new", "4");
    await_stored(&cluster, "{x}old", "4");
    await_stored(&cluster, "{x}new", "4");
    await_stored(&cluster, "y", "2");
    await_status(&pusher, "nothing to wait", |all| all[0].queued == 0);
    assert_eq!(status(&pusher, 0).states_refused, 0);
    assert!(!pusher.needs_resend(), "no process is new");
    stop(pusher);
}

/// It hears us, though it has no key of ours, and nothing has failed.
#[test]
fn a_master_that_has_been_given_slots_is_found() {
    let mut cluster = cluster(0);
    let (pusher, _) = start(config([cluster.nodes()[0].url()]));
    settle(&pusher);
    let new = cluster.join(|node| node.without_module());
    assert_eq!(status(&pusher, 0).connections, 3);
    cluster.migrate_slot(0, cluster.node_for_slot(0), new);
    await_status(&pusher, "a connection to it", |all| all[0].connections == 4);
    assert_eq!(status(&pusher, 0).errors, 0);
    stop(pusher);
}

/// It is asked for what is not where it was any more, and kept for that while it has no slots.
#[test]
fn a_master_that_gets_its_first_slot() {
    let mut cluster = cluster(0);
    let (pusher, owner) = start(config([cluster.nodes()[0].url()]));
    settle(&pusher);
    let new = cluster.join(|node| node.without_module());
    let slot = slot_of("{x}");
    let from = cluster.node_for_slot(slot);
    cluster.begin_migration(slot, from, new);
    note(&pusher, 0, "{x}new", "1");
    await_status(&pusher, "the state to be sent", |all| all[0].states_sent == 1);
    resend(&pusher, &[]);
    // The slots are asked for meanwhile, more than once.
    let before = owner.complete(0);
    soon("many rounds", || owner.complete(0) > before + 600);
    note(&pusher, 0, "{x}new", "2");
    await_status(&pusher, "the state to be sent", |all| all[0].states_sent == 2);
    cluster.finish_migration(slot, from, new);
    note(&pusher, 0, "{x}new", "3");
    await_stored(&cluster, "{x}new", "3");
    let status = status(&pusher, 0);
    assert_eq!((status.connections, status.errors), (4, 0));
    assert!(!pusher.needs_resend(), "it was met once");
    stop(pusher);
}

#[test]
fn a_master_that_dies_holds_up_only_its_own_slots() {
    let mut cluster = cluster(1);
    let (pusher, owner) = start(config([cluster.nodes()[0].url()]));
    settle(&pusher);
    let slot = slot_of("gone");
    let victim = cluster.node_for_slot(slot);
    let well = ["a", "b", "c", "d", "e", "f"]
        .into_iter()
        .find(|key| cluster.node_for_slot(slot_of(key)) != victim)
        .unwrap();
    cluster.kill(victim);
    note(&pusher, 0, "gone", "1");
    note(&pusher, 0, well, "1");
    let holder = cluster.node_for_slot(slot_of(well));
    soon("the other master to have its state", || {
        let mut conn = cluster.nodes()[holder].connection();
        redis::cmd("HGET").arg(well).arg("state").query::<Option<String>>(&mut conn).unwrap()
            == Some("1".into())
    });
    await_status(&pusher, "the loss to show", |all| {
        all[0].state == PeerState::Partial && all[0].lag > Duration::ZERO
    });
    // The others are complete, and are told so.
    let before = owner.complete(0);
    soon("complete rounds with the others", || owner.complete(0) > before);

    soon("the failover", || cluster.owner_of_slot(slot).is_some_and(|node| node != victim));
    // The new master may lack what the old one had not passed on.
    soon("a walk to be asked for", || pusher.needs_resend());
    resend(&pusher, &[(0, "gone", "2")]);
    await_stored(&cluster, "gone", "2");
    await_status(&pusher, "all to be well", |all| {
        all[0].state == PeerState::Connected && !all[0].lacking && all[0].queued == 0
    });
    cluster.revive(victim);
    cluster.wait_until_ok();
    note(&pusher, 0, "gone", "3");
    await_stored(&cluster, "gone", "3");
    stop(pusher);
}

#[test]
fn the_node_that_was_configured_may_die() {
    let mut cluster = cluster(1);
    let (pusher, _) = start(config([cluster.nodes()[0].url()]));
    settle(&pusher);
    let slots = ["a", "b", "c", "d", "e", "f", "g"];
    cluster.kill(0);
    soon("the failover", || {
        slots.iter().all(|key| cluster.owner_of_slot(slot_of(key)).is_some_and(|node| node != 0))
    });
    for key in slots {
        note(&pusher, 0, key, "1");
    }
    for key in slots {
        await_stored(&cluster, key, "1");
    }
    stop(pusher);
}

/// It answers that there are no slots at all, and is a cluster of its own from then on.
#[test]
fn the_node_that_was_configured_may_leave() {
    let mut cluster = cluster(0);
    let first = cluster.join(|node| node.without_module());
    let (pusher, _) = start(config([cluster.nodes()[first].url()]));
    settle(&pusher);
    for key in ["a", "b", "c", "d"] {
        note(&pusher, 0, key, "1");
        await_stored(&cluster, key, "1");
    }
    run(&mut cluster.nodes()[first].connection(), &["CLUSTER RESET"]);
    // All connections are lost: the one that was configured is asked before the others.
    let connections = status(&pusher, 0).connections;
    for node in cluster.nodes() {
        run(&mut node.connection(), &["CLIENT KILL TYPE normal"]);
    }
    await_status(&pusher, "other connections", |all| all[0].connections > connections);
    for key in ["a", "b", "c", "d"] {
        note(&pusher, 0, key, "2");
        await_stored(&cluster, key, "2");
    }
    await_status(&pusher, "all to be well", |all| all[0].state == PeerState::Connected);
    stop(pusher);
}

/// It is cut off from its cluster and knows nothing of who has its slots now. Another one does.
#[test]
fn a_master_that_has_lost_its_cluster_is_asked_last() {
    let (lost, well) = (listen(), listen());
    let url = format!("redis://127.0.0.1:{}", port(&lost));
    let before = slots(&[(0, 16_382, port(&lost)), (16_383, 16_383, port(&well))]);
    let now = slots(&[(0, 16_383, port(&well))]);
    let node = |slots: String, states: &'static str| {
        move |word: &str| match word {
            "CLUSTER" => slots.clone(),
            "EVAL" => states.to_owned(),
            _ => "+x\r\n".to_owned(),
        }
    };
    answer(lost, node(before, "-CLUSTERDOWN The cluster is down\r\n"));
    answer(well, node(now, "*1\r\n:1\r\n"));
    let (pusher, _) = start_with(config([url]), "ECHO x");
    await_connected(&pusher);
    note(&pusher, 0, "k", "1");
    await_status(&pusher, "the state to be sent", |all| all[0].states_sent == 1);
    stop(pusher);
}
