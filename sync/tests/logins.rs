//! Users, passwords, and the least rights that a peer's user needs.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use claw_sync::{Files, PeerState};
use claw_testkit::{Server, ask, run};
use common::*;
use std::io::{Read, Write};
use std::path::Path;

const PASSWORD: &str = "S3cret/@:x";
const ENCODED: &str = "S3cret%2F%40%3Ax";

fn guarded(rights: &str) -> Server {
    let server = plain();
    redis::cmd("ACL")
        .arg(&["SETUSER", "region", "on"])
        .arg(format!(">{PASSWORD}"))
        .arg(rights.split(' ').collect::<Vec<_>>())
        .exec(&mut server.connection())
        .unwrap();
    server
}

fn url(server: &Server, password: &str) -> String {
    format!("redis://region:{password}@127.0.0.1:{}", server.port())
}

/// Everything a pusher can be made to say.
fn said(pusher: &claw_sync::Pusher) -> String {
    format!("{:?} {pusher:?}", pusher.status())
}

#[test]
fn the_least_rights_are_the_two_commands() {
    let server = guarded("-@all +eval +hset +echo ~limit:*");
    let (pusher, owner) = start_with(config([url(&server, ENCODED)]), "ECHO x");
    settle(&pusher);
    note(&pusher, 0, "limit:1", "1");
    await_state(&server, 0, "limit:1", "1");
    soon("a complete round", || owner.complete(0) > 0);
    let status = status(&pusher, 0);
    assert_eq!((status.state, status.errors), (PeerState::Connected, 0));
    assert_eq!(status.url, format!("redis://region:***@127.0.0.1:{}", server.port()));
    // The question for the slots is refused, which the peer's log shows.
    let refused: Vec<Vec<redis::Value>> = ask(&mut server.connection(), "ACL LOG");
    let shown = format!("{refused:?}");
    assert_eq!(refused.len(), 1, "{shown}");
    let slots: String = "cluster|slots".bytes().map(|b| format!("{b}, ")).collect();
    assert!(
        shown.contains("cluster|slots") || shown.contains(slots.trim_end_matches(", ")),
        "{shown}"
    );

    // What is not allowed waits for rights.
    note(&pusher, 0, "other", "1");
    await_status(&pusher, "the refusal to show", |all| {
        all[0].last_error.as_ref().is_some_and(|error| error.starts_with("NOPERM "))
    });
    assert!(!said(&pusher).contains("S3cret"));
    run(&mut server.connection(), &["ACL SETUSER region ~other"]);
    await_state(&server, 0, "other", "1");
    // Other databases need SELECT.
    note(&pusher, 2, "limit:2", "1");
    await_status(&pusher, "the refusal to show", |all| {
        all[0].last_error.as_ref().is_some_and(|error| error.starts_with("SELECT 2: NOPERM "))
    });
    assert_eq!(state(&server, 0, "limit:2"), None);
    run(&mut server.connection(), &["ACL SETUSER region +select"]);
    await_state(&server, 2, "limit:2", "1");
    assert_eq!(state(&server, 0, "limit:2"), None);
    assert!(!server.log().contains("S3cret"));
    stop(pusher);
}

#[test]
fn a_right_that_is_taken_away_never_moves_states_to_another_database() {
    let server = guarded("-@all +eval +hset +echo +select ~*");
    let (pusher, _) = start_with(config([url(&server, ENCODED)]), "ECHO x");
    settle(&pusher);
    note(&pusher, 1, "k", "1");
    await_state(&server, 1, "k", "1");
    run(&mut server.connection(), &["ACL SETUSER region -select"]);
    note(&pusher, 2, "k", "2");
    await_status(&pusher, "the refusal to show", |all| {
        all[0].last_error.as_ref().is_some_and(|error| error.starts_with("SELECT 2: NOPERM "))
    });
    assert_eq!(state(&server, 1, "k").as_deref(), Some("1"));
    assert_eq!(state(&server, 0, "k"), None);
    stop(pusher);
}

#[test]
fn a_wrong_password_is_told_but_not_repeated() {
    let server = guarded("+@all ~*");
    let (pusher, _) = start(config([url(&server, "hunter2-wrong")]));
    await_status(&pusher, "the failure to show", |all| all[0].errors > 1);
    let status = status(&pusher, 0);
    assert_eq!(
        status.last_error.as_deref(),
        Some("AUTH failed: WRONGPASS invalid user name or password, or the user is disabled")
    );
    assert_eq!(status.state, PeerState::BackingOff);
    assert!(!said(&pusher).contains("hunter2"));
    // An operator mends it, and nothing has to be started again.
    run(&mut server.connection(), &["ACL SETUSER region >hunter2-wrong"]);
    await_connected(&pusher);
    stop(pusher);
}

#[test]
fn servers_that_repeat_the_password_do_not_have_it_shown() {
    // A server without AUTH repeats its arguments.
    let renamed =
        Server::builder().without_module().config_args("rename-command", ["AUTH", ""]).start();
    let open = plain();
    let urls = [
        format!("redis://region:hunter2@127.0.0.1:{}", renamed.port()),
        format!("redis://:hunter2@127.0.0.1:{}", open.port()),
    ];
    let (pusher, _) = start(config(urls));
    await_status(&pusher, "the failures to show", |all| {
        all.iter().all(|peer| peer.last_error.is_some())
    });
    let errors = pusher.status().into_iter().map(|peer| peer.last_error.unwrap());
    assert_eq!(
        errors.collect::<Vec<_>>(),
        [
            "AUTH failed: ERR the peer refused it",
            "AUTH failed: ERR the peer's default user has no password"
        ]
    );
    assert!(!said(&pusher).contains("hunter2"));
    stop(pusher);
}

#[test]
fn a_password_alone_is_that_of_the_default_user() {
    let server = Server::builder().without_module().config("requirepass", "pw").start();
    let (pusher, _) = start(config([
        format!("redis://:pw@127.0.0.1:{}", server.port()),
        format!("redis://localhost:{}", server.port()),
    ]));
    await_status(&pusher, "the one to be connected and the other not", |all| {
        all[0].state == PeerState::Connected
            && all[1].last_error.as_ref().is_some_and(|e| e.contains("NOAUTH"))
    });
    stop(pusher);
}

#[test]
fn a_user_that_is_deleted_and_made_again_goes_on() {
    let server = guarded("+@all ~*");
    let (pusher, _) = start(config([url(&server, ENCODED)]));
    settle(&pusher);
    run(&mut server.connection(), &["ACL DELUSER region"]);
    await_status(&pusher, "the loss to show", |all| all[0].state == PeerState::BackingOff);
    note(&pusher, 0, "k", "1");
    redis::cmd("ACL")
        .arg(&["SETUSER", "region", "on", "+@all", "~*", &format!(">{PASSWORD}")])
        .exec(&mut server.connection())
        .unwrap();
    await_state(&server, 0, "k", "1");
    stop(pusher);
}

fn password_in(path: &Path) -> Files {
    Files { password: Some(path.into()), ..Files::default() }
}

/// Both passwords are valid for a while.
#[test]
fn a_password_is_rotated_while_sync_runs() {
    let server = guarded("+@all ~*");
    let conn = &mut server.connection();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    put(&path, format!("{PASSWORD}\n"));
    let url = format!("redis://region@127.0.0.1:{}", server.port());
    let (pusher, _) = start(with_files(config([url]), password_in(&path)));
    settle(&pusher);

    run(conn, &["ACL SETUSER region >n3w-hunter2"]);
    put(&path, "n3w-hunter2\n");
    redis::cmd("ACL").arg(&["SETUSER", "region", &format!("<{PASSWORD}")]).exec(conn).unwrap();
    // Connections stay as they are.
    note(&pusher, 0, "k", "1");
    await_state(&server, 0, "k", "1");
    reconnect(&server, &pusher);
    note(&pusher, 0, "k", "2");
    await_state(&server, 0, "k", "2");
    assert!(!said(&pusher).contains("hunter2") && !said(&pusher).contains("S3cret"));
    stop(pusher);
}

/// The file changes only after the peer.
#[test]
fn a_password_that_comes_late_heals_too() {
    let server = Server::builder().without_module().config("requirepass", "old").start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    let url = format!("redis://127.0.0.1:{}", server.port());
    let files = password_in(&path);
    // There is none at the start.
    let (pusher, _) = start(with_files(config([url]), files));
    let missing = format!("{}: No such file or directory (os error 2)", path.display());
    await_status(&pusher, "the failure to show", |all| {
        all[0].last_error.as_ref() == Some(&missing) && all[0].state == PeerState::BackingOff
    });
    assert_eq!(status(&pusher, 0).connections, 0);
    put(&path, "old");
    settle(&pusher);

    let conn = &mut server.connection();
    run(conn, &["AUTH old", "CONFIG SET requirepass n3w", "CLIENT KILL TYPE normal SKIPME yes"]);
    await_status(&pusher, "the failure to show", |all| {
        let error = all[0].last_error.as_deref();
        error
            == Some("AUTH failed: WRONGPASS invalid user name or password, or the user is disabled")
    });
    put(&path, "n3w");
    await_connected(&pusher);
    stop(pusher);
}

#[test]
fn a_file_that_cannot_be_read_leaves_what_worked_and_is_told() {
    let server = guarded("+@all ~*");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    put(&path, PASSWORD);
    let url = format!("redis://region@127.0.0.1:{}", server.port());
    let config = with_files(config([url]), password_in(&path));
    let credentials = std::sync::Arc::clone(&config.credentials);
    let (pusher, _) = start(config);
    settle(&pusher);
    assert_eq!((status(&pusher, 0).errors, credentials.complaint()), (0, None));

    let name = path.display();
    let pipe = || std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    let make: [(&dyn Fn(), &str); 5] = [
        (&|| (), "No such file or directory (os error 2)"),
        (&|| assert!(pipe().success()), "not a regular file"),
        (&|| put(&path, ""), "no password in its first line"),
        (&|| std::os::unix::fs::symlink("/dev/zero", &path).unwrap(), "not a regular file"),
        (&|| put(&path, "x".repeat(65_537)), "longer than 65536 bytes"),
    ];
    for (make, why) in make {
        std::fs::remove_file(&path).unwrap();
        make();
        let error = format!("{name}: {why}; what it held before is used");
        reconnect_until(&server, &pusher, &error);
        let errors = status(&pusher, 0).errors;
        note(&pusher, 0, "k", why);
        await_state(&server, 0, "k", why);
        assert_eq!(status(&pusher, 0).errors, errors);
        assert_eq!(credentials.complaint(), Some(error));
        assert_eq!(credentials.complaint(), None);
        if why.starts_with("No such") {
            put(&path, PASSWORD);
        }
    }
    // Where it does not work any more, both are told.
    run(&mut server.connection(), &["ACL SETUSER region resetpass >other"]);
    run(&mut server.connection(), &["CLIENT KILL TYPE normal SKIPME yes"]);
    await_status(&pusher, "both to show", |all| {
        all[0].last_error.as_ref().is_some_and(|error| {
            error.starts_with("AUTH failed: WRONGPASS") && error.contains("longer than 65536")
        })
    });
    stop(pusher);
}

#[test]
fn a_peer_that_repeats_the_password_of_the_file_does_not_have_it_shown() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://region@{}", listener.local_addr().unwrap());
    let peer = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        assert!(socket.read(&mut [0; 1024]).unwrap() > 0);
        socket.write_all(b"-hunter2 is no password\r\n").unwrap();
        // Until it is closed, which ends the test.
        let _ = socket.read(&mut [0; 1024]);
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    put(&path, "hunter2");
    let (pusher, _) = start(with_files(config([url]), password_in(&path)));
    await_status(&pusher, "the failure to show", |all| {
        all[0].last_error.as_deref() == Some("AUTH failed: *** the peer refused it")
    });
    peer.join().unwrap();
    assert!(!said(&pusher).contains("hunter2"));
    stop(pusher);
}
