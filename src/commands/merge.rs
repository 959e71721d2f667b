//! `CL.MERGE key FROM numkeys src [src ..] [STRATEGY s]`,
//! `CL.MERGE key FIELDS field value [..] [STRATEGY s]` and
//! `CL.MERGE key STATE blob [blob ..] [STRATEGY s]`

mod debit;

use super::options::KEY;
use super::reply;
use crate::error::{Error, MAX_IN_CALL, Quantity};
use crate::host::{
    self, Access, Args, Argument, ArgumentKind, Command, Context, Key, Keys, OwnedStr, Spec, Str,
};
use crate::store;
use crate::strategy::Strategy;
use claw_core::bucket::Bucket;
use claw_core::codec::{self, Besides, BlobError, Decoded, Newer};
use claw_core::configured::ConfiguredFor;
use claw_core::merge::State;
use claw_core::open::OpenBucket;
use claw_core::policy::Policy;
use claw_core::record::{Field, Record};
use claw_core::shared::SharedBucket;

/// The field in which fields of later versions, that came in a state, are kept.
const NEWER: &[u8] = b"newer";

/// Merges other states of a bucket into it.
pub(crate) struct Merge;

impl Command for Merge {
    const SPEC: Spec = Spec {
        name: c"cl.merge",
        flags: c"write deny-oom getkeys-api",
        categories: c"write slow hash",
        arity: -4,
        keys: Keys::FirstAndFrom,
        access: Access::Update,
        summary: c"Merges other states of a bucket into it by a strategy.",
        complexity: c"O(N) with N the number of states",
        since: c"0.1.0",
        arguments: &[
            KEY,
            Argument::new(
                c"source",
                ArgumentKind::OneOf(&[
                    Argument::new(
                        c"from",
                        ArgumentKind::Block(&[
                            Argument::new(c"numkeys", ArgumentKind::Integer).token(c"FROM"),
                            Argument::new(c"src", ArgumentKind::SecondKey).multiple(),
                        ]),
                    ),
                    Argument::new(
                        c"fields",
                        ArgumentKind::Block(&[
                            Argument::new(c"field", ArgumentKind::Text),
                            Argument::new(c"value", ArgumentKind::Text),
                        ]),
                    )
                    .token(c"FIELDS")
                    .multiple(),
                    Argument::new(c"blob", ArgumentKind::Text).token(c"STATE").multiple(),
                ]),
            ),
            Argument::new(c"strategy", ArgumentKind::Text).token(c"STRATEGY").optional(),
        ],
    };

    fn run(ctx: &Context<'_>, args: Args<'_>) -> Result<(), Error> {
        let outcome = merge(ctx, args);
        if outcome.is_err() {
            ctx.module().stats.merge_errors.add(1);
        }
        outcome
    }
}

fn merge(ctx: &Context<'_>, mut args: Args<'_>) -> Result<(), Error> {
    let name = args.next().ok_or(Error::Arity("cl.merge"))?;
    let now = host::now();
    let (sources, strategy) = {
        let settings = ctx.module().settings()?;
        let configured = settings.configured().of(name.as_bytes());
        let sources = Sources::parse(ctx, &mut args, &configured, now)?;
        let strategy = match strategy(&mut args)? {
            Some(strategy) => strategy,
            None => settings.merge_strategy().clone(),
        };
        (sources, strategy)
    };
    let merged = match strategy {
        Strategy::Debit => debit::merge(ctx, name, sources.0, now),
        _ => merge_states(ctx, name, sources.0, &strategy, now, false),
    }?;
    ctx.reply_array(3);
    ctx.reply_integer(i64::from(merged.changed));
    ctx.reply_integer(reply::signed(merged.policy.capacity()));
    ctx.reply_integer(merged.remaining);
    Ok(())
}

/// What a merge has come to.
pub(super) struct Merged {
    pub(super) changed: bool,
    policy: Policy,
    /// Whole tokens; negative in debt.
    remaining: i64,
}

impl Merged {
    fn new(ctx: &Context<'_>, changed: bool, policy: Policy, remaining: i64) -> Self {
        if changed {
            ctx.module().stats.merged.add(1);
        }
        Self { changed, policy, remaining }
    }
}

/// Merges by a strategy that knows states only. What peers send is taken only for a bucket, and
/// goes on to nobody: they tell everybody themselves.
pub(super) fn merge_states(
    ctx: &Context<'_>,
    name: Str<'_>,
    sources: Vec<Stored>,
    strategy: &Strategy,
    now: u64,
    from_peer: bool,
) -> Result<Merged, Error> {
    // All is read and every key closed again before anything is merged, since a
    // function may make the server drop keys that have expired.
    let present = Stored::read(ctx, name, now)?;
    let mut merged: Option<Stored> = present.clone();
    for source in sources {
        merged = Some(match merged {
            None => source,
            Some(local) => Stored {
                state: strategy.merge(ctx, &local.state, &source.state, now)?,
                newer: codec::join_newer(local.newer, source.newer)
                    .map_err(|_| Error::NewerTooLong)?,
                ..local
            },
        });
    }

    // Compared as it is kept: a value in it need not equal itself.
    let newer_before =
        present.as_ref().map(|present| codec::encode_newer(&present.newer)).transpose()?;
    let newer_after =
        merged.as_ref().map(|merged| codec::encode_newer(&merged.newer)).transpose()?;
    let same_state = match (&present, &merged) {
        (Some(present), Some(merged)) => match strategy {
            Strategy::BuiltIn(strategy) => present.state.stands_for(&merged.state, *strategy, now),
            // What a function returns is one of many ways to say the same.
            Strategy::Debit | Strategy::Function(_) => present.state.same_from(&merged.state, now),
        },
        (None, None) => true,
        _ => false,
    };
    let unchanged = same_state && newer_before == newer_after;
    if let (Some(merged), false) = (&merged, unchanged) {
        let key = Key::open_write(ctx, name);
        let record = store::load(ctx, &key, now)?;
        if from_peer && record.as_ref().is_some_and(|record| !record.is_bucket()) {
            return Err(Error::Foreign(name.as_bytes().into()));
        }
        let mut opened = {
            let settings = ctx.module().settings()?;
            let configured = settings.configured().of(name.as_bytes());
            OpenBucket::merged(record, &merged.state, &configured, from_peer, now)
        };
        // A new key gets the field only if there is something to keep in it.
        let wanted = newer_before.is_some() || !merged.newer.is_empty();
        let newer = newer_after.filter(|after| wanted && newer_before.as_ref() != Some(after));
        let newer = match newer {
            None => None,
            Some(after) => {
                let strings = OwnedStr::new(NEWER).zip(OwnedStr::new(&after));
                Some(strings.ok_or(store::NO_STRING)?)
            }
        };
        let prepared = store::prepare(ctx, &key, &mut opened, newer)?;
        prepared.apply(ctx, &key, &opened).announce(ctx, name);
    }

    let mut bucket = match merged {
        Some(merged) => merged.state.bucket,
        None => {
            let settings = ctx.module().settings()?;
            OpenBucket::new(None, &settings.configured().of(name.as_bytes()), now).bucket()
        }
    };
    bucket.advance(now);
    Ok(Merged::new(ctx, !unchanged, bucket.policy(), bucket.remaining()))
}

/// `[STRATEGY s]` at the end.
fn strategy(args: &mut Args<'_>) -> Result<Option<Strategy>, Error> {
    let Some(word) = args.next() else {
        return Ok(None);
    };
    if !is_word(word, b"STRATEGY") {
        return Err(Error::UnknownOption(word.as_bytes().into()));
    }
    let name = args.next().ok_or(Error::NoValue("STRATEGY"))?;
    if let Some(extra) = args.next() {
        return Err(Error::UnknownOption(extra.as_bytes().into()));
    }
    Strategy::parse(name.as_bytes()).map(Some)
}

fn is_word(text: Str<'_>, word: &[u8]) -> bool {
    text.as_bytes().eq_ignore_ascii_case(word)
}

/// A bucket with what later versions added to it.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) state: State,
    newer: Newer,
    /// Where it was counted, if it was.
    shared: Option<SharedBucket>,
}

impl Stored {
    /// Reads what to merge into; `None` for a missing key. A hash that is no bucket is a full one,
    /// as it is to CL.TAKE.
    fn read(ctx: &Context<'_>, name: Str<'_>, now: u64) -> Result<Option<Self>, Error> {
        let key = Key::open_read(ctx, name);
        let record = store::load(ctx, &key, now)?;
        record.map(|record| Self::of(ctx, &key, &record, now)).transpose()
    }

    /// Reads a bucket that is to be merged into others. A hash that is no bucket stands for none,
    /// and not for a full one.
    pub(super) fn read_bucket(
        ctx: &Context<'_>,
        name: Str<'_>,
        now: u64,
    ) -> Result<Option<Self>, Error> {
        let key = Key::open_read(ctx, name);
        match store::load(ctx, &key, now)? {
            None => Ok(None),
            Some(record) if record.is_bucket() => Self::of(ctx, &key, &record, now).map(Some),
            Some(_) => Err(Error::Foreign(name.as_bytes().into())),
        }
    }

    /// The bucket of an open key, as it was read.
    fn of(ctx: &Context<'_>, key: &Key<'_>, record: &Record, now: u64) -> Result<Self, Error> {
        let mut newer = Newer::new();
        if record.foreign {
            let field = OwnedStr::new(NEWER).ok_or(Error::Internal("the server made no string"))?;
            if let [Some(bytes)] = key.get([field.as_str()]) {
                newer = codec::decode_newer(bytes.as_str().as_bytes())
                    .ok_or_else(|| Error::Newer(key.name().as_bytes().into()))?;
            }
        }
        let state = {
            let settings = ctx.module().settings()?;
            record.state(&settings.configured().of(key.name().as_bytes()), now)
        };
        if record.debits.is_none() {
            return Ok(Self { state, newer, shared: None });
        }
        let opened = store::open_for_read(ctx, key, now)?;
        let state = State::of(opened.bucket(), opened.policy()).pinned_by(opened.temporary());
        Ok(Self { state, newer, shared: opened.as_shared().cloned() })
    }

    /// [Reads](Self::read_bucket) a bucket that is named as a source. Who may merge it need not see
    /// what a hash holds that is no bucket: errors name the field, and not its value. For the key it
    /// is merged into, another policy may be `configured`.
    fn source(
        ctx: &Context<'_>,
        name: Str<'_>,
        configured: &ConfiguredFor<'_>,
        now: u64,
    ) -> Result<Option<Self>, Error> {
        let read = Self::read_bucket(ctx, name, now).map_err(Error::without_value)?;
        Ok(read.map(|read| Self { state: read.state.under(configured.current(), now), ..read }))
    }

    /// What the blob of it says besides the bucket.
    pub(super) fn besides(self) -> Besides {
        let debits = self.shared.as_ref().map(SharedBucket::debits);
        Besides { debits, newer: self.newer }
    }

    /// Takes a state that somebody has; `index` counts from 1.
    pub(super) fn sent(
        decoded: Decoded,
        configured: &ConfiguredFor<'_>,
        now: u64,
        index: usize,
    ) -> Result<Self, Error> {
        let record = Record::from(&decoded);
        let Decoded { tokens, weight, policy, version, default, besides, .. } = decoded;
        let state = record.state(configured, now);
        let shared = match besides.debits {
            None => None,
            Some(_) if version > u64::from(codec::VERSION) => {
                return Err(Error::Blob { index, why: BlobError::OutOfBounds("v") });
            }
            Some(debits) => {
                let stored = policy.map(|stored| stored.policy);
                let in_force = state.temporary.map(|pin| pin.policy);
                let policy = in_force.or(stored).or(default).unwrap_or(configured.current());
                // Beneath a pin that has ended it is as it was credited to that.
                let (tokens, policy) = match (record.temporary, state.temporary) {
                    (Some(_), None) => (state.bucket.tokens(), state.bucket.policy()),
                    _ => (tokens, policy),
                };
                let bucket = Bucket::new(policy, weight, tokens, 0, state.bucket.timestamp());
                Some(SharedBucket::new(&bucket, debits))
            }
        };
        Ok(Self { state, newer: besides.newer, shared })
    }
}

/// The states to merge in, in the order given; missing keys are left out.
struct Sources(Vec<Stored>);

impl Sources {
    fn parse(
        ctx: &Context<'_>,
        args: &mut Args<'_>,
        configured: &ConfiguredFor<'_>,
        now: u64,
    ) -> Result<Self, Error> {
        let form = args.next().ok_or(Error::NoSource)?;
        if is_word(form, b"FROM") {
            let numkeys = args.next().ok_or(Error::NoValue("FROM"))?;
            let numkeys = numkeys.as_numkeys().ok_or(Error::OutOfRange(Quantity::NumKeys))?;
            if numkeys > args.len() {
                return Err(Error::NumKeys);
            }
            if numkeys > MAX_IN_CALL {
                return Err(Error::TooMany);
            }
            let names = std::iter::from_fn(|| args.next()).take(numkeys);
            let stored: Result<Vec<_>, _> =
                names.map(|name| Stored::source(ctx, name, configured, now)).collect();
            return Ok(Self(stored?.into_iter().flatten().collect()));
        }
        if is_word(form, b"FIELDS") {
            let record = fields(args, now)?;
            let state = record.state(configured, now);
            return Ok(Self(vec![Stored { state, newer: Newer::new(), shared: None }]));
        }
        if is_word(form, b"STATE") {
            let mut sources = Vec::new();
            while let Some(blob) = args.peek().filter(|next| !is_word(*next, b"STRATEGY")) {
                args.next();
                if sources.len() >= MAX_IN_CALL {
                    return Err(Error::TooMany);
                }
                let index = sources.len().saturating_add(1);
                let decoded = codec::decode(blob.as_bytes(), now)
                    .map_err(|why| Error::Blob { index, why })?;
                sources.push(Stored::sent(decoded, configured, now, index)?);
            }
            if sources.is_empty() {
                return Err(Error::NoValue("STATE"));
            }
            return Ok(Self(sources));
        }
        Err(Error::UnknownOption(form.as_bytes().into()))
    }
}

/// A bucket written out as `field value ..`, as HGETALL prints it. Fields that
/// are the user's own are passed over.
fn fields(args: &mut Args<'_>, now: u64) -> Result<Record, Error> {
    const KNOWN: [Field; 6] = [
        Field::Tokens,
        Field::Timestamp,
        Field::Weight,
        Field::Policy,
        Field::Temporary,
        Field::Remainder,
    ];
    let mut record = Record::default();
    while let Some(name) = args.peek().filter(|next| !is_word(*next, b"STRATEGY")) {
        args.next();
        let value = args.next().ok_or(Error::Fields("needs a value for each field"))?;
        let known = KNOWN.into_iter().find(|field| field.name().as_bytes() == name.as_bytes());
        if let Some(field) = known {
            let value = value.as_bytes();
            record.read(field, value, now).map_err(|why| Error::GivenField {
                field,
                value: value.into(),
                why,
            })?;
        }
    }
    if record.tokens.is_none() {
        return Err(Error::Fields("needs 'tokens'"));
    }
    Ok(record)
}
