//! What arrives at a single server, when, and what is told about it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use claw_sync::{Limits, PeerState, Pusher, StartError};
use claw_testkit::{Server, ask, info_field, run};
use common::*;
use std::time::{Duration, Instant};

#[test]
fn the_last_state_of_a_key_is_sent_once() {
    let server = plain();
    let (pusher, _) = start(claw_sync::Config { interval: NEVER, ..config([server.url()]) });
    settle(&pusher);
    for n in 0..=1000 {
        note(&pusher, 0, "k", &n.to_string());
    }
    pusher.flush();
    await_state(&server, 0, "k", "1000");
    await_status(&pusher, "the state to be counted", |all| all[0].states_sent == 1);
    assert_eq!(calls(&server, "hset"), 1);
    stop(pusher);
}

/// How often a server was given a command.
fn calls(server: &Server, command: &str) -> usize {
    let field = format!("cmdstat_{command}");
    let stats = info_field(&mut server.connection(), "commandstats", &field).unwrap();
    stats.strip_prefix("calls=").and_then(|rest| rest.split(',').next()).unwrap().parse().unwrap()
}

#[test]
fn keys_and_states_are_any_bytes() {
    let server = plain();
    let (pusher, _) = start(config([server.url()]));
    await_connected(&pusher);
    for (key, text) in [("", ""), ("a b\r\n", "\r\n\0"), ("{x}é", "*3\r\n$3\r\n")] {
        note(&pusher, 0, key, text);
        await_state(&server, 0, key, text);
    }
    let large = "x".repeat(5 << 20);
    note(&pusher, 0, "large", &large);
    await_state(&server, 0, "large", &large);
    stop(pusher);
}

#[test]
fn every_database_gets_its_own() {
    let server = plain();
    let (pusher, _) = start(claw_sync::Config { interval: NEVER, ..config([server.url()]) });
    settle(&pusher);
    for round in ["one", "two"] {
        for db in [0, 3, 15, 1] {
            for key in ["a", "b"] {
                note(&pusher, db, key, &format!("{round} {db} {key}"));
            }
        }
        pusher.flush();
        await_status(&pusher, "the round to end", |all| all[0].queued == 0);
        for db in [0, 1, 3, 15] {
            await_state(&server, db, "a", &format!("{round} {db} a"));
            await_state(&server, db, "b", &format!("{round} {db} b"));
        }
    }
    await_status(&pusher, "each to be sent once", |all| all[0].states_sent == 16);
    stop(pusher);
}

#[test]
fn a_database_that_the_peer_does_not_have_harms_no_other() {
    let server = plain();
    let (pusher, owner) = start(config([server.url()]));
    settle(&pusher);
    note(&pusher, 1, "k", "yes");
    note(&pusher, 99, "k", "no");
    note(&pusher, 0, "k", "yes");
    await_status(&pusher, "one to be refused", |all| all[0].states_refused == 1);
    await_state(&server, 1, "k", "yes");
    await_state(&server, 0, "k", "yes");
    let before = owner.complete(0);
    soon("more rounds", || owner.complete(0) > before);
    let error = status(&pusher, 0).last_error.unwrap();
    assert_eq!(error, "SELECT 99: ERR DB index is out of range");
    assert_eq!(ask::<Vec<String>>(&mut server.connection(), "KEYS *"), ["k"]);
    stop(pusher);
}

#[test]
fn many_states_go_in_chunks() {
    let server = plain();
    let limits = Limits { chunk_states: 7, chunk_bytes: 300, ..limits() };
    let (pusher, _) = start(claw_sync::Config { limits, ..config([server.url()]) });
    settle(&pusher);
    for n in 0..20_000 {
        note(&pusher, n % 2, &format!("k{n}"), &n.to_string());
    }
    await_status(&pusher, "all to be sent", |all| all[0].states_sent == 20_000);
    let mut conn = server.connection();
    assert_eq!(ask::<usize>(&mut conn, "DBSIZE"), 10_000);
    assert_eq!(state(&server, 1, "k19999").as_deref(), Some("19999"));
    soon("nothing to wait", || pusher.unacknowledged_for() == Duration::ZERO);
    stop(pusher);
}

#[test]
fn one_command_has_many_states_of_one_database() {
    let server = plain();
    let (pusher, _) = start(claw_sync::Config { interval: NEVER, ..config([server.url()]) });
    settle(&pusher);
    let flushed = |sent| {
        pusher.flush();
        await_status(&pusher, "all to be sent", |all| all[0].states_sent == sent);
        calls(&server, "eval")
    };
    for n in 0..200 {
        note(&pusher, n % 2, &format!("k{n}"), &n.to_string());
    }
    // Twice 64 and 36.
    assert_eq!(flushed(200), 4);
    for n in 0..200_u32 {
        assert_eq!(state(&server, n % 2, &format!("k{n}")), Some(n.to_string()));
    }
    // What is sent is completed in that moment, each by itself.
    for n in 0..3 {
        note(&pusher, 0, &format!("stamped{n}"), &format!("?{n}"));
    }
    assert_eq!(flushed(203), 5);
    for n in 0..3 {
        assert_eq!(state(&server, 0, &format!("stamped{n}")), Some(format!("!{n}")));
    }
    // Of these two are more than 64 KiB.
    let long = "x".repeat(40_000);
    for n in 0..3 {
        note(&pusher, 0, &format!("long{n}"), &long);
    }
    assert_eq!(flushed(206), 8);
    stop(pusher);

    let limits = Limits { states_per_command: 3, ..limits() };
    let (pusher, _) =
        start(claw_sync::Config { limits, interval: NEVER, ..config([server.url()]) });
    settle(&pusher);
    for n in 0..7 {
        note(&pusher, 0, &format!("k{n}"), "again");
    }
    pusher.flush();
    await_status(&pusher, "all to be sent", |all| all[0].states_sent == 7);
    assert_eq!(calls(&server, "eval"), 11);
    stop(pusher);
}

#[test]
fn a_reply_that_is_not_about_each_state_is_a_failure() {
    let server = plain();
    for reply in ["return 1", "return {1}", "return {1, 1, 1}", "return {1, 'x'}"] {
        let owner = Owner::with("INFO server", ["EVAL", reply, "1"].map(Vec::from).to_vec());
        let pusher =
            Pusher::start(claw_sync::Config { interval: NEVER, ..config([server.url()]) }, owner)
                .unwrap();
        settle(&pusher);
        note(&pusher, 0, "a", "1");
        note(&pusher, 0, "b", "1");
        pusher.flush();
        await_status(&pusher, "the failure to show", |all| {
            all[0].last_error.as_ref().is_some_and(|e| e.starts_with("a reply to states"))
        });
        let status = status(&pusher, 0);
        assert_eq!(
            (status.states_sent, status.states_refused, status.queued),
            (0, 0, 2),
            "{reply}"
        );
        stop(pusher);
    }
}

#[test]
fn a_key_that_is_refused_holds_up_no_other() {
    let server = plain();
    run(&mut server.connection(), &["SET k1 text"]);
    let (pusher, owner) = start(claw_sync::Config { interval: NEVER, ..config([server.url()]) });
    settle(&pusher);
    for n in 0..3 {
        note(&pusher, 0, &format!("k{n}"), "x");
    }
    let before = owner.complete(0);
    pusher.flush();
    await_status(&pusher, "all to be dealt with", |all| all[0].queued == 0);
    // Refused for good: the round is complete nevertheless.
    soon("a complete round", || owner.complete(0) > before);
    let status = status(&pusher, 0);
    assert_eq!((status.states_sent, status.states_refused), (2, 1));
    let error = status.last_error.unwrap();
    assert!(error.starts_with("WRONGTYPE "), "{error}");
    assert_eq!(status.state, PeerState::Connected);
    soon("nothing to wait", || pusher.unacknowledged_for() == Duration::ZERO);
    stop(pusher);
}

#[test]
fn a_refusal_that_passes_keeps_the_state_and_the_round_open() {
    let server = plain();
    let (pusher, owner) = start(config([server.url()]));
    settle(&pusher);
    run(&mut server.connection(), &["CONFIG SET maxmemory 1"]);
    note(&pusher, 0, "k", "1");
    await_status(&pusher, "the refusal to show", |all| {
        all[0].last_error.as_ref().is_some_and(|error| error.starts_with("OOM "))
    });
    soon("time to pass", || pusher.unacknowledged_for() > Duration::from_millis(300));
    let before = owner.complete(0);
    note(&pusher, 0, "k", "2");
    await_status(&pusher, "another attempt", |all| all[0].errors > 2);
    assert_eq!(owner.complete(0), before, "a round was called complete");
    // Two while the first is on its way.
    await_status(&pusher, "the later to replace the first", |all| all[0].queued == 1);
    run(&mut server.connection(), &["CONFIG SET maxmemory 0"]);
    await_state(&server, 0, "k", "2");
    soon("a complete round", || owner.complete(0) > before);
    assert_eq!(status(&pusher, 0).states_refused, 0);
    soon("nothing to wait", || pusher.unacknowledged_for() == Duration::ZERO);
    stop(pusher);
}

#[test]
fn with_nothing_to_send_a_round_is_its_heartbeat() {
    let server = plain();
    let (pusher, owner) = start_with(config([server.url()]), "ECHO hello");
    settle(&pusher);
    let before = owner.complete(0);
    soon("ten rounds", || owner.complete(0) >= before + 10);
    let status = status(&pusher, 0);
    assert_eq!((status.states_sent, status.errors, status.connections), (0, 0, 1));
    assert!(status.rounds >= 10 && status.bytes_sent > 0);
    assert!(status.round_trip > Duration::ZERO);
    assert_eq!((status.replica, status.last_error), (None, None));
    let rounds = owner.rounds.lock().unwrap();
    assert!(rounds[0].opening && !rounds[0].complete);
    assert!(!rounds.iter().skip(1).any(|round| round.opening));
    assert!(rounds.iter().skip(1).is_sorted_by_key(|round| round.noted_until));
    stop(pusher);
}

#[test]
fn no_round_is_complete_before_the_walk_has_arrived() {
    let server = plain();
    let (pusher, owner) = start(claw_sync::Config { interval: NEVER, ..config([server.url()]) });
    await_connected(&pusher);
    let rounds = |n: u64| await_status(&pusher, "a round", |all| all[0].rounds >= n);
    soon("a walk to be asked for", || pusher.needs_resend());
    // The one at the start; the others are those of the test.
    let mut seen = 1;
    rounds(seen);
    note(&pusher, 0, "a", "1");
    let mut flushed = |what: &str, complete: bool| {
        pusher.flush();
        seen += 1;
        rounds(seen);
        assert_eq!(owner.complete(0) > 0, complete, "{what}");
        assert_eq!(status(&pusher, 0).lacking, !complete, "{what}");
    };
    flushed("before the walk", false);
    pusher.resend_begins();
    assert!(!pusher.needs_resend());
    flushed("the walk has begun", false);
    note(&pusher, 0, "b", "1");
    flushed("the walk is under way", false);
    pusher.resend_ends();
    flushed("the walk has ended", true);
    assert_eq!(state(&server, 0, "b").as_deref(), Some("1"));
    stop(pusher);
}

#[test]
fn a_peer_that_comes_back_empty_is_told_everything() {
    let mut server = plain();
    let (pusher, owner) = start(config([server.url()]));
    await_connected(&pusher);
    resend(&pusher, &[(0, "a", "1"), (0, "b", "1")]);
    await_status(&pusher, "the walk to arrive", |all| !all[0].lacking);
    server.crash();
    note(&pusher, 0, "b", "2");
    await_status(&pusher, "the loss to be noticed", |all| all[0].state == PeerState::BackingOff);
    soon("time to pass", || pusher.unacknowledged_for() > Duration::from_millis(200));
    assert!(!pusher.needs_resend(), "nobody is there to be told");
    let before = owner.complete(0);
    let server = server.restart();
    // What was waiting comes by itself, the rest is asked for.
    await_state(&server, 0, "b", "2");
    soon("a walk to be asked for", || pusher.needs_resend());
    assert_eq!(owner.complete(0), before, "a round was called complete");
    resend(&pusher, &[(0, "a", "1"), (0, "b", "2")]);
    await_state(&server, 0, "a", "1");
    soon("a complete round", || owner.complete(0) > before);
    soon("nothing to wait", || pusher.unacknowledged_for() == Duration::ZERO);
    assert_eq!(status(&pusher, 0).replica.as_deref(), Some("a-server"));
    stop(pusher);
}

#[test]
fn a_connection_that_is_cut_is_made_again_without_a_resend() {
    let server = plain();
    let (pusher, _) = start(config([server.url()]));
    settle(&pusher);
    let mut conn = server.connection();
    for n in 1..=3 {
        run(&mut conn, &["CLIENT KILL TYPE normal SKIPME yes"]);
        note(&pusher, 0, "k", &n.to_string());
        await_state(&server, 0, "k", &n.to_string());
    }
    assert!(!pusher.needs_resend());
    stop(pusher);
}

#[test]
fn a_peer_that_is_not_there_yet_is_told_when_it_comes() {
    let port = claw_testkit::free_port();
    let (pusher, _) = start(config([format!("redis://localhost:{port}")]));
    note(&pusher, 0, "k", "early");
    await_status(&pusher, "a failed attempt", |all| all[0].state == PeerState::BackingOff);
    soon("time to pass", || pusher.unacknowledged_for() > Duration::from_millis(100));
    // It needs a walk anyway, so nothing is kept for it.
    assert_eq!(status(&pusher, 0).queued, 0);
    let error = status(&pusher, 0).last_error.unwrap();
    assert!(error.contains("onnection refused"), "{error}");
    let server = Server::builder().without_module().port(port).start();
    resend(&pusher, &[(0, "k", "late")]);
    await_state(&server, 0, "k", "late");
    soon("nothing to wait", || pusher.unacknowledged_for() == Duration::ZERO);
    stop(pusher);
}

#[test]
fn an_overrun_drops_the_backlog_and_asks_for_a_walk() {
    let server = plain();
    for limits in [Limits { entries: 10, ..limits() }, Limits { bytes: 2_000, ..limits() }] {
        let (pusher, owner) = start(claw_sync::Config { limits, ..config([server.url()]) });
        settle(&pusher);
        run(&mut server.connection(), &["CONFIG SET maxmemory 1"]);
        for n in 0..100 {
            note(&pusher, 0, &format!("k{n}"), "x");
        }
        run(&mut server.connection(), &["CONFIG SET maxmemory 0"]);
        await_connected(&pusher);
        soon("a walk to be asked for", || pusher.needs_resend());
        let status = status(&pusher, 0);
        assert!(status.overruns > 0 && status.lacking);
        assert!(pusher.unacknowledged_for() > Duration::ZERO);
        let before = owner.complete(0);
        // More than once, should the peer fail again in between.
        soon("the walk to arrive", || {
            if pusher.needs_resend() {
                resend(&pusher, &[(0, "k99", "y")]);
            }
            // A round that was under way may have been called complete, too.
            owner.complete(0) > before && state(&server, 0, "k99").as_deref() == Some("y")
        });
        soon("nothing to wait", || pusher.unacknowledged_for() == Duration::ZERO);
        stop(pusher);
    }
}

#[test]
fn an_overrun_during_a_walk_asks_for_another() {
    let server = plain();
    let limits = Limits { entries: 10, ..limits() };
    let (pusher, owner) =
        start(claw_sync::Config { limits, interval: NEVER, ..config([server.url()]) });
    await_connected(&pusher);
    soon("a walk to be asked for", || pusher.needs_resend());
    pusher.resend_begins();
    for n in 0..20 {
        note(&pusher, 0, &format!("k{n}"), "x");
    }
    pusher.resend_ends();
    pusher.flush();
    soon("another walk to be asked for", || pusher.needs_resend());
    assert_eq!(owner.complete(0), 0);
    stop(pusher);
}

#[test]
fn a_peer_that_lacks_the_command_is_waited_for() {
    let server = plain();
    let owner = Owner::with("INFO server", words("CL.NOSUCH STATES"));
    let pusher = Pusher::start(config([server.url()]), owner).unwrap();
    settle(&pusher);
    note(&pusher, 0, "k", "1");
    await_status(&pusher, "the refusal to show", |all| {
        all[0].last_error.as_ref().is_some_and(|e| e.starts_with("ERR unknown command"))
    });
    await_status(&pusher, "another attempt", |all| all[0].errors > 2);
    let status = status(&pusher, 0);
    assert_eq!((status.states_refused, status.refusing.as_deref()), (0, Some("ERR")));
    stop(pusher);
}

#[test]
fn a_heartbeat_that_is_refused_is_a_failure_one_that_is_withheld_is_none() {
    let server = plain();
    let (pusher, _) = start_with(config([server.url()]), "CL.NOSUCH");
    await_status(&pusher, "the refusal to show", |all| {
        let error = all[0].last_error.as_deref().unwrap_or_default();
        // The text shows a moment before the state does.
        error.starts_with("heartbeat: ERR unknown command") && all[0].state == PeerState::BackingOff
    });
    stop(pusher);
    let owner = Owner::new("CL.NOSUCH");
    owner.silent.store(true, std::sync::atomic::Ordering::Relaxed);
    let pusher = Pusher::start(config([server.url()]), owner).unwrap();
    settle(&pusher);
    note(&pusher, 0, "k", "1");
    await_state(&server, 0, "k", "1");
    stop(pusher);
}

#[test]
fn a_panic_costs_a_batch_and_not_the_peer() {
    let server = plain();
    let pusher = Pusher::start(config([server.url()]), Owner::new("PING")).unwrap();
    soon("a walk to be asked for", || pusher.needs_resend());
    pusher.resend_begins();
    note(&pusher, 0, "k", BOMB);
    pusher.resend_ends();
    soon("the panic to be told", || {
        pusher.status()[0].last_error.as_ref().is_some_and(|e| e.contains("panic"))
    });
    soon("another walk to be asked for", || pusher.needs_resend());
    pusher.resend_begins();
    note(&pusher, 0, "k", "fine");
    pusher.resend_ends();
    await_state(&server, 0, "k", "fine");
    soon("nothing to lack", || !pusher.status()[0].lacking);
    assert!(pusher.stop(PATIENCE).is_ok());
}

#[test]
fn states_of_real_buckets_merge() {
    let here = Server::start();
    let there = Server::builder()
        .config("claw.replica-id", "there")
        .config("claw.peers", "redis://127.0.0.1:1")
        .config("claw.sync-strategy", "min")
        .start();
    let mut conn = here.connection();
    run(&mut conn, &["CL.TAKE b 30 CAPACITY 100 REFILL 0"]);
    let blob: Vec<u8> = ask(&mut conn, "CL.STATE b");
    let owner = Owner::with("PING", words("CL.SYNC STATES here 1 min here"));
    let pusher = Pusher::start(config([there.url()]), owner).unwrap();
    soon("a walk to be asked for", || pusher.needs_resend());
    pusher.note(0, b"b", &[&blob]);
    note(&pusher, 0, "c", "nonsense");
    soon("the bucket to arrive", || {
        let look = ["b", "0", "CAPACITY", "100", "REFILL", "0"];
        redis::cmd("CL.PEEK").arg(&look).query::<Vec<i64>>(&mut there.connection()).unwrap()[2]
            == 70
    });
    soon("the refusal to be counted", || pusher.status()[0].states_refused == 1);
    assert!(pusher.stop(PATIENCE).is_ok());
    assert_eq!(there.warnings(), Vec::<String>::new());
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let without = Pusher::start(config(["redis://127.0.0.1:1"]), Owner::with("PING", Vec::new()));
    assert!(matches!(without, Err(StartError::NoCommand)));
    let urls = (1..=16).map(|port| format!("redis://127.0.0.1:{port}"));
    let many = Pusher::start(config(urls), Owner::new("PING"));
    assert!(matches!(many, Err(StartError::TooManyPeers)));
}

#[test]
fn draining_waits_until_connected_peers_have_everything() {
    let (server, other) = (plain(), plain());
    let nobody = format!("redis://127.0.0.1:{}", claw_testkit::free_port());
    let urls = [server.url(), other.url(), nobody];
    let (pusher, _) = start(claw_sync::Config { interval: NEVER, ..config(urls) });
    await_status(&pusher, "two to be connected", |all| {
        all[..2].iter().all(|peer| peer.state == PeerState::Connected)
            && all[2].state == PeerState::BackingOff
    });
    note(&pusher, 0, "k", "0");
    assert!(!pusher.drain(PATIENCE), "they lack what only a walk brings");
    resend(&pusher, &[]);
    for n in 0..5_000 {
        note(&pusher, n % 2, &format!("k{n}"), &n.to_string());
    }
    assert!(pusher.drain(PATIENCE));
    for server in [&server, &other] {
        assert_eq!(state(server, 0, "k0").as_deref(), Some("0"));
        assert_eq!(state(server, 1, "k4999").as_deref(), Some("4999"));
    }

    signal(&other, libc::SIGSTOP);
    note(&pusher, 0, "k", "1");
    let began = Instant::now();
    assert!(!pusher.drain(Duration::from_millis(300)));
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(state(&server, 0, "k").as_deref(), Some("1"));
    signal(&other, libc::SIGCONT);
    assert!(pusher.drain(PATIENCE));
    assert_eq!(state(&other, 0, "k").as_deref(), Some("1"));

    // Waiting for one that refuses would be in vain.
    run(&mut other.connection(), &["CONFIG SET maxmemory 1"]);
    note(&pusher, 0, "k", "2");
    assert!(!pusher.drain(Duration::from_secs(3600)));
    assert_eq!(state(&server, 0, "k").as_deref(), Some("2"));
    stop(pusher);
}

#[test]
fn without_peers_nothing_happens() {
    let (pusher, _) = start(config::<&str>([]));
    note(&pusher, 0, "k", "1");
    pusher.flush();
    assert!(!pusher.needs_resend());
    assert!(pusher.drain(Duration::from_secs(3600)));
    assert_eq!(pusher.unacknowledged_for(), Duration::ZERO);
    assert!(pusher.status().is_empty());
    stop(pusher);
}

/// A process that is stopped takes what it is sent and answers later.
#[test]
fn what_is_noted_while_all_peers_are_busy_is_sent_once_and_not_forgotten() {
    let (server, other) = (plain(), plain());
    let (pusher, _) = start(config([server.url()]));
    settle(&pusher);
    signal(&server, libc::SIGSTOP);
    note(&pusher, 0, "first", "1");
    await_status(&pusher, "a round to be under way", |all| all[0].queued == 1);
    for n in 0..1_000 {
        for key in ["a", "b", "c"] {
            note(&pusher, 0, key, &n.to_string());
        }
    }
    await_status(&pusher, "the others to wait", |all| all[0].queued == 4);
    assert_eq!(pusher.longest_queue(), 4);
    assert!(
        status(&pusher, 0).lag > Duration::ZERO && pusher.unacknowledged_for() > Duration::ZERO
    );
    signal(&server, libc::SIGCONT);
    for key in ["a", "b", "c"] {
        await_state(&server, 0, key, "999");
    }
    await_status(&pusher, "nothing to wait", |all| all[0].queued == 0 && all[0].states_sent == 4);
    stop(pusher);

    // One that is there is not kept waiting for one that is busy.
    let (pusher, _) = start(config([server.url(), other.url()]));
    settle(&pusher);
    signal(&server, libc::SIGSTOP);
    for n in 0..20 {
        note(&pusher, 0, "k", &n.to_string());
        await_state(&other, 0, "k", &n.to_string());
    }
    signal(&server, libc::SIGCONT);
    await_state(&server, 0, "k", "19");
    stop(pusher);
}
