//! Every error of the commands, with its text.

use claw_core::codec::BlobError;
use claw_core::debits::LastVersion;
use claw_core::error::Internal;
use claw_core::glob::GlobsError;
use claw_core::limits::{MAX_INTERVAL_MS, MAX_REPLICAS, MAX_TOKENS};
use claw_core::membership::PROTOCOL;
use claw_core::open::Refusal;
use claw_core::policy::PolicyError;
use claw_core::record::{Field, FieldError};
use claw_core::replica::{ReplicaId, ReplicaIdError};
use claw_core::rules::RulesError;
use claw_core::throttle::ThrottleError;
use claw_sync::PeerError;
use std::ffi::CString;
use std::fmt;

/// How many bytes of a key, value or option are quoted in an error.
const QUOTED: usize = 64;

/// Most keys or states of one call: it occupies the server for a few milliseconds.
pub(crate) const MAX_IN_CALL: usize = 1_024;

/// How many bytes of a function's own error are shown.
const MESSAGE: usize = 300;

/// Why a command did nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// Too few or too many arguments.
    Arity(&'static str),
    /// The key holds something else than a hash.
    WrongType,
    /// A field of a bucket cannot be understood.
    Field { key: Box<[u8]>, field: Field, value: Box<[u8]>, why: FieldError },
    /// A field cannot be understood, of a hash that may be somebody else's: without its value.
    HiddenField { key: Box<[u8]>, field: Field, why: FieldError },
    /// A number that is none, or is out of its bounds.
    OutOfRange(Quantity),
    /// An option that the command does not have.
    UnknownOption(Box<[u8]>),
    /// An option given twice.
    Repeated(&'static str),
    /// An option without its value.
    NoValue(&'static str),
    /// INTERVAL without REFILL.
    LoneInterval,
    /// CAPACITY without REFILL, where a call brings a policy.
    LoneCapacity,
    /// REFILL 0 without CAPACITY.
    NoCapacity,
    /// FOR without a policy.
    LoneFor,
    /// FOR with WEIGHT.
    ForWeight,
    /// RESET with other options.
    LoneReset,
    /// `AND` with nothing behind it.
    NoKey,
    /// A key named twice, with two policies.
    TwoPolicies(Box<[u8]>),
    /// More keys announced than arguments are there.
    NumKeys,
    /// A strategy that does not exist.
    UnknownStrategy(Box<[u8]>),
    /// CL.MERGE without FROM, FIELDS or STATE.
    NoSource,
    /// FIELDS with a name and no value, or without `tokens`.
    Fields(&'static str),
    /// A value of FIELDS cannot be understood.
    GivenField { field: Field, value: Box<[u8]>, why: FieldError },
    /// A blob of STATE cannot be read.
    Blob { index: usize, why: BlobError },
    /// A state of a peer cannot be read.
    State(BlobError),
    /// The names before the states of a peer cannot be read.
    Names,
    /// More keys or states than one call may bring.
    TooMany,
    /// A peer's state of a key that is not shared here.
    NotShared(Box<[u8]>),
    /// A peer's state of a key that holds a hash which is no bucket.
    Foreign(Box<[u8]>),
    /// A peer merges by another strategy.
    OtherStrategy { here: Box<str>, there: Box<str> },
    /// The bucket's field of unknown newer fields is not MessagePack.
    Newer(Box<[u8]>),
    /// Fields of later versions, from several states, are too long together.
    NewerTooLong,
    /// The function failed, or what it returned is no bucket.
    Function { name: Box<str>, why: Box<[u8]> },
    /// The function returned more tokens than the capacity.
    AboveCapacity(Box<str>),
    /// A function was asked for inside a script.
    Nested,
    /// A function was asked for where the server does not check what it calls.
    UncheckedFunctions,
    /// `claw.replica-id` is no name.
    ReplicaId { id: Box<str>, why: ReplicaIdError },
    /// `claw.peers` cannot be understood.
    Peers(PeerError),
    /// `claw.policies` cannot be understood.
    Policies(RulesError),
    /// `claw.sync-keys` cannot be understood.
    SyncKeys(GlobsError),
    /// The value of a parameter is not UTF-8.
    NotUtf8,
    /// A file name is too long, or no name.
    FileName,
    /// A partition guard that does not exist.
    UnknownGuard(Box<[u8]>),
    /// A round from somebody with our own name.
    OwnReplicaId(ReplicaId),
    /// A round of another version of the protocol; `me` is the name of this region.
    Protocol { theirs: Box<[u8]>, me: Option<ReplicaId> },
    /// What needs region sync, where it is off.
    SyncOff(&'static str),
    /// `debit` was asked for where it cannot be.
    Debit(&'static str),
    /// A bucket of too many replicas.
    TooManyReplicas,
    /// No change of policy or weight can be counted any more.
    LastVersion,
    /// The module's state is in use; happens only inside an event handler of
    /// another module that changes our configuration.
    Busy,
    /// What cannot be: a mistake of this module. Nothing has been changed.
    Internal(&'static str),
    /// A panic was caught.
    Panic,
}

/// A number in the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    Tokens,
    Reserved,
    Used,
    Keep,
    Capacity,
    Refill,
    Interval,
    Duration,
    Weight,
    NumKeys,
    MaxBurst,
    Count,
    Period,
    Signed,
    Samples,
    Budget,
    Seed,
    Rate,
    /// The fingerprint of the rules of `claw.policies`.
    Rules,
    Sent,
    Masters,
    SyncInterval,
    PartitionTimeout,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens => write!(f, "tokens must be an integer from 0 to {MAX_TOKENS}"),
            Self::Capacity => write!(f, "capacity must be an integer from 0 to {MAX_TOKENS}"),
            Self::Keep => write!(f, "KEEP must be an integer from 0 to {MAX_TOKENS}"),
            Self::Reserved => write!(f, "reserved must be an integer from 0 to {MAX_TOKENS}"),
            Self::Used => write!(f, "used must be an integer from 0 to {MAX_TOKENS}"),
            Self::Refill => {
                write!(f, "refill must be 0 or a number from 0.000001 to {MAX_TOKENS}")
            }
            Self::Interval => {
                write!(f, "interval must be an integer from 1 to {MAX_INTERVAL_MS} milliseconds")
            }
            Self::Duration => {
                write!(f, "FOR must be an integer from 1 to {MAX_INTERVAL_MS} milliseconds")
            }
            Self::Weight => f.write_str("weight must be an integer from 1 to 10"),
            Self::NumKeys => f.write_str("numkeys must be an integer of 1 or more"),
            Self::MaxBurst => {
                write!(f, "max_burst must be an integer from 0 to {}", MAX_TOKENS.saturating_sub(1))
            }
            Self::Count => write!(f, "count must be an integer from 1 to {MAX_TOKENS}"),
            Self::Period => {
                write!(f, "period must be an integer from 1 to {} seconds", MAX_INTERVAL_MS / 1_000)
            }
            Self::Samples => f.write_str("samples must be an integer from 1 to 20000"),
            Self::Budget => f.write_str("budget must be an integer from 1 to 10000 milliseconds"),
            Self::Rules => {
                f.write_str("a fingerprint of rules must be a hexadecimal number of 64 bits")
            }
            Self::Rate => write!(f, "a rate must be an integer from 0 to {}", u64::MAX),
            Self::Sent => write!(f, "sent must be an integer from 0 to {}", u64::MAX),
            Self::Masters => write!(f, "masters must be an integer from 1 to {}", u16::MAX),
            Self::SyncInterval => f.write_str("sync-interval-ms must be from 1 to 60000"),
            Self::PartitionTimeout => {
                f.write_str("partition-timeout-ms must be from 100 to 3600000")
            }
            Self::Seed => write!(f, "seed must be an integer from 0 to {}", u64::MAX),
            Self::Signed => {
                write!(f, "quantity must be an integer from -{MAX_TOKENS} to {MAX_TOKENS}")
            }
        }
    }
}

impl Error {
    /// On a server without a name or peers.
    pub(crate) const NOT_A_REGION: Self =
        Self::SyncOff("claw.replica-id and claw.peers are not both set");

    /// The error reply: a code, a space, and the reason.
    pub(crate) fn line(&self) -> CString {
        let code = match self {
            Self::WrongType => "WRONGTYPE",
            Self::Function { why, .. } if is_no_permission(why) => "NOPERM",
            _ => "ERR",
        };
        // Quoted bytes are escaped, so there is neither NUL nor line break.
        let line = CString::new(format!("{code} {}", self.reason()));
        debug_assert!(line.is_ok(), "an error with a NUL in it");
        line.unwrap_or_else(|_| c"ERR internal error: an error that cannot be shown".to_owned())
    }

    /// The reason alone.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Arity(command) => format!("wrong number of arguments for '{command}' command"),
            Self::WrongType => "Operation against a key holding the wrong kind of value".to_owned(),
            Self::Field { key, field, value, why } => {
                let (key, value) = (Quoted(key), Quoted(value));
                format!("bucket {key}: field '{}' holds {value}, which {why}", field.name())
            }
            Self::OutOfRange(quantity) => quantity.to_string(),
            Self::UnknownOption(option) => format!("unknown option {}", Quoted(option)),
            Self::Repeated(option) => format!("option '{option}' is given twice"),
            Self::NoValue(option) => format!("option '{option}' needs a value"),
            Self::LoneInterval => "option 'INTERVAL' needs 'REFILL'".to_owned(),
            Self::LoneCapacity => "option 'CAPACITY' needs 'REFILL'".to_owned(),
            Self::NoCapacity => "option 'REFILL' with 0 needs 'CAPACITY'".to_owned(),
            Self::LoneFor => "option 'FOR' needs 'CAPACITY' or 'REFILL'".to_owned(),
            Self::ForWeight => "option 'FOR' cannot be combined with 'WEIGHT'".to_owned(),
            Self::LoneReset => "option 'RESET' stands alone".to_owned(),
            Self::NoKey => "a key is missing after 'AND'".to_owned(),
            Self::TwoPolicies(key) => format!("key {} is given two policies", Quoted(key)),
            Self::NumKeys => "numkeys is larger than the number of arguments".to_owned(),
            Self::UnknownStrategy(name) => {
                format!(
                    "unknown strategy {}: max, min, weighted, lww, debit or fn:NAME",
                    Quoted(name)
                )
            }
            Self::NoSource => "what to merge is missing: FROM, FIELDS or STATE".to_owned(),
            Self::Fields(why) => format!("FIELDS {why}"),
            Self::GivenField { field, value, why } => {
                format!("field '{}' is {}, which {why}", field.name(), Quoted(value))
            }
            Self::Blob { index, why } => format!("state {index} {why}"),
            Self::Newer(key) => format!("bucket {}: field 'newer' cannot be read", Quoted(key)),
            Self::NewerTooLong => {
                "the fields of later versions in these states are too long together".to_owned()
            }
            Self::Function { name, why } => {
                let code = [b"ERR ".as_slice(), b"NOPERM "].into_iter();
                let why = code.filter_map(|code| why.strip_prefix(code)).next().unwrap_or(why);
                let why = String::from_utf8_lossy(why.get(..MESSAGE).unwrap_or(why));
                // One line, whatever the function says.
                let why = why.replace(char::is_control, " ");
                format!("function '{name}': {why}")
            }
            Self::AboveCapacity(name) => {
                format!("function '{name}': it returned more tokens than the capacity")
            }
            Self::Nested => {
                "a strategy fn:NAME cannot be used inside a script or function".to_owned()
            }
            Self::UncheckedFunctions => {
                "a strategy fn:NAME needs Redis 7.0.6 or later: this server does not check what a \
                 function calls against the rights of its caller"
                    .to_owned()
            }
            Self::ReplicaId { id, why } => {
                format!("replica-id {} {why}", Quoted(id.as_bytes()))
            }
            Self::Peers(why) => format!("peers: {why}"),
            Self::Policies(RulesError { number, entry, why }) => {
                format!("policies: entry {number} {} {why}", Quoted(entry.as_bytes()))
            }
            Self::SyncKeys(why) => format!("sync-keys: {why}"),
            Self::NotUtf8 => "a value must be UTF-8".to_owned(),
            Self::FileName => "a file name must be of at most 4096 bytes, without NUL".to_owned(),
            Self::UnknownGuard(name) => {
                format!("unknown partition guard {}: off, equal or share", Quoted(name))
            }
            Self::OwnReplicaId(id) => {
                format!("replica-id '{id}' is this server's own: every region needs another one")
            }
            Self::Protocol { theirs, me } => {
                let me = me.map_or("this server".to_owned(), |me| format!("region '{me}'"));
                format!("{me} speaks version {PROTOCOL} of region sync, not {}", Quoted(theirs))
            }
            Self::SyncOff(why) => format!("region sync is off: {why}"),
            Self::Debit(why) => format!("strategy debit: {why}"),
            Self::TooManyReplicas => format!("more than {MAX_REPLICAS} replicas in one bucket"),
            Self::LastVersion => {
                "no number is left for a change of policy or weight of this bucket: delete the key, in all regions"
                    .to_owned()
            }
            Self::HiddenField { key, field, why } => {
                let (key, field) = (Quoted(key), field.name());
                format!("bucket {key}: field '{field}' holds what {why}")
            }
            Self::State(BlobError::Malformed) => "the state cannot be read".to_owned(),
            Self::State(why) => format!("the state {why}"),
            Self::Names => "names must be replica-ids with commas between them".to_owned(),
            Self::TooMany => format!("more than {MAX_IN_CALL} keys or states in one call"),
            Self::NotShared(key) => format!("key {} is not shared here", Quoted(key)),
            Self::Foreign(key) => format!("key {} holds a hash that is no bucket", Quoted(key)),
            Self::OtherStrategy { here, there } => {
                format!("sync-strategy is '{here}' here and '{there}' at the peer")
            }
            Self::Internal(what) => {
                format!("internal error: {what}; please report it as a bug of redis-claw")
            }
            Self::Busy => "the module is busy with a change of its configuration".to_owned(),
            Self::Panic => {
                "internal error: a panic was caught; please report it as a bug of redis-claw"
                    .to_owned()
            }
        }
    }
}

/// Whether the server did not let the user call a function. Redis 7.0 has no code for it there.
fn is_no_permission(why: &[u8]) -> bool {
    let old: &[u8] = b"acl verification failed";
    why.starts_with(b"NOPERM ") || why.strip_prefix(b"ERR ").unwrap_or(why).starts_with(old)
}

impl From<Internal> for Error {
    fn from(Internal(what): Internal) -> Self {
        Self::Internal(what)
    }
}

impl From<LastVersion> for Error {
    fn from(LastVersion: LastVersion) -> Self {
        Self::LastVersion
    }
}

impl Error {
    /// Without what a field holds: for whoever need not see it.
    pub(crate) fn without_value(self) -> Self {
        match self {
            Self::Field { key, field, why, .. } => Self::HiddenField { key, field, why },
            error => error,
        }
    }

    /// Why a state was not merged into the bucket of a key, or a change not written to it.
    pub(crate) fn refused(refusal: Refusal, key: &[u8]) -> Self {
        match refusal {
            Refusal::Foreign => Self::Foreign(key.into()),
            Refusal::TooManyReplicas => Self::TooManyReplicas,
            Refusal::Unbelievable => {
                Self::Debit("a state counts further for this region than it can have")
            }
            Refusal::Internal(what) => what.into(),
        }
    }
}

impl From<PolicyError> for Error {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Capacity => Self::OutOfRange(Quantity::Capacity),
            PolicyError::Refill => Self::OutOfRange(Quantity::Refill),
            PolicyError::Interval => Self::OutOfRange(Quantity::Interval),
            PolicyError::NoRefill => Self::LoneCapacity,
            PolicyError::NoCapacity => Self::NoCapacity,
        }
    }
}

impl From<ThrottleError> for Error {
    fn from(error: ThrottleError) -> Self {
        Self::OutOfRange(match error {
            ThrottleError::MaxBurst => Quantity::MaxBurst,
            ThrottleError::Count => Quantity::Count,
            ThrottleError::Period => Quantity::Period,
        })
    }
}

/// Bytes in single quotes, escaped and cut to [`QUOTED`].
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..QUOTED).unwrap_or(self.0);
        let cut = if shown.len() < self.0.len() { "..." } else { "" };
        write!(f, "'{}'{cut}", shown.escape_ascii())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use claw_core::decimal::DecimalError;
    use claw_core::timestamp::TimestampError;

    /// Every text that a client can see, in full.
    #[test]
    fn texts() {
        let field = |field, value: &[u8], why| Error::Field {
            key: b"user:1".as_slice().into(),
            field,
            value: value.into(),
            why,
        };
        let range = Error::OutOfRange;
        let id = ReplicaId::new(b"eu").unwrap();
        #[rustfmt::skip]
        let table = [
            (Error::ReplicaId { id: "a b".into(), why: ReplicaIdError }, "ERR replica-id 'a b' is not 1 to 31 letters, digits, dots, dashes or underscores"),
            (Error::SyncKeys(GlobsError::Lone(2)), "ERR sync-keys: pattern 2 has nothing behind its '!'"),
            (Error::NotUtf8, "ERR a value must be UTF-8"),
            (Error::FileName, "ERR a file name must be of at most 4096 bytes, without NUL"),
            (Error::UnknownGuard(b"on".as_slice().into()), "ERR unknown partition guard 'on': off, equal or share"),
            (Error::OwnReplicaId(id), "ERR replica-id 'eu' is this server's own: every region needs another one"),
            (Error::Protocol { theirs: b"2".as_slice().into(), me: Some(id) }, "ERR region 'eu' speaks version 3 of region sync, not '2'"),
            (Error::Protocol { theirs: b"us".as_slice().into(), me: None }, "ERR this server speaks version 3 of region sync, not 'us'"),
            (Error::NOT_A_REGION, "ERR region sync is off: claw.replica-id and claw.peers are not both set"),
            (Error::SyncOff("why"), "ERR region sync is off: why"),
            (Error::Debit("why"), "ERR strategy debit: why"),
            (Error::UncheckedFunctions, "ERR a strategy fn:NAME needs Redis 7.0.6 or later: this server does not check what a function calls against the rights of its caller"),
            (Error::LastVersion, "ERR no number is left for a change of policy or weight of this bucket: delete the key, in all regions"),
            (Error::TooManyReplicas, "ERR more than 16 replicas in one bucket"),
            (range(Quantity::Rules), "ERR a fingerprint of rules must be a hexadecimal number of 64 bits"),
            (range(Quantity::Rate), "ERR a rate must be an integer from 0 to 18446744073709551615"),
            (range(Quantity::Sent), "ERR sent must be an integer from 0 to 18446744073709551615"),
            (range(Quantity::Masters), "ERR masters must be an integer from 1 to 65535"),
            (range(Quantity::SyncInterval), "ERR sync-interval-ms must be from 1 to 60000"),
            (range(Quantity::PartitionTimeout), "ERR partition-timeout-ms must be from 100 to 3600000"),
            (field(Field::Debits, b"x", FieldError::Debits), "ERR bucket 'user:1': field 'debits' holds 'x', which is not the MessagePack of debit counters"),
            (Error::Arity("cl.take"), "ERR wrong number of arguments for 'cl.take' command"),
            (Error::WrongType, "WRONGTYPE Operation against a key holding the wrong kind of value"),
            (field(Field::Tokens, b"abc", FieldError::Tokens(DecimalError::NotANumber)), "ERR bucket 'user:1': field 'tokens' holds 'abc', which is not a decimal number"),
            (field(Field::Tokens, b"1000000000001", FieldError::Tokens(DecimalError::TooLarge)), "ERR bucket 'user:1': field 'tokens' holds '1000000000001', which is too large"),
            (field(Field::Timestamp, b"soon", FieldError::Timestamp(TimestampError::NotATime)), "ERR bucket 'user:1': field 'timestamp' holds 'soon', which is neither unix microseconds nor an RFC 3339 time"),
            (field(Field::Timestamp, b"1969-01-01T00:00:00Z", FieldError::Timestamp(TimestampError::OutOfRange)), "ERR bucket 'user:1': field 'timestamp' holds '1969-01-01T00:00:00Z', which is not between the years 1970 and 9999"),
            (field(Field::Timestamp, b"9", FieldError::Ahead), "ERR bucket 'user:1': field 'timestamp' holds '9', which is more than 30 days ahead of the server's clock"),
            (field(Field::Weight, b"0", FieldError::Weight), "ERR bucket 'user:1': field 'userWeight' holds '0', which is not an integer from 1 to 10"),
            (field(Field::Policy, b"fast", FieldError::Policy(claw_core::policy::PolicyTextError)), "ERR bucket 'user:1': field 'policy' holds 'fast', which is not 'capacity refill/interval [pinned [version]]' within the bounds"),
            (field(Field::Temporary, b"soon", FieldError::Temporary(claw_core::policy::TemporaryTextError)), "ERR bucket 'user:1': field 'temporary' holds 'soon', which is not 'capacity refill/interval until time version number' within the bounds"),
            (field(Field::Remainder, b"-1", FieldError::Remainder), "ERR bucket 'user:1': field 'remainder' holds '-1', which is not an integer of 0 or more"),
            (range(Quantity::Tokens), "ERR tokens must be an integer from 0 to 1000000000000"),
            (range(Quantity::Capacity), "ERR capacity must be an integer from 0 to 1000000000000"),
            (range(Quantity::Keep), "ERR KEEP must be an integer from 0 to 1000000000000"),
            (range(Quantity::Reserved), "ERR reserved must be an integer from 0 to 1000000000000"),
            (range(Quantity::Used), "ERR used must be an integer from 0 to 1000000000000"),
            (range(Quantity::Duration), "ERR FOR must be an integer from 1 to 31622400000 milliseconds"),
            (range(Quantity::Refill), "ERR refill must be 0 or a number from 0.000001 to 1000000000000"),
            (range(Quantity::Interval), "ERR interval must be an integer from 1 to 31622400000 milliseconds"),
            (range(Quantity::Weight), "ERR weight must be an integer from 1 to 10"),
            (range(Quantity::NumKeys), "ERR numkeys must be an integer of 1 or more"),
            (range(Quantity::MaxBurst), "ERR max_burst must be an integer from 0 to 999999999999"),
            (range(Quantity::Count), "ERR count must be an integer from 1 to 1000000000000"),
            (range(Quantity::Period), "ERR period must be an integer from 1 to 31622400 seconds"),
            (range(Quantity::Signed), "ERR quantity must be an integer from -1000000000000 to 1000000000000"),
            (Error::UnknownOption(b"FOO".as_slice().into()), "ERR unknown option 'FOO'"),
            (Error::Repeated("REFILL"), "ERR option 'REFILL' is given twice"),
            (Error::NoValue("REFILL"), "ERR option 'REFILL' needs a value"),
            (Error::LoneInterval, "ERR option 'INTERVAL' needs 'REFILL'"),
            (Error::LoneCapacity, "ERR option 'CAPACITY' needs 'REFILL'"),
            (Error::NoCapacity, "ERR option 'REFILL' with 0 needs 'CAPACITY'"),
            (Error::LoneReset, "ERR option 'RESET' stands alone"),
            (Error::LoneFor, "ERR option 'FOR' needs 'CAPACITY' or 'REFILL'"),
            (Error::ForWeight, "ERR option 'FOR' cannot be combined with 'WEIGHT'"),
            (Error::NoKey, "ERR a key is missing after 'AND'"),
            (Error::TwoPolicies(b"user:1".as_slice().into()), "ERR key 'user:1' is given two policies"),
            (Error::NumKeys, "ERR numkeys is larger than the number of arguments"),
            (range(Quantity::Samples), "ERR samples must be an integer from 1 to 20000"),
            (range(Quantity::Budget), "ERR budget must be an integer from 1 to 10000 milliseconds"),
            (range(Quantity::Seed), "ERR seed must be an integer from 0 to 18446744073709551615"),
            (Error::UnknownStrategy(b"avg".as_slice().into()), "ERR unknown strategy 'avg': max, min, weighted, lww, debit or fn:NAME"),
            (Error::NoSource, "ERR what to merge is missing: FROM, FIELDS or STATE"),
            (Error::Fields("needs 'tokens'"), "ERR FIELDS needs 'tokens'"),
            (Error::GivenField { field: Field::Tokens, value: b"x".as_slice().into(), why: FieldError::Tokens(DecimalError::NotANumber) }, "ERR field 'tokens' is 'x', which is not a decimal number"),
            (Error::Blob { index: 1, why: BlobError::Malformed }, "ERR state 1 is not a state as CL.STATE returns it"),
            (Error::Function { name: "f".into(), why: b"ERR no luck".as_slice().into() }, "ERR function 'f': no luck"),
            (Error::Function { name: "f".into(), why: b"NOPERM User u has no permissions".as_slice().into() }, "NOPERM function 'f': User u has no permissions"),
            (Error::Function { name: "f".into(), why: b"ERR acl verification failed, no.".as_slice().into() }, "NOPERM function 'f': acl verification failed, no."),
            (Error::Blob { index: 1, why: BlobError::Missing("tokens") }, "ERR state 1 has no field 'tokens'"),
            (Error::Blob { index: 1, why: BlobError::Repeated("tokens") }, "ERR state 1 holds the field 'tokens' twice"),
            (Error::Blob { index: 1, why: BlobError::Wrong("policy", "map") }, "ERR state 1 holds a field 'policy' that is no map"),
            (Error::Blob { index: 2, why: BlobError::TooLong }, "ERR state 2 is longer than 8192 bytes"),
            (Error::Blob { index: 1, why: BlobError::OutOfBounds("tokens") }, "ERR state 1 holds a field 'tokens' out of its bounds"),
            (Error::Newer(b"user:1".as_slice().into()), "ERR bucket 'user:1': field 'newer' cannot be read"),
            (Error::Function { name: "f".into(), why: b"ERR Function not found".as_slice().into() }, "ERR function 'f': Function not found"),
            (Error::NewerTooLong, "ERR the fields of later versions in these states are too long together"),
            (Error::AboveCapacity("f".into()), "ERR function 'f': it returned more tokens than the capacity"),
            (Error::Nested, "ERR a strategy fn:NAME cannot be used inside a script or function"),
            (Error::HiddenField { key: b"user:1".as_slice().into(), field: Field::Timestamp, why: FieldError::Timestamp(TimestampError::NotATime) }, "ERR bucket 'user:1': field 'timestamp' holds what is neither unix microseconds nor an RFC 3339 time"),
            (Error::State(BlobError::Malformed), "ERR the state cannot be read"),
            (Error::Names, "ERR names must be replica-ids with commas between them"),
            (Error::TooMany, "ERR more than 1024 keys or states in one call"),
            (Error::NotShared(b"user:1".as_slice().into()), "ERR key 'user:1' is not shared here"),
            (Error::Foreign(b"user:1".as_slice().into()), "ERR key 'user:1' holds a hash that is no bucket"),
            (Error::OtherStrategy { here: "max".into(), there: "debit".into() }, "ERR sync-strategy is 'max' here and 'debit' at the peer"),
            (Error::Internal("why"), "ERR internal error: why; please report it as a bug of redis-claw"),
            (Error::Busy, "ERR the module is busy with a change of its configuration"),
            (Error::Panic, "ERR internal error: a panic was caught; please report it as a bug of redis-claw"),
        ];
        for (error, text) in table {
            assert_eq!(error.line().to_str(), Ok(text));
        }
    }

    /// Whatever is quoted, the reply stays one line of printable ASCII.
    #[test]
    fn quoted_bytes_are_escaped_and_cut() {
        let hostile = b"a\0b\r\n'%s\xff".as_slice();
        let line = Error::UnknownOption(hostile.into()).line();
        assert_eq!(line.to_str(), Ok(r"ERR unknown option 'a\x00b\r\n\'%s\xff'"));
        let line = Error::UnknownOption(vec![b'x'; 1000].into()).line();
        assert_eq!(line.to_bytes().len(), "ERR unknown option ''...".len() + QUOTED);
    }
}
