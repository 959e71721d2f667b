//! The `claw.*` parameters.

use crate::error::{Error, Quantity};
use crate::strategy::Strategy;
use claw_core::configured::Configured;
use claw_core::decimal::{self, Decimal};
use claw_core::glob::Globs;
use claw_core::limits::{DEFAULT_CAPACITY, DEFAULT_INTERVAL_MS, DEFAULT_REFILL, MAX_TOKENS, MICRO};
use claw_core::membership::PartitionPolicy;
use claw_core::policy::Policy;
use claw_core::replica::ReplicaId;
use claw_core::rules::Rules;
use claw_sync::PeerUrl;
use std::ops::RangeInclusive;

/// A parameter, by the order of registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// Capacity of buckets that neither a pin nor a call says anything of.
    MaxTokens,
    /// Their refill in tokens per second; decimals are allowed.
    RefillRatePerSec,
    /// Limits by key pattern.
    Policies,
    /// The strategy of merges that name none.
    MergeStrategy,
    /// The strategy of what is sent to other regions.
    SyncStrategy,
    /// The name of this region; empty when it stands alone.
    ReplicaId,
    /// The servers of the other regions, as URLs.
    Peers,
    /// A file with the password of peers whose URL has none.
    PeersPasswordFile,
    /// Certificates to trust on `rediss://`, as a PEM file.
    TlsCaCertFile,
    /// Our own certificate, as a PEM file.
    TlsCertFile,
    /// Its key.
    TlsKeyFile,
    /// Which keys regions share, as patterns.
    SyncKeys,
    /// Milliseconds from one round to the next.
    SyncIntervalMs,
    /// Milliseconds without a round until a peer counts as silent.
    PartitionTimeoutMs,
    /// What to admit while a peer is silent.
    PartitionGuard,
}

/// The value of a parameter, as the server hands it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Integer(i64),
    Text(String),
}

/// Longest name of a file, in bytes.
const MAX_FILE_NAME: usize = 4_096;

const SYNC_INTERVAL_MS: RangeInclusive<i64> = 1..=60_000;
const PARTITION_TIMEOUT_MS: RangeInclusive<i64> = 100..=3_600_000;

impl Parameter {
    pub(crate) const ALL: &'static [Self] = &[
        Self::MaxTokens,
        Self::RefillRatePerSec,
        Self::Policies,
        Self::MergeStrategy,
        Self::SyncStrategy,
        Self::ReplicaId,
        Self::Peers,
        Self::PeersPasswordFile,
        Self::TlsCaCertFile,
        Self::TlsCertFile,
        Self::TlsKeyFile,
        Self::SyncKeys,
        Self::SyncIntervalMs,
        Self::PartitionTimeoutMs,
        Self::PartitionGuard,
    ];

    /// The name behind `claw.`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MaxTokens => "max-tokens",
            Self::RefillRatePerSec => "refill-rate-per-sec",
            Self::Policies => "policies",
            Self::MergeStrategy => "merge-strategy",
            Self::SyncStrategy => "sync-strategy",
            Self::ReplicaId => "replica-id",
            Self::Peers => "peers",
            Self::PeersPasswordFile => "peers-password-file",
            Self::TlsCaCertFile => "tls-ca-cert-file",
            Self::TlsCertFile => "tls-cert-file",
            Self::TlsKeyFile => "tls-key-file",
            Self::SyncKeys => "sync-keys",
            Self::SyncIntervalMs => "sync-interval-ms",
            Self::PartitionTimeoutMs => "partition-timeout-ms",
            Self::PartitionGuard => "partition-guard",
        }
    }

    /// Finds a parameter by its name, with or without `claw.`.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::by_full_name(name).or_else(|| Self::by_short_name(name))
    }

    /// Finds a parameter by the name that it has for the server. Some of the server's
    /// own have the same but for the `claw.`.
    pub(crate) fn by_full_name(name: &str) -> Option<Self> {
        Self::by_short_name(name.strip_prefix("claw.")?)
    }

    fn by_short_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|p| p.name().eq_ignore_ascii_case(name))
    }

    /// The value when nobody sets it.
    pub(crate) fn default(self) -> Value {
        match self {
            Self::MaxTokens => Value::Integer(DEFAULT_CAPACITY.cast_signed()),
            Self::RefillRatePerSec => Value::Text(DEFAULT_REFILL.to_string()),
            Self::MergeStrategy => Value::Text(Strategy::default().to_string()),
            Self::SyncStrategy => Value::Text(Strategy::Debit.to_string()),
            Self::SyncKeys => Value::Text(Globs::default().as_str().to_owned()),
            Self::SyncIntervalMs => Value::Integer(50),
            Self::PartitionTimeoutMs => Value::Integer(2_000),
            Self::PartitionGuard => Value::Text(PartitionPolicy::default().name().to_owned()),
            Self::Policies
            | Self::ReplicaId
            | Self::Peers
            | Self::PeersPasswordFile
            | Self::TlsCaCertFile
            | Self::TlsCertFile
            | Self::TlsKeyFile => Value::Text(String::new()),
        }
    }

    /// Least and greatest value of an integer parameter.
    pub(crate) fn bounds(self) -> Option<(i64, i64)> {
        let bounds = match self {
            Self::MaxTokens => 0..=MAX_TOKENS.cast_signed(),
            Self::SyncIntervalMs => SYNC_INTERVAL_MS,
            Self::PartitionTimeoutMs => PARTITION_TIMEOUT_MS,
            _ => return None,
        };
        Some(bounds.into_inner())
    }

    /// Whether the value may hold a password, which the server must not log.
    pub(crate) fn is_sensitive(self) -> bool {
        matches!(self, Self::Peers)
    }

    /// Whether the value names a file of region sync, whose contents may have changed
    /// when the name has not.
    pub(crate) fn is_file(self) -> bool {
        matches!(
            self,
            Self::PeersPasswordFile | Self::TlsCaCertFile | Self::TlsCertFile | Self::TlsKeyFile
        )
    }

    /// Whether there may be blanks in the value.
    pub(crate) fn may_have_blanks(self) -> bool {
        self.is_file() || matches!(self, Self::Policies | Self::Peers | Self::SyncKeys)
    }

    /// Reads a module argument.
    pub(crate) fn parse(self, text: &str) -> Result<Value, Error> {
        let Some((least, most)) = self.bounds() else {
            let value = Value::Text(text.to_owned());
            // Whatever would be refused later is refused here.
            Settings::default().set(self, &value, 0)?;
            return Ok(value);
        };
        let value = decimal::digits(text.as_bytes()).ok().and_then(|v| i64::try_from(v).ok());
        value
            .filter(|value| (least..=most).contains(value))
            .map(Value::Integer)
            .ok_or(Error::OutOfRange(self.quantity()))
    }

    fn quantity(self) -> Quantity {
        match self {
            Self::SyncIntervalMs => Quantity::SyncInterval,
            Self::PartitionTimeoutMs => Quantity::PartitionTimeout,
            _ => Quantity::Capacity,
        }
    }
}

fn refill(text: &str) -> Result<u64, Error> {
    decimal::parse_refill(text.as_bytes()).ok_or(Error::OutOfRange(Quantity::Refill))
}

/// The values in force.
#[derive(Debug)]
pub(crate) struct Settings {
    max_tokens: u64,
    refill_per_sec: u64,
    merge_strategy: Strategy,
    sync: SyncSettings,
    /// Whether `sync` was set since it was last asked for.
    sync_changed: bool,
    /// Peers that are in force as soon as all that was set with them is: see [`Settings::apply`].
    next_peers: Option<Vec<PeerUrl>>,
    configured: Configured,
    loaded: bool,
}

/// What region sync goes by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SyncSettings {
    pub(crate) strategy: Strategy,
    pub(crate) replica_id: Option<ReplicaId>,
    pub(crate) peers: Vec<PeerUrl>,
    pub(crate) password_file: String,
    pub(crate) tls_ca_cert_file: String,
    pub(crate) tls_cert_file: String,
    pub(crate) tls_key_file: String,
    pub(crate) keys: Globs,
    pub(crate) interval_ms: u64,
    pub(crate) partition_timeout_ms: u64,
    pub(crate) guard: PartitionPolicy,
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self {
            strategy: Strategy::Debit,
            replica_id: None,
            peers: Vec::new(),
            password_file: String::new(),
            tls_ca_cert_file: String::new(),
            tls_cert_file: String::new(),
            tls_key_file: String::new(),
            keys: Globs::default(),
            interval_ms: 50,
            partition_timeout_ms: 2_000,
            guard: PartitionPolicy::default(),
        }
    }
}

impl SyncSettings {
    fn get(&self, parameter: Parameter) -> Option<Value> {
        let integer = |value: u64| Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
        Some(match parameter {
            Parameter::SyncIntervalMs => integer(self.interval_ms),
            Parameter::PartitionTimeoutMs => integer(self.partition_timeout_ms),
            Parameter::SyncStrategy => Value::Text(self.strategy.to_string()),
            Parameter::ReplicaId => {
                Value::Text(self.replica_id.map(|id| id.to_string()).unwrap_or_default())
            }
            Parameter::Peers => {
                // Without passwords.
                let urls: Vec<String> = self.peers.iter().map(ToString::to_string).collect();
                Value::Text(urls.join(" "))
            }
            Parameter::PeersPasswordFile => Value::Text(self.password_file.clone()),
            Parameter::TlsCaCertFile => Value::Text(self.tls_ca_cert_file.clone()),
            Parameter::TlsCertFile => Value::Text(self.tls_cert_file.clone()),
            Parameter::TlsKeyFile => Value::Text(self.tls_key_file.clone()),
            Parameter::SyncKeys => Value::Text(self.keys.as_str().to_owned()),
            Parameter::PartitionGuard => Value::Text(self.guard.name().to_owned()),
            Parameter::MaxTokens
            | Parameter::RefillRatePerSec
            | Parameter::Policies
            | Parameter::MergeStrategy => return None,
        })
    }

    fn set(&mut self, parameter: Parameter, value: &Value) -> Result<(), Error> {
        let wrong = || Error::OutOfRange(parameter.quantity());
        let text = match value {
            Value::Integer(value) => {
                let value = u64::try_from(*value).map_err(|_| wrong())?;
                match parameter {
                    Parameter::SyncIntervalMs => self.interval_ms = value,
                    Parameter::PartitionTimeoutMs => self.partition_timeout_ms = value,
                    _ => return Err(wrong()),
                }
                return Ok(());
            }
            Value::Text(text) => text.as_str(),
        };
        let file = || match text.len() <= MAX_FILE_NAME && !text.contains('\0') {
            true => Ok(text.to_owned()),
            false => Err(Error::FileName),
        };
        match parameter {
            Parameter::SyncStrategy => self.strategy = Strategy::parse(text.as_bytes())?,
            Parameter::ReplicaId => {
                self.replica_id = match text {
                    "" => None,
                    text => Some(
                        text.parse().map_err(|why| Error::ReplicaId { id: text.into(), why })?,
                    ),
                };
            }
            Parameter::PeersPasswordFile => self.password_file = file()?,
            Parameter::TlsCaCertFile => self.tls_ca_cert_file = file()?,
            Parameter::TlsCertFile => self.tls_cert_file = file()?,
            Parameter::TlsKeyFile => self.tls_key_file = file()?,
            Parameter::SyncKeys => self.keys = Globs::parse(text).map_err(Error::SyncKeys)?,
            Parameter::PartitionGuard => {
                self.guard = PartitionPolicy::by_name(text.as_bytes())
                    .ok_or_else(|| Error::UnknownGuard(text.as_bytes().into()))?;
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        let refill = DEFAULT_REFILL.saturating_mul(MICRO);
        Self {
            max_tokens: DEFAULT_CAPACITY,
            refill_per_sec: refill,
            merge_strategy: Strategy::default(),
            sync: SyncSettings::default(),
            sync_changed: true,
            next_peers: None,
            configured: Configured::new(Policy::DEFAULT),
            loaded: false,
        }
    }
}

impl Settings {
    /// The rules and the default policy, and what they were before.
    pub(crate) fn configured(&self) -> &Configured {
        &self.configured
    }

    /// The strategy of merges that name none.
    pub(crate) fn merge_strategy(&self) -> &Strategy {
        &self.merge_strategy
    }

    /// What region sync goes by.
    pub(crate) fn sync(&self) -> &SyncSettings {
        &self.sync
    }

    /// Whether any of [`Self::sync`] was set since this was last asked.
    pub(crate) fn take_sync_changed(&mut self) -> bool {
        std::mem::take(&mut self.sync_changed)
    }

    /// From now on a change of what is configured for buckets has a history.
    pub(crate) fn loaded(&mut self) {
        self.loaded = true;
    }

    pub(crate) fn get(&self, parameter: Parameter) -> Value {
        match parameter {
            Parameter::MaxTokens => {
                Value::Integer(i64::try_from(self.max_tokens).unwrap_or(i64::MAX))
            }
            Parameter::RefillRatePerSec => {
                Value::Text(Decimal::new(self.refill_per_sec).to_string())
            }
            Parameter::Policies => Value::Text(self.configured.rules().as_str().to_owned()),
            Parameter::MergeStrategy => Value::Text(self.merge_strategy.to_string()),
            other => self.sync.get(other).unwrap_or_else(|| other.default()),
        }
    }

    /// All parameters of a command are set. Where one of them is refused the server sets those
    /// before it to what it was shown of them, and this is not called: so peers, of whom the
    /// passwords are not shown, are what they were until now.
    pub(crate) fn apply(&mut self) {
        if let Some(peers) = self.next_peers.take() {
            self.sync_changed |= self.sync.peers != peers;
            self.sync.peers = peers;
        }
    }

    /// Sets a parameter at `now` (unix microseconds), peers with [`Self::apply`] only.
    pub(crate) fn set(
        &mut self,
        parameter: Parameter,
        value: &Value,
        now: u64,
    ) -> Result<(), Error> {
        // What is set before the module is loaded has always been so.
        let since = if self.loaded { now } else { 0 };
        let (mut max_tokens, mut refill_per_sec) = (self.max_tokens, self.refill_per_sec);
        match (parameter, value) {
            (Parameter::MaxTokens, Value::Integer(value)) => {
                max_tokens =
                    u64::try_from(*value).map_err(|_| Error::OutOfRange(Quantity::Capacity))?;
            }
            (Parameter::RefillRatePerSec, Value::Text(text)) => refill_per_sec = refill(text)?,
            (Parameter::Policies, Value::Text(text)) => {
                self.configured.set_rules(Rules::parse(text).map_err(Error::Policies)?, since);
                return Ok(());
            }
            (Parameter::Peers, Value::Text(text)) => {
                let mut peers = claw_sync::parse_peers(text).map_err(Error::Peers)?;
                if self.loaded {
                    // CONFIG GET shows no passwords; what it shows can be set again.
                    claw_sync::reveal(&mut peers, &self.sync.peers).map_err(Error::Peers)?;
                    self.next_peers = Some(peers);
                } else {
                    // As CONFIG REWRITE has written them they come without passwords.
                    self.sync.peers = peers;
                }
                return Ok(());
            }
            (Parameter::MergeStrategy, Value::Text(text)) => {
                self.merge_strategy = Strategy::parse(text.as_bytes())?;
                return Ok(());
            }
            (
                Parameter::MaxTokens
                | Parameter::RefillRatePerSec
                | Parameter::Policies
                | Parameter::MergeStrategy,
                _,
            ) => {
                return Err(Error::OutOfRange(Quantity::Capacity));
            }
            (other, value) => {
                let before = self.sync.clone();
                self.sync.set(other, value)?;
                self.sync_changed |= self.sync != before;
                return Ok(());
            }
        }
        let policy = Policy::new(max_tokens, refill_per_sec, DEFAULT_INTERVAL_MS)?;
        (self.max_tokens, self.refill_per_sec) = (max_tokens, refill_per_sec);
        self.configured.set_default(policy, since);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_files_are_not_ours() {
        let ours = |name: &str| Parameter::by_full_name(name).is_some_and(Parameter::is_file);
        for file in ["peers-password-file", "tls-ca-cert-file", "tls-cert-file", "tls-key-file"] {
            assert!(ours(&format!("claw.{file}")), "{file}");
            assert!(!ours(file), "{file}");
        }
        assert!(!ours("claw.peers"));
        // As a module argument either name will do.
        assert_eq!(Parameter::by_name("tls-key-file"), Some(Parameter::TlsKeyFile));
        assert_eq!(Parameter::by_name("claw.tls-key-file"), Some(Parameter::TlsKeyFile));
    }
}
