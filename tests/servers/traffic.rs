//! Commands that leave buckets of every kind behind. Nothing expires or becomes
//! full within hours, so data can be compared at leisure.

use claw_testkit::cmd;
use redis::Connection;

/// Runs them; the same round gives the same commands.
pub fn run(conn: &mut Connection, round: u32) {
    for n in 0..50 {
        let key = format!("bucket:{{{}}}", n % 10);
        let line = match (n + round) % 7 {
            0 | 1 => format!("CL.TAKE {key} 3 CAPACITY 50 REFILL 0.5 INTERVAL 86400000"),
            2 => format!("CL.TAKE {key} 100 CAPACITY 60 REFILL 1 INTERVAL 86400000 PARTIAL"),
            3 => format!("CL.GIVE {key} 2"),
            4 => {
                let policy = "CAPACITY 40 REFILL 3 INTERVAL 86400000";
                format!("CL.TAKEALL {key} {policy} AND {key}:b {policy}")
            }
            5 => format!("CL.POLICY {key}:b CAPACITY 70 REFILL 0 WEIGHT 3"),
            _ => format!("CL.MERGE {key}:m FROM 2 {key} {key}:b STRATEGY weighted"),
        };
        cmd(conn, &line).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
}
