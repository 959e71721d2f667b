//! The image itself.

use crate::node::{Node, image};
use claw_testkit::{ask, run};
use std::collections::BTreeMap;
use testcontainers::ImageExt;
use testcontainers::core::WaitFor;

/// With as few rights as a container can have, and healthy by its own check.
pub fn runs_as_a_user_and_stops_when_told(server: &str) {
    let node = Node::run(image(server), &[], |request| {
        request
            .with_readonly_rootfs(true)
            .with_cap_drop("ALL")
            .with_security_opt("no-new-privileges")
            .with_ready_conditions(vec![WaitFor::healthcheck()])
    });
    let conn = &mut node.connection();
    assert_eq!(node.exec(&["id", "-u"]), "999");
    let (name, _) = server.split_once('-').unwrap();
    assert_eq!(node.exec(&["cat", "/proc/1/comm"]), format!("{name}-server"));

    let set: BTreeMap<String, String> = ask(conn, "CONFIG GET dir appendonly maxmemory-policy");
    let expected = [("dir", "/data"), ("appendonly", "yes"), ("maxmemory-policy", "noeviction")];
    assert_eq!(set, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    run(conn, &["CL.TAKE a", "SAVE"]);
    assert!(node.exec(&["ls", "/data"]).contains("dump.rdb"));

    node.container().stop().unwrap();
    assert_eq!(node.container().exit_code().unwrap(), Some(0), "{}", node.log());
    assert!(node.log().contains("bye bye"), "{}", node.log());
}

/// What CONFIG REWRITE writes is there after a restart, beside directives of the command
/// line, which override it each time; and nothing of the image was written to.
pub fn keeps_what_is_rewritten(server: &str) {
    let node = Node::run(image(server), &["--maxclients", "777"], |request| {
        request.with_readonly_rootfs(true)
    });
    run(
        &mut node.connection(),
        &["CONFIG SET claw.max-tokens 77 maxclients 778", "CL.TAKE k 7", "CONFIG REWRITE"],
    );
    for _ in 0..2 {
        node.crash_and_restart();
        let conn = &mut node.connection();
        let set: BTreeMap<String, String> = ask(conn, "CONFIG GET claw.max-tokens maxclients");
        let expected = [("claw.max-tokens", "77"), ("maxclients", "777")];
        assert_eq!(set, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        run(conn, &["CONFIG REWRITE"]);
    }
    let taken: Vec<i64> = ask(&mut node.connection(), "CL.PEEK k 0");
    assert_eq!(taken[1], 77);
}
