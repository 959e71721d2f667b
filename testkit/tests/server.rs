//! Single servers, without the module.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use claw_testkit::{Builder, DataDir, Server, digest, error, free_port, info_field, int, ints};
use redis::{Commands, Value};

fn plain() -> Builder {
    Server::builder().without_module()
}

#[test]
fn a_server_leaves_nothing_behind() {
    let server = plain().start();
    let (pid, dir, port) = (server.pid(), server.dir().to_path_buf(), server.port());
    assert!(server.is_alive() && dir.is_dir() && server.socket_path().exists());
    let mut conn = server.connection();
    assert_eq!(info_field(&mut conn, "server", "process_id"), Some(pid.to_string()));
    assert_eq!(info_field(&mut conn, "server", "tcp_port"), Some(port.to_string()));
    assert_eq!(server.warnings(), Vec::<String>::new(), "{}", server.log());
    drop(server);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!dir.exists());
    TcpListener::bind(("127.0.0.1", port)).expect("the port is free again");
}

#[test]
fn a_background_save_dies_with_its_server() {
    let server = plain().config("rdb-key-save-delay", "1000000").start();
    let mut conn = server.connection();
    for key in 0..100 {
        conn.set::<_, _, ()>(key, 1).unwrap();
    }
    claw_testkit::cmd(&mut conn, "BGSAVE").unwrap();
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid()));
    let children = children.unwrap();
    let child = children.split_whitespace().next().expect("a saving child");
    assert!(Path::new(&format!("/proc/{child}")).exists());
    drop(server);
    // Nobody is left to reap it but the init process, in its own time.
    claw_testkit::eventually(
        Duration::from_secs(10),
        Duration::from_millis(10),
        "the saving child to end",
        || match fs::read_to_string(format!("/proc/{child}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        },
    );
}

#[test]
fn a_server_comes_back_with_its_append_only_file() {
    let server = plain().config("appendonly", "yes").start();
    let (pid, port, dir) = (server.pid(), server.port(), server.dir().to_path_buf());
    let mut conn = server.connection();
    assert_eq!(int(&mut conn, "INCRBY n 7"), 7);
    let before = digest(&mut conn);
    assert_eq!(before.len(), 40);

    let server = server.restart();
    assert_ne!(server.pid(), pid);
    assert_eq!((server.port(), server.dir()), (port, dir.as_path()));
    assert_eq!(digest(&mut server.connection()), before);
    // The log is that of the new process.
    assert_eq!(server.log().matches("Server initialized").count(), 1);
    assert_eq!(server.warnings(), Vec::<String>::new());

    let server = server.stop().start();
    assert_eq!(digest(&mut server.connection()), before);

    claw_testkit::cmd(&mut server.connection(), "CONFIG SET appendfsync always").unwrap();
    assert_eq!(int(&mut server.connection(), "INCR n"), 8);
    let server = server.kill_9().start();
    assert_eq!(int(&mut server.connection(), "INCR n"), 9);
}

#[test]
fn a_stopped_server_may_or_may_not_save() {
    let server = plain().start();
    int(&mut server.connection(), "INCR n");
    let data = server.stop();
    assert!(!data.path().join("dump.rdb").exists());
    let server = data.start();
    assert_eq!(int(&mut server.connection(), "INCR n"), 1);
    let data = server.stop_saving();
    assert!(data.path().join("dump.rdb").exists());
    let server = data.builder().config("maxmemory-policy", "noeviction").start();
    assert_eq!(int(&mut server.connection(), "INCR n"), 2);
    // Another server takes over the directory.
    let server = plain().dir(server.stop_saving()).start();
    assert_eq!(int(&mut server.connection(), "INCR n"), 3);
}

#[test]
fn a_crashed_server_can_be_looked_at() {
    let mut server = plain().start();
    server.crash();
    assert!(!server.is_alive());
    assert!(server.log().contains("Ready to accept connections"));
    server = server.restart();
    assert!(server.is_alive());
    server.sigterm();
    assert!(server.wait_exit(Duration::from_secs(10)));
    assert!(!server.is_alive());
    assert!(server.log().contains("Received SIGTERM"));
}

#[test]
fn a_given_directory_stays() {
    let dir = tempfile::tempdir().unwrap();
    let server = plain().dir(dir.path()).start();
    int(&mut server.connection(), "INCR n");
    assert_eq!(server.dir(), dir.path());
    drop(server.stop_saving());
    let server = plain().dir(dir.path()).start();
    assert_eq!(int(&mut server.connection(), "INCR n"), 2);
    drop(server);
    assert!(dir.path().join("dump.rdb").exists());
}

#[test]
#[should_panic(expected = "no server has run in this directory yet")]
fn a_mere_directory_cannot_be_started() {
    DataDir::from("/nonexistent").start();
}

#[test]
fn configuration_arrives_and_can_be_rewritten() {
    let server = plain()
        .config("save", "900 1")
        .config("save", "60 1000")
        .config_args("masterauth", ["a \"b\"\\\u{e9}\n#"])
        .config("notify-keyspace-events", "")
        .start();
    let get = |server: &Server, name: &str| {
        let (_, value): (String, String) =
            redis::cmd("CONFIG").arg("GET").arg(name).query(&mut server.connection()).unwrap();
        value
    };
    let check = |server: &Server| {
        assert_eq!(get(server, "save"), "900 1 60 1000");
        assert_eq!(get(server, "masterauth"), "a \"b\"\\\u{e9}\n#");
    };
    check(&server);
    for command in ["CONFIG SET maxmemory 77mb", "CONFIG REWRITE"] {
        claw_testkit::cmd(&mut server.connection(), command).unwrap();
    }
    assert_eq!(server.warnings(), Vec::<String>::new());
    let server = server.restart();
    check(&server);
    assert_eq!(get(&server, "maxmemory"), "80740352");
}

#[test]
fn a_refusal_comes_with_the_log() {
    let log = plain().config("maxmemory", "lots").try_start().unwrap_err();
    assert!(log.contains("FATAL CONFIG FILE ERROR"), "{log}");
    let missing = Server::builder().module("/nonexistent.so");
    let log = missing.try_start().unwrap_err();
    assert!(log.contains("/nonexistent.so"), "{log}");
}

#[test]
#[should_panic(expected = "Address already in use")]
fn a_chosen_port_is_not_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    plain().port(listener.local_addr().unwrap().port()).start();
}

#[test]
fn the_environment_arrives() {
    // The server hides its environment behind its title, so have the C library
    // print something.
    let server = plain().env("LD_SHOW_AUXV", "1").start();
    assert!(server.log().contains("AT_PAGESZ"), "{}", server.log());
}

#[test]
fn a_server_outlives_the_thread_that_started_it() {
    let server = std::thread::spawn(|| plain().start()).join().unwrap();
    // The signal would come at once, but let it have its time.
    std::thread::sleep(Duration::from_millis(100));
    assert!(server.is_alive());
    int(&mut server.connection(), "INCR n");
}

#[test]
fn ports_come_once_and_leave_room_for_the_bus() {
    let ports: std::collections::HashSet<u16> = (0..50).map(|_| free_port()).collect();
    assert_eq!(ports.len(), 50);
    for port in ports {
        assert!(port < 55_000);
        TcpListener::bind(("127.0.0.1", port)).expect("free");
        TcpListener::bind(("127.0.0.1", port + 10_000)).expect("free");
    }
}

#[test]
fn commands_and_errors_are_those_of_the_wire() {
    let server = plain().start();
    for mut conn in [server.connection(), server.connection_resp3()] {
        let conn = &mut conn;
        assert_eq!(claw_testkit::cmd(conn, " SET k  v ").unwrap(), Value::Okay);
        assert_eq!(ints(conn, "BITFIELD b GET u8 0 GET u8 1"), [0, 0]);
        assert_eq!(ints(conn, "HVALS none"), [0; 0]);
        // A known code, an unknown one, and one without a message.
        assert_eq!(error(conn, "GETEX k FOO"), "ERR syntax error");
        assert_eq!(
            error(conn, "LPUSH k v"),
            "WRONGTYPE Operation against a key holding the wrong kind of value"
        );
        assert_eq!(error(conn, "EVALSHA ffff 0"), "NOSCRIPT No matching script. Please use EVAL.");
        assert_eq!(error(conn, "DEBUG ERROR ALONE"), "ALONE");
        assert_eq!(info_field(conn, "server", "redis_mode").as_deref(), Some("standalone"));
        assert_eq!(info_field(conn, "server", "redis"), None);
        assert_eq!(digest(conn).len(), 40);
    }
    assert!(info_field(&mut server.connection(), "errorstats", "errorstat_ERR").is_some());
}

#[test]
fn connecting_causes_no_errors() {
    let server = plain().start();
    drop((server.connection(), server.connection_resp3()));
    let mut conn = server.connection();
    assert_eq!(info_field(&mut conn, "stats", "total_error_replies").as_deref(), Some("0"));
}

#[test]
#[should_panic(expected = "`INCR k` failed: WRONGTYPE Operation")]
fn a_failed_command_is_named() {
    let server = plain().start();
    let mut conn = server.connection();
    claw_testkit::cmd(&mut conn, "LPUSH k v").unwrap();
    ints(&mut conn, "INCR k");
}

#[test]
#[should_panic(expected = "`GET k` answered")]
fn a_string_is_no_integer() {
    let server = plain().start();
    let mut conn = server.connection();
    claw_testkit::cmd(&mut conn, "SET k 1").unwrap();
    int(&mut conn, "GET k");
}

#[test]
#[should_panic(expected = "waited 10ms in vain for: the cows to come home")]
fn waiting_ends() {
    let ms = Duration::from_millis;
    claw_testkit::eventually(ms(10), ms(1), "the cows to come home", || false);
}
