//! What is counted of the way to Redis.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The label of a fault.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Fault {
    /// Why there was no answer: `deadline`, `connection`, `refused`, `circuit_open`,
    /// `queue_full`, `overloaded`.
    pub kind: &'static str,
}

/// The labels of a decision of one limit without Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Blind {
    /// The limit's name, from the configuration.
    pub limit: String,
    /// `allowed` by one that fails open, `refused` by one that fails closed, `left_to_caller` by one
    /// of a descriptor file.
    pub decided: &'static str,
}

/// The metrics. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct RedisMetrics {
    /// Charges and looks that were asked for.
    pub takes: Counter,
    /// Commands that were sent.
    pub commands: Counter,
    /// Takes that shared a command with others.
    pub coalesced: Counter,
    /// Takes that were refused without asking.
    pub local_refusals: Counter,
    /// Takes that were granted out of a lease.
    pub leased: Counter,
    /// Commands without an answer.
    pub faults: Family<Fault, Counter>,
    /// Decisions of a limit that could not be asked.
    pub blind: Family<Blind, Counter>,
    /// Connections whose circuit is open.
    pub circuits_open: Gauge,
}

impl RedisMetrics {
    /// Metrics that `registry` knows.
    #[must_use]
    pub fn registered(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let counters = [
            ("redis_takes", "Charges and looks that were asked for", &metrics.takes),
            ("redis_commands", "Commands sent to Redis", &metrics.commands),
            ("redis_coalesced", "Takes that shared a command with others", &metrics.coalesced),
            (
                "redis_local_refusals",
                "Takes that were refused without asking Redis",
                &metrics.local_refusals,
            ),
            ("redis_leased", "Takes that were granted out of a lease", &metrics.leased),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "redis_faults",
            "Commands without an answer, by reason",
            metrics.faults.clone(),
        );
        registry.register(
            "blind_decisions",
            "Decisions of a limit without Redis, since it could not be asked",
            metrics.blind.clone(),
        );
        registry.register(
            "redis_circuits_open",
            "Connections to Redis that are given up and tried again in the background",
            metrics.circuits_open.clone(),
        );
        metrics
    }
}
