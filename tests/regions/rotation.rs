//! Passwords and certificates in files that change, disappear, or are none.

use crate::world::{PATIENCE, TICK, field, status};
use claw_testkit::{Server, ask, call, eventually, int, run};
use redis::Connection;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// A peer with a user that has this password.
fn far(password: &str) -> Server {
    let far = Server::builder()
        .config("claw.replica-id", "far")
        .config("claw.peers", "redis://127.0.0.1:1")
        .start();
    let rights = "-@all +cl.sync|states +cl.sync|round ~*";
    run(&mut far.connection(), &[&format!("ACL SETUSER claw on >{password} {rights}")]);
    far
}

/// The connection of the region that logged in, if there is one.
fn client(far: &mut Connection) -> Option<String> {
    let list: String = ask(far, "CLIENT LIST");
    let line = list.lines().find(|line| line.contains(" user=claw "))?;
    line.split(' ').next().map(str::to_owned)
}

fn wait_for_another(far: &mut Connection, than: Option<String>) -> Option<String> {
    eventually(PATIENCE, TICK, "another connection", || {
        client(far).is_some_and(|now| Some(now) != than)
    });
    client(far)
}

fn last_error(near: &mut Connection) -> String {
    status(near, "peers")[0]["last_error"].clone()
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn the_same_name_set_again_has_the_files_read_again() {
    let peer = far("old");
    let far = &mut peer.connection();
    let near = Server::builder().config("claw.replica-id", "near").start();
    let conn = &mut near.connection();
    let file = near.dir().join("password");
    fs::write(&file, "old").unwrap();
    let same = format!("CONFIG SET claw.peers-password-file {}", file.display());
    let url = format!("redis://claw@127.0.0.1:{}", peer.port());
    run(conn, &[&same, &format!("CONFIG SET claw.peers {url}")]);
    let mut before = wait_for_another(far, None);

    // The connection stays, though its password has become invalid: nothing but the
    // name tells that there is another.
    fs::write(&file, "n3w").unwrap();
    run(far, &["ACL SETUSER claw >n3w <old"]);
    run(conn, &[&same]);
    before = wait_for_another(far, before);
    run(conn, &["CL.TAKE k 4 CAPACITY 10 REFILL 0"]);
    eventually(PATIENCE, TICK, "the take to be known", || int(far, "EXISTS k") == 1);
    assert_eq!(last_error(conn), "");

    // So it is with the others, also where they have no value, and with several at once.
    for name in ["tls-ca-cert-file", "tls-cert-file", "tls-key-file"] {
        let words = ["CONFIG", "SET", "claw.sync-interval-ms", "50", &format!("claw.{name}"), ""];
        redis::cmd(words[0]).arg(&words[1..]).exec(conn).unwrap();
        before = wait_for_another(far, before);
    }
    // Not so with those that name no file.
    run(conn, &["CONFIG SET claw.sync-interval-ms 50", &format!("CONFIG SET claw.peers {url}")]);
    let rounds = field(conn, "sync_rounds");
    eventually(PATIENCE, TICK, "some rounds", || field(conn, "sync_rounds") > rounds + 10);
    assert_eq!(client(far), before);

    // A file that is gone leaves what worked, also when it is set again.
    fs::remove_file(&file).unwrap();
    let missing = format!("{}: No such file or directory (os error 2)", file.display());
    let kept = format!("{missing}; what it held before is used");
    for times in 1..=2 {
        run(conn, &[&same]);
        before = wait_for_another(far, before);
        eventually(PATIENCE, TICK, "the loss to show", || last_error(conn) == kept);
        // Once for each time that it is set.
        eventually(PATIENCE, TICK, "the loss in the log", || {
            near.log().matches(&kept).count() == times
        });
    }
    assert!([near.log(), peer.log()].iter().all(|log| !log.contains("n3w")));
}

/// The server goes on while a file cannot be read, says why, and needs no restart.
#[test]
fn what_is_no_file_stops_nobody_and_heals() {
    let peer = far("s3cr3t");
    let far = &mut peer.connection();
    let path = peer.dir().join("password");
    make_pipe(&path);
    // Also at the start.
    let near = Server::builder()
        .config("claw.replica-id", "near")
        .config("claw.peers", format!("redis://claw@127.0.0.1:{}", peer.port()))
        .config("claw.peers-password-file", path.to_str().unwrap())
        .start();
    let conn = &mut near.connection();
    let no_file = |path: &str| format!("{path}: not a regular file");
    let mut reason = no_file(path.to_str().unwrap());
    for other in [None, Some("/dev/zero"), Some("/tmp"), Some("/dev/null")] {
        if let Some(other) = other {
            run(conn, &[&format!("CONFIG SET claw.peers-password-file {other}")]);
            reason = no_file(other);
        }
        eventually(PATIENCE, TICK, "the reason to show", || {
            let began = Instant::now();
            run(conn, &["PING"]);
            assert!(began.elapsed().as_secs() < 5, "PING took {:?}", began.elapsed());
            last_error(conn) == reason
        });
        assert_eq!(status(conn, "peers")[0]["state"], "backing-off");
        eventually(PATIENCE, TICK, "the reason in the log", || near.log().contains(&reason));
    }
    run(conn, &[&format!("CONFIG SET claw.peers-password-file {}", path.display())]);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "s3cr3t").unwrap();
    wait_for_another(far, None);

    // So it is with certificates, on the way to a peer that has none.
    let pipe = path.with_extension("pem");
    make_pipe(&pipe);
    run(
        conn,
        &[
            &format!("CONFIG SET claw.tls-ca-cert-file {}", pipe.display()),
            &format!("CONFIG SET claw.peers rediss://claw@127.0.0.1:{}", peer.port()),
        ],
    );
    let reason = no_file(pipe.to_str().unwrap());
    eventually(PATIENCE, TICK, "the reason to show", || last_error(conn) == reason);
    run(conn, &["PING"]);
    // What did not change was said once, though it was tried many times.
    let log = near.log();
    assert_eq!(log.matches(&no_file("/dev/zero")).count(), 1, "{log}");
}

/// A command that fails sets nothing, though the server knows passwords only as `***`.
#[test]
fn a_setting_that_fails_leaves_passwords_as_they_were() {
    let peer = far("s3cr3t");
    let far = &mut peer.connection();
    let near = Server::builder().config("claw.replica-id", "near").start();
    let conn = &mut near.connection();
    let set = |conn: &mut Connection, words: &[&str]| {
        call(conn, &[&["CONFIG", "SET"], words].concat()).map(|_| ())
    };
    let (place, taken) = (format!("127.0.0.1:{}", peer.port()), peer.port().to_string());
    let [right, wrong, shown] =
        ["s3cr3t", "wr0ng", "***"].map(|it| format!("redis://claw:{it}@{place}"));
    let elsewhere = "redis://claw:s3cr3t@127.0.0.1:1";
    set(conn, &["claw.peers", &right]).unwrap();
    let mut before = wait_for_another(far, None);
    let mut interval = 50;
    let mut is_as_it_was = |conn: &mut Connection, shown: &str, why: &str| {
        let shows = |conn: &mut Connection| ask::<[String; 2]>(conn, "CONFIG GET claw.peers");
        assert_eq!(shows(conn)[1], shown, "{why}");
        // Whatever changes has peers connected to anew.
        interval += 1;
        let merge = ["max", "min"][interval % 2];
        let others =
            format!("CONFIG SET claw.sync-interval-ms {interval} claw.merge-strategy {merge}");
        run(conn, &[&others]);
        assert_eq!(shows(conn)[1], shown, "{why}");
        before = wait_for_another(far, before.take());
    };
    for peers in [elsewhere, wrong.as_str(), "", &format!("{wrong} {elsewhere}")] {
        // Of ours, and of the server's own: one that it cannot read, and one that it cannot do.
        for bad in [["claw.sync-keys", ""], ["maxclients", "many"], ["port", &taken]] {
            let peers = ["claw.peers", peers];
            for order in [[peers, bad], [bad, peers]] {
                let words = order.concat();
                set(conn, &words).unwrap_err();
                is_as_it_was(conn, &shown, &format!("{words:?}"));
            }
        }
        // The same at once.
        set(conn, &["claw.peers", peers, "claw.sync-keys", ""]).unwrap_err();
        set(conn, &["claw.peers", &shown]).unwrap();
        is_as_it_was(conn, &shown, peers);
    }
    // What stands for no password is none.
    let unknown = "redis://other:***@127.0.0.1:1";
    set(conn, &["claw.peers", &format!("{shown} {unknown}")]).unwrap_err();
    is_as_it_was(conn, &shown, unknown);
    // What is shown can be set with others, in any order.
    let both = format!("redis://127.0.0.1:1 {shown}");
    set(conn, &["claw.max-tokens", "7", "claw.peers", &both, "claw.sync-keys", "k*"]).unwrap();
    is_as_it_was(conn, &both, "with another");
    assert!(!near.log().contains("s3cr3t"));
}

/// A rewrite keeps no password, and the server starts all the same.
#[test]
fn a_password_that_a_rewrite_has_hidden_is_that_of_the_file() {
    let peer = far("s3cr3t");
    let far = &mut peer.connection();
    let near = Server::builder().config("claw.replica-id", "near").start();
    let conn = &mut near.connection();
    let place = format!("127.0.0.1:{}", peer.port());
    run(conn, &[&format!("CONFIG SET claw.peers redis://claw:s3cr3t@{place}")]);
    let before = wait_for_another(far, None);
    run(conn, &["CONFIG REWRITE"]);
    let near = near.restart();
    let conn = &mut near.connection();
    let shown = format!("redis://claw:***@{place}");
    assert_eq!(ask::<[String; 2]>(conn, "CONFIG GET claw.peers")[1], shown);
    let why = "the URL has *** for its password, and no file has one";
    eventually(PATIENCE, TICK, "the reason", || last_error(conn) == why);
    let file = near.dir().join("password");
    fs::write(&file, "s3cr3t").unwrap();
    run(conn, &[&format!("CONFIG SET claw.peers-password-file {}", file.display())]);
    wait_for_another(far, before);
}
