//! What replicas answer, and what they have whatever their clock says.

use crate::appended::word;
use crate::common::clients::Clients;
use crate::common::clock_shim::ClockShim;
use crate::common::commands::Words;
use crate::common::{PATIENCE, assert_equal, tokens};
use crate::servers::{assert_equal_digests, master, no_warnings, offset};
use claw_testkit::{Server, cmd, error, int, ints, wait_for_offset};

#[test]
fn replicas_answer_peeks_and_refuse_writers() {
    let master = master().start();
    let replica = Server::replica_of(&master).start();
    let (mut ours, mut theirs) = (master.connection(), replica.connection());
    let setup = [
        "CL.TAKE never 3 CAPACITY 10 REFILL 0",
        "CL.TAKE slow 3 CAPACITY 10 REFILL 1 INTERVAL 31622400000",
        "CL.POLICY pinned CAPACITY 7 REFILL 0 WEIGHT 2",
        "CL.TAKE pinned 2",
        "HSET hand tokens 2.5 timestamp 2026-03-19T10:00:00Z policy 9~0/1000",
        "HSET broken tokens many",
        "SET text 1",
    ];
    for line in setup {
        let words: Words = line.split(' ').map(word).collect();
        redis::Cmd::new().arg(words).exec(&mut ours).unwrap();
    }
    wait_for_offset(&master, &replica);

    let before = offset(&mut ours);
    for line in [
        "CL.PEEK never",
        "CL.PEEK never 8",
        "CL.PEEK never 1 CAPACITY 5 REFILL 5",
        "CL.PEEK slow",
        "CL.PEEK slow 8",
        "CL.PEEK slow 1 CAPACITY 10 REFILL 1 INTERVAL 31622400000",
        "CL.PEEK pinned",
        "CL.PEEK pinned 6 CAPACITY 90 REFILL 5",
        "CL.PEEK hand",
        "CL.PEEK hand 3",
        "CL.PEEK missing",
        "CL.PEEK missing 1001",
    ] {
        // Waits become shorter while we ask, so the replica's lie between.
        let first = ints(&mut ours, line);
        let answer = ints(&mut theirs, line);
        let last = ints(&mut ours, line);
        assert_eq!(answer[..3], first[..3], "{line}");
        for wait in [3, 4] {
            assert!((last[wait]..=first[wait]).contains(&answer[wait]), "{line}: {answer:?}");
        }
    }
    for line in
        ["CL.PEEK broken", "CL.PEEK text", "CL.PEEK never 1 CAPACITY -1 REFILL 5", "CL.PEEK"]
    {
        assert_eq!(error(&mut theirs, line), error(&mut ours, line));
    }
    for key in ["never", "pinned", "missing"] {
        let line = format!("CL.POLICY_RO {key}");
        assert_eq!(cmd(&mut theirs, &line), cmd(&mut ours, &line));
        assert!(error(&mut theirs, &format!("CL.POLICY {key}")).starts_with("READONLY "));
    }
    let peek = "return redis.call('CL.PEEK', KEYS[1])";
    let answer: Vec<i64> =
        redis::cmd("EVAL_RO").arg(peek).arg(1).arg("never").query(&mut theirs).unwrap();
    assert_eq!(answer, [1, 10, 6, 0, -1]);

    for line in [
        "CL.TAKE never",
        "CL.TAKE never 99",
        "CL.TAKE never 0",
        "CL.TAKE missing",
        "CL.GIVE never",
        "CL.SETTLE never 1 2",
        "CL.SETTLE never 2 2",
        "CL.TAKEALL never AND slow",
        "CL.POLICY never",
        "CL.POLICY never CAPACITY 5",
        "CL.POLICY never RESET",
        "CL.THROTTLE never 1 1 1",
        "CL.THROTTLE never 1 1 1 0",
    ] {
        assert!(error(&mut theirs, line).starts_with("READONLY "), "{line}");
    }
    assert_eq!(offset(&mut ours), before);
    assert_equal_digests(&master, &replica);
    no_warnings(&[&master, &replica]);
}

#[test]
fn wait_tells_that_replicas_have_a_take() {
    let master = master().start();
    let replicas =
        [Server::replica_of(&master).start(), Server::replica_of(&master).without_module().start()];
    let mut conn = master.connection();
    for n in 1..=20 {
        cmd(&mut conn, "CL.TAKE k 1 CAPACITY 100 REFILL 0").unwrap();
        assert_eq!(int(&mut conn, "WAIT 2 60000"), 2);
        for replica in &replicas {
            assert_eq!(tokens(&mut replica.connection(), "k"), Some(100 - n));
        }
    }
    // There is nothing to wait for after a refusal.
    assert_eq!(ints(&mut conn, "CL.TAKE k 101 CAPACITY 100 REFILL 0")[0], 0);
    assert_eq!(int(&mut conn, "WAIT 2 60000"), 2);
    no_warnings(&[&master, &replicas[0], &replicas[1]]);
}

#[test]
fn clocks_and_time_zones_of_replicas_do_not_matter() {
    const DAY: i64 = 86_400;
    let Some(shim) = ClockShim::new("zones") else { return };
    let master = master().start();
    let clients = Clients::of(&master, 30);
    let start = |ahead: i64, zone: &str| {
        let clock = zone.replace('/', "-");
        shim.set(&clock, ahead * 1_000_000);
        shim.on(Server::replica_of(&master), &clock).env("TZ", zone).start()
    };
    let time = |server: &Server| -> i64 {
        let time: (i64, i64) = redis::cmd("TIME").query(&mut server.connection()).unwrap();
        time.0
    };
    let replicas = clients.under_load(|| {
        clients.go_on(1_000);
        let replicas =
            [start(-DAY, "Asia/Kathmandu"), start(DAY, "America/St_Johns"), start(0, "UTC")];
        for (replica, ahead) in replicas.iter().zip([-DAY, DAY, 0]) {
            let difference = time(replica) - time(&master);
            assert!((ahead - 60..=ahead + 60).contains(&difference), "{difference}");
        }
        // One is late with everything.
        let mut paused = replicas[2].connection();
        paused.set_read_timeout(Some(PATIENCE)).unwrap();
        cmd(&mut paused, "DEBUG SLEEP 1.5").unwrap();
        clients.go_on(5_000);
        replicas
    });
    for replica in &replicas {
        assert_equal_digests(&master, replica);
    }
    // A clock behind hides no key, so that times of expiry can be compared too.
    assert_equal(&master, &replicas[0]);
    assert_equal(&master, &replicas[2]);
    no_warnings(&[&master, &replicas[0], &replicas[1], &replicas[2]]);
}
