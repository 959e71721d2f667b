//! Regions whose modules say different versions of region sync.

use crate::world::{PATIENCE, TICK, World, all_whole, share, status};
use claw_testkit::{eventually, ints, run};
use std::time::Duration;

const TAKE: &str = "CL.TAKE k 10 CAPACITY 100 REFILL 0";
const LOOK: &str = "CL.PEEK k 0 CAPACITY 100 REFILL 0";

/// The heartbeat carries the version: who is of another one is refused and named, and neither
/// side admits the whole. Once both are of one version again, all is told.
#[test]
fn a_region_of_another_version_is_refused_and_named() {
    let world = World::start_with(2, Duration::ZERO, &|_, builder| {
        builder.config("claw.partition-timeout-ms", "500").config("claw.partition-guard", "equal")
    });
    let conns = &mut [world.connection(0), world.connection(1)];
    let [ours, later] = [b"ROUND\r\n$1\r\n3\r\n", b"ROUND\r\n$1\r\n4\r\n"];
    world.set_misheard(0, 1, Some([ours, later]));
    let refused = "region 'r1' speaks version 3 of region sync, not '4'";
    eventually(PATIENCE, TICK, "both to know", || {
        let [peer, heard] = [(0, "peers"), (1, "heard")].map(|(region, list)| {
            let all = status(&mut conns[region], list);
            all[0].clone()
        });
        peer["last_error"].contains(refused)
            && heard["silent"] == "yes"
            && conns.iter_mut().all(|conn| share(conn) == 500)
    });
    run(&mut conns[0], &[TAKE]);
    world.set_misheard(0, 1, None);
    eventually(PATIENCE, TICK, "all to be well again", || all_whole(conns));
    eventually(PATIENCE, TICK, "all to be told", || ints(&mut conns[1], LOOK)[2] == 90);
}
