//! Peers that hang, and how they are left alone.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use claw_sync::{Limits, PeerState};
use common::*;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Time-outs so long that nothing but a shutdown ends the waiting in time.
fn patient() -> Limits {
    let long = Duration::from_secs(600);
    Limits { connect_timeout: long, io_timeout: long, ..Limits::default() }
}

#[test]
fn a_peer_that_hangs_disturbs_no_other() {
    let (hanging, well) = (plain(), plain());
    let limits = Limits::default();
    let (pusher, owner) =
        start(claw_sync::Config { limits, ..config([hanging.url(), well.url()]) });
    settle(&pusher);
    signal(&hanging, libc::SIGSTOP);
    note(&pusher, 0, "k", "1");
    await_state(&well, 0, "k", "1");
    await_status(&pusher, "the time-out", |all| {
        all[0].last_error.as_ref().is_some_and(|error| error.contains("timed out"))
    });
    note(&pusher, 0, "k", "2");
    await_state(&well, 0, "k", "2");
    let before = owner.complete(1);
    soon("rounds with the other", || owner.complete(1) > before);
    await_status(&pusher, "only the one to lag", |all| {
        all[0].lag > Duration::ZERO && all[1].lag == Duration::ZERO
    });
    assert!(pusher.unacknowledged_for() > Duration::ZERO);
    signal(&hanging, libc::SIGCONT);
    await_state(&hanging, 0, "k", "2");
    soon("nothing to wait", || pusher.unacknowledged_for() == Duration::ZERO);
    stop(pusher);
}

#[test]
fn a_peer_that_was_suspended_is_whole_again_soon_after_it_is_back() {
    let server = plain();
    let limits = Limits::default();
    let (pusher, owner) = start(claw_sync::Config { limits, ..config([server.url()]) });
    await_connected(&pusher);
    resend(&pusher, &[(0, "old", "1")]);
    await_status(&pusher, "the walk to arrive", |all| !all[0].lacking);
    signal(&server, libc::SIGSTOP);
    let mut n = 0;
    // Until waiting between attempts is as long as it ever is.
    while status(&pusher, 0).errors < 6 {
        n += 1;
        note(&pusher, 0, &format!("k{}", n % 1_000), &n.to_string());
        std::thread::sleep(TICK);
    }
    let (before, sent) = (owner.complete(0), status(&pusher, 0).states_sent);
    signal(&server, libc::SIGCONT);
    let back = Instant::now();
    await_state(&server, 0, &format!("k{}", n % 1_000), &n.to_string());
    soon("a complete round", || owner.complete(0) > before);
    soon("nothing to wait", || pusher.unacknowledged_for() == Duration::ZERO);
    assert!(back.elapsed() < HEALING, "{:?}", back.elapsed());
    // It is the process that it was, and has what it had.
    assert!(!pusher.needs_resend());
    let status = status(&pusher, 0);
    assert!(!status.lacking && status.states_sent - sent <= 1_000, "{status:?}");
    stop(pusher);
}

/// Several masters of a cluster hang. Between one attempt to connect to one of them and the next
/// the one that is well is spoken to, and each is tried again and again.
#[test]
fn masters_that_hang_hold_up_no_other() {
    const PATIENCE: Duration = Duration::from_millis(300);
    let (well, hanging) = (listen(), [(); 6].map(|()| listen()));
    let url = format!("redis://127.0.0.1:{}", port(&well));
    let masters = [port(&well)].into_iter().chain(hanging.iter().map(port));
    let slots = slots(&(0..).zip(masters).map(|(slot, at)| (slot, slot, at)).collect::<Vec<_>>());
    let spoken: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let heard = Arc::clone(&spoken);
    answer(well, move |word| {
        if word == "CLUSTER" {
            return slots.clone();
        }
        heard.lock().unwrap().push(Instant::now());
        "+x\r\n".to_owned()
    });
    let tried = hanging.map(|listener| {
        let tried = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tried);
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                open.push(stream);
                count.fetch_add(1, SeqCst);
            }
        });
        tried
    });
    let limits = Limits { io_timeout: PATIENCE, ..Limits::default() };
    let (pusher, _) = start_with(claw_sync::Config { limits, ..config([url]) }, "ECHO x");
    soon("all to be tried thrice", || tried.iter().all(|tried| tried.load(SeqCst) >= 3));
    stop(pusher);
    let spoken = spoken.lock().unwrap();
    let longest = spoken.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest < 4 * PATIENCE, "{longest:?}");
}

#[test]
fn stopping_does_not_wait_for_a_reply() {
    let server = plain();
    let (pusher, _) = start(claw_sync::Config { limits: patient(), ..config([server.url()]) });
    settle(&pusher);
    signal(&server, libc::SIGSTOP);
    note(&pusher, 0, "k", "1");
    soon("a reply to be awaited", || pusher.unacknowledged_for() > Duration::from_millis(100));
    stop(pusher);
    signal(&server, libc::SIGCONT);
}

#[test]
fn stopping_does_not_wait_for_room_to_write() {
    let server = plain();
    let (pusher, _) = start(claw_sync::Config { limits: patient(), ..config([server.url()]) });
    settle(&pusher);
    signal(&server, libc::SIGSTOP);
    // More than the buffers of both ends hold.
    note(&pusher, 0, "k", &"x".repeat(50 << 20));
    soon("the buffers to fill", || pusher.unacknowledged_for() > Duration::from_millis(300));
    stop(pusher);
    signal(&server, libc::SIGCONT);
}

#[test]
fn stopping_does_not_wait_for_a_connection() {
    // Once the queue of a listener is full, attempts to connect get no answer.
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = full.local_addr().unwrap();
    let mut queue = Vec::new();
    // SAFETY: the descriptor is that of an open socket.
    unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&full), 0) };
    while let Ok(one) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queue.push(one);
        assert!(queue.len() < 100, "the queue does not fill");
    }
    let (pusher, _) =
        start(claw_sync::Config { limits: patient(), ..config([format!("redis://{address}")]) });
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(status(&pusher, 0).state, PeerState::Connecting);
    stop(pusher);
}

#[test]
fn a_peer_that_speaks_nonsense_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let speaker = std::thread::spawn(move || {
        // Each would read forever, or until memory is gone.
        for nonsense in ["HTTP/1.1 400\r\n\r\n", "$4000000000\r\n", "*1000000000\r\n"] {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = std::io::Write::write_all(&mut stream, nonsense.as_bytes());
            let chunk = vec![b'+'; 1 << 16];
            // Ends when the other side has had enough.
            while std::io::Write::write_all(&mut stream, &chunk).is_ok() {}
        }
    });
    let (pusher, _) = start(config([format!("redis://{address}")]));
    await_status(&pusher, "three failures", |all| all[0].errors >= 3);
    speaker.join().unwrap();
    stop(pusher);
}

#[test]
fn noting_does_not_wait_for_anybody() {
    let server = plain();
    let (pusher, _) = start(claw_sync::Config { limits: patient(), ..config([server.url()]) });
    settle(&pusher);
    signal(&server, libc::SIGSTOP);
    note(&pusher, 0, "k", "0");
    soon("a reply to be awaited", || pusher.unacknowledged_for() > Duration::from_millis(100));
    // That it ends at all, with time-outs of ten minutes, is what is tested.
    let began = Instant::now();
    for n in 0..100_000_u32 {
        note(&pusher, n % 3, &format!("k{n}"), "x");
        pusher.flush();
        let _ = (pusher.needs_resend(), pusher.unacknowledged_for(), pusher.longest_queue());
    }
    assert_eq!(pusher.status().len(), 1);
    assert!(began.elapsed() < Duration::from_secs(300));
    signal(&server, libc::SIGCONT);
    await_status(&pusher, "everything to be sent", |all| all[0].queued == 0);
    stop(pusher);
}
