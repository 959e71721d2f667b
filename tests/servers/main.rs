//! The images that the Dockerfile makes, on every supported server: what users
//! see, replication, durability, threads, cluster mode, and what differs.
//!
//! `make container-tests` builds the images and runs this. Another image than
//! `redis-claw:redis-7` is named by the variable `CLAW_IMAGE_REDIS_7`, and so on.
//! What is expected depends on the version that a server says it has, never on
//! the name of its image.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod archive;
mod cluster;
mod compose;
mod differences;
mod durability;
mod edge;
mod engine;
mod image;
mod introspection;
mod node;
mod packaging;
mod regions;
mod replication;
mod surface;
mod threads;
mod traffic;

/// One test of each kind for each server, all named `docker::server::test`: those
/// who run ignored tests and have no Docker skip `docker::`.
mod docker {
    macro_rules! servers {
        ($($server:ident: $image:literal,)+) => {
            $(mod $server { tests!($image); })+
        };
    }

    macro_rules! tests {
        ($image:literal) => {
            tests! { $image:
                surface::answers_in_resp2,
                surface::answers_in_resp3,
                surface::parameters_and_info,
                introspection::commands_are_described,
                introspection::keys_are_found,
                introspection::acl_guards_commands_and_keys,
                differences::are_as_documented,
                replication::a_replica_has_the_same_data_and_takes_over,
                durability::a_crash_loses_nothing_that_was_written,
                threads::a_bucket_is_exact_with_io_threads,
                cluster::keys_have_slots,
                regions::two_keep_one_limit,
                image::runs_as_a_user_and_stops_when_told,
                image::keeps_what_is_rewritten,
                archive::its_module_loads_in_a_clean_server,
            }
        };
        ($image:literal: $($file:ident::$test:ident,)+) => {
            $(
                #[test]
                #[ignore = "needs Docker: make container-tests"]
                fn $test() {
                    crate::$file::$test($image);
                }
            )+
        };
    }

    servers! {
        redis_7: "redis-7",
        redis_8: "redis-8",
        valkey_8: "valkey-8",
        valkey_9: "valkey-9",
    }

    #[test]
    #[ignore = "needs Docker: make container-tests"]
    fn regions_on_redis_and_valkey_keep_one_limit() {
        crate::regions::two_on(["redis-7", "valkey-9"]);
    }

    #[test]
    #[ignore = "needs Docker: make container-tests"]
    fn compose_regions_share_a_limit_also_when_they_are_cut_apart() {
        crate::compose::regions_share_a_limit_also_when_they_are_cut_apart();
    }

    #[test]
    #[ignore = "needs Docker: make container-tests"]
    fn edge_image_is_small_and_runs_with_few_rights() {
        crate::edge::image_is_small_and_runs_with_few_rights();
    }

    #[test]
    #[ignore = "needs Docker: make container-tests"]
    fn edge_regions_are_cut_apart_and_the_books_balance() {
        crate::edge::regions_are_cut_apart_and_the_books_balance();
    }

    #[test]
    #[ignore = "needs Docker: make container-tests"]
    fn archives_are_complete() {
        crate::archive::of_the_module_is_complete();
        crate::archive::of_the_edge_is_complete();
    }
}
