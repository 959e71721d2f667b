//! Peers that answer, and refuse what they are sent.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

mod common;

use claw_sync::{Config, Limits, PeerState, Pusher};
use claw_testkit::{Cluster, Server, run, slot_of};
use common::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn await_refusing(pusher: &Pusher, code: &str) {
    await_status(pusher, code, |all| all[0].refusing.as_deref() == Some(code));
}

/// Takes what it has not taken within [`HEALING`] of accepting again, and has said why not.
fn refuses_and_heals(server: &Server, url: String, code: &str, refuse: &[&str], accept: &[&str]) {
    let (pusher, owner) = start(config([url]));
    settle(&pusher);
    assert_eq!((pusher.refusing().count(), status(&pusher, 0).refusing), (0, None));
    run(&mut server.connection(), refuse);
    note(&pusher, 0, "k", code);
    await_refusing(&pusher, code);
    assert_eq!(pusher.refusing().collect::<Vec<_>>(), [(0, Some("a-server".to_owned()))]);
    // Long enough for the waits between attempts to be as long as they ever are.
    let errors = status(&pusher, 0).errors;
    await_status(&pusher, "more attempts", |all| all[0].errors >= errors + 5);
    assert_eq!(status(&pusher, 0).refusing.as_deref(), Some(code));
    run(&mut server.connection(), accept);
    let accepted = Instant::now();
    let before = owner.complete(0);
    soon("the state to arrive", || state(server, 0, "k").as_deref() == Some(code));
    soon("a complete round", || owner.complete(0) > before);
    assert!(accepted.elapsed() < HEALING, "{code}: {:?}", accepted.elapsed());
    await_status(&pusher, "nothing to be refused", |all| all[0].refusing.is_none());
    assert_eq!(pusher.refusing().count(), 0);
    assert!(!pusher.needs_resend(), "{code}");
    stop(pusher);
}

#[test]
fn the_reason_is_told_and_what_was_refused_arrives_soon_after_it_is_gone() {
    let server = plain();
    for (code, refuse, accept) in [
        ("OOM", "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("NOREPLICAS", "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
        ("READONLY", "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    ] {
        // A replica that is cut off serves what it has, and says who it is.
        refuses_and_heals(&server, server.url(), code, &[refuse], &[accept]);
    }
    run(&mut server.connection(), &["ACL SETUSER region on >pw +@all ~*"]);
    let url = format!("redis://region:pw@127.0.0.1:{}", server.port());
    let kill = "CLIENT KILL USER region";
    for (code, refuse, accept) in [
        ("NOPERM", vec!["ACL SETUSER region -eval"], "ACL SETUSER region +eval"),
        // The heartbeat.
        ("NOPERM", vec!["ACL SETUSER region -info"], "ACL SETUSER region +info"),
        ("WRONGPASS", vec!["ACL SETUSER region <pw", kill], "ACL SETUSER region >pw"),
    ] {
        refuses_and_heals(&server, url.clone(), code, &refuse, &[accept]);
    }
}

/// Answers everything with one reply, and is no cluster when that is no error.
fn answers(reply: &Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let reply = Arc::clone(reply);
    let serve = |mut stream: TcpStream, reply: Arc<Mutex<String>>| {
        let mut command = [0; 4_096];
        // One command at a time: the pusher awaits each reply.
        while let Ok(read @ 1..) = stream.read(&mut command) {
            let asks_for_slots = command[..read].windows(5).any(|word| word == b"SLOTS");
            let reply = match reply.lock().unwrap().as_str() {
                "+OK" if asks_for_slots => "-ERR no cluster\r\n".to_owned(),
                reply => format!("{reply}\r\n"),
            };
            if stream.write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
    };
    // They end with the process of the test.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, reply) = (stream.unwrap(), Arc::clone(&reply));
            std::thread::spawn(move || serve(stream, reply));
        }
    });
    format!("redis://:pw@{address}")
}

#[test]
fn a_server_that_has_answered_nothing_but_errors_is_connected_soon() {
    for code in ["LOADING", "MISCONF", "NOAUTH", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "DENIED"] {
        let reply = Arc::new(Mutex::new(format!("-{code} part of the test")));
        let (pusher, _) = start_with(config([answers(&reply)]), "PING");
        await_refusing(&pusher, code);
        assert_eq!(pusher.refusing().collect::<Vec<_>>(), [(0, None)]);
        await_status(&pusher, "more attempts", |all| all[0].errors >= 6);
        *reply.lock().unwrap() = "+OK".into();
        let well = Instant::now();
        await_connected(&pusher);
        assert!(well.elapsed() < HEALING, "{code}: {:?}", well.elapsed());
        assert_eq!(status(&pusher, 0).refusing, None);
        stop(pusher);
    }
}

#[test]
fn one_that_refuses_states_hears_that_we_are_alive() {
    let server = plain();
    let (pusher, owner) = start(config([server.url()]));
    settle(&pusher);
    run(&mut server.connection(), &["CONFIG SET maxmemory 1"]);
    note(&pusher, 0, "k", "1");
    await_refusing(&pusher, "OOM");
    let rounds = || owner.rounds.lock().unwrap().len();
    let (before, complete) = (rounds(), owner.complete(0));
    let connections = status(&pusher, 0).connections;
    soon("a hundred rounds", || rounds() >= before + 100);
    assert_eq!(owner.complete(0), complete);
    let told = owner.rounds.lock().unwrap();
    assert!(!told.iter().skip(before).any(|round| round.opening));
    drop(told);
    let status = status(&pusher, 0);
    assert_eq!((status.state, status.connections), (PeerState::Connected, connections));
    assert_eq!((status.queued, status.states_refused), (1, 0));
    stop(pusher);
}

/// A peer that does not answer, and one that is not there, refuse nothing.
#[test]
fn silence_is_no_refusal() {
    let mut server = plain();
    let limits = Limits { io_timeout: Duration::from_millis(300), ..limits() };
    let (pusher, _) = start(Config { limits, ..config([server.url()]) });
    settle(&pusher);
    run(&mut server.connection(), &["CONFIG SET maxmemory 1"]);
    note(&pusher, 0, "k", "1");
    await_refusing(&pusher, "OOM");
    signal(&server, libc::SIGSTOP);
    await_status(&pusher, "the silence", |all| {
        all[0].state == PeerState::BackingOff && all[0].refusing.is_none()
    });
    signal(&server, libc::SIGCONT);
    await_refusing(&pusher, "OOM");
    server.crash();
    await_status(&pusher, "the loss", |all| {
        all[0].state == PeerState::BackingOff && all[0].refusing.is_none()
    });
    stop(pusher);
}

/// As [`STORE`], but for keys that begin with `bad`.
const PARTLY: &str = "\
    local replies, key = {}, KEYS[1] \
    for at = 1, #ARGV, 2 do \
        local bad = string.sub(key, 1, 3) == 'bad' and redis.call('EXISTS', 'allowed') == 0 \
        replies[#replies + 1] = bad and redis.error_reply('NOPERM part of the test') \
            or redis.pcall('HSET', key, 'state', ARGV[at]) \
        key = ARGV[at + 1] \
    end \
    return replies";

#[test]
fn states_are_judged_one_by_one() {
    let server = plain();
    let owner = Owner::with("INFO server", ["EVAL", PARTLY, "1"].map(Vec::from).to_vec());
    let limits = Limits { chunk_states: 100, ..limits() };
    let pusher = Pusher::start(
        Config { interval: NEVER, limits, ..config([server.url()]) },
        Arc::clone(&owner) as Arc<dyn claw_sync::Messages>,
    )
    .unwrap();
    settle(&pusher);
    run(&mut server.connection(), &["SET text text"]);
    for n in 0..1_000 {
        note(&pusher, 0, &format!("k{n}"), "x");
        if n % 50 == 0 {
            note(&pusher, 0, &format!("bad{n}"), "x");
        }
    }
    note(&pusher, 0, "text", "x");
    pusher.flush();
    // One round brings everything that is taken. It ends after what it sent was counted.
    await_status(&pusher, "the good ones to arrive", |all| {
        all[0].states_sent == 1_000 && all[0].queued == 20
    });
    let status = status(&pusher, 0);
    assert_eq!((status.states_refused, status.queued), (1, 20));
    assert_eq!(status.refusing.as_deref(), Some("NOPERM"));
    run(&mut server.connection(), &["SET allowed 1"]);
    await_status(&pusher, "the others to arrive", |all| {
        all[0].states_sent == 1_020 && all[0].refusing.is_none()
    });
    stop(pusher);
}

/// Nobody walks over all buckets for a peer that takes none; and it is tried nevertheless.
#[test]
fn a_backlog_that_overruns_meanwhile_asks_for_a_walk_once_states_are_taken() {
    let server = plain();
    let limits = Limits { entries: 10, ..limits() };
    let (pusher, owner) = start(Config { limits, ..config([server.url()]) });
    settle(&pusher);
    run(&mut server.connection(), &["CONFIG SET maxmemory 1"]);
    note(&pusher, 0, "k", "1");
    await_refusing(&pusher, "OOM");
    for n in 0..100 {
        note(&pusher, 0, &format!("k{n}"), "x");
        pusher.flush();
    }
    await_status(&pusher, "the overrun", |all| all[0].overruns > 0 && all[0].lacking);
    let errors = status(&pusher, 0).errors;
    await_status(&pusher, "more attempts", |all| all[0].errors >= errors + 3);
    assert_eq!(status(&pusher, 0).refusing.as_deref(), Some("OOM"));
    assert!(!pusher.needs_resend());
    // A walk for another peer does not wait for this one.
    assert_eq!(pusher.longest_queue(), 0);
    let before = owner.complete(0);
    run(&mut server.connection(), &["CONFIG SET maxmemory 0"]);
    let accepted = Instant::now();
    soon("a walk to be asked for", || pusher.needs_resend());
    assert!(accepted.elapsed() < HEALING, "{:?}", accepted.elapsed());
    resend(&pusher, &[(0, "k99", "y")]);
    await_state(&server, 0, "k99", "y");
    soon("a complete round", || owner.complete(0) > before);
    stop(pusher);
}

#[test]
fn a_node_that_refuses_holds_up_only_its_own_slots() {
    let cluster = Cluster::start_with(3, 0, |node| node.without_module());
    let (pusher, owner) = start(config([cluster.nodes()[0].url()]));
    settle(&pusher);
    let full = cluster.node_for_slot(slot_of("full"));
    run(&mut cluster.nodes()[full].connection(), &["CONFIG SET maxmemory 1"]);
    note(&pusher, 0, "full", "1");
    await_refusing(&pusher, "OOM");
    let before = owner.complete(0);
    let sent = status(&pusher, 0).states_sent;
    let others: Vec<String> = (0..100)
        .map(|n| format!("k{n}"))
        .filter(|key| cluster.node_for_slot(slot_of(key)) != full)
        .collect();
    for key in &others {
        note(&pusher, 0, key, "1");
    }
    let expected = sent + u64::try_from(others.len()).unwrap();
    await_status(&pusher, "the others to get theirs", |all| all[0].states_sent == expected);
    soon("complete rounds with the others", || owner.complete(0) > before + 10);
    let all = status(&pusher, 0);
    assert_eq!((all.state, all.queued), (PeerState::Connected, 1));
    assert_eq!(all.refusing.as_deref(), Some("OOM"));
    run(&mut cluster.nodes()[full].connection(), &["CONFIG SET maxmemory 0"]);
    await_status(&pusher, "nothing to be refused", |all| {
        all[0].states_sent == expected + 1 && all[0].refusing.is_none()
    });
    stop(pusher);
}
