//! `CL.TAKEALL numkeys key [key ..] [TOKENS n ..] [CAPACITY n ..] [REFILL n ..]
//! [INTERVAL ms ..]`

use super::options::{self, Word};
use super::reply;
use crate::error::{Error, MAX_IN_CALL, Quantity};
use crate::host::{
    self, Access, Args, Argument, ArgumentKind, Command, Context, Key, Keys, Spec, Str,
};
use crate::store::{self, PooledBucket};
use claw_core::policy::{Asked, Policy};
use std::collections::HashMap;

/// Takes from all of several buckets, or from none.
pub(crate) struct TakeAll;

impl Command for TakeAll {
    const SPEC: Spec = Spec {
        name: c"cl.takeall",
        flags: c"write deny-oom getkeys-api",
        categories: c"write slow hash",
        arity: -3,
        keys: Keys::Counted,
        access: Access::Update,
        summary: c"Takes tokens from all of several buckets, or from none of them.",
        complexity: c"O(N) with N the number of keys",
        since: c"0.1.0",
        arguments: &[
            Argument::new(c"numkeys", ArgumentKind::Integer),
            Argument::new(c"key", ArgumentKind::Key).multiple(),
            list(c"tokens", ArgumentKind::Integer, c"TOKENS"),
            list(c"capacity", ArgumentKind::Integer, c"CAPACITY"),
            list(c"refill", ArgumentKind::Double, c"REFILL"),
            list(c"interval", ArgumentKind::Integer, c"INTERVAL"),
        ],
    };

    fn run(ctx: &Context<'_>, mut args: Args<'_>) -> Result<(), Error> {
        const NO_BUCKET: Error = Error::Internal("a charge without its bucket");
        let call = Call::parse(&mut args)?;

        let now = host::now();
        let region = ctx.module().regions.region()?;

        // Each bucket once, however often it is named.
        let mut buckets: Vec<Bucket<'_>> = Vec::with_capacity(call.charges.len());
        let mut places = HashMap::with_capacity(call.charges.len());
        let mut demands = Vec::with_capacity(call.charges.len());
        for charge in &call.charges {
            let place = match places.get(charge.name.as_bytes()) {
                Some(place) => *place,
                None => {
                    let key = Key::open_write(ctx, charge.name);
                    let opened = store::open_for_count(ctx, &key, now)?;
                    places.insert(charge.name.as_bytes(), buckets.len());
                    buckets.push(Bucket { key, opened, policy: charge.policy, owed: 0 });
                    buckets.len().saturating_sub(1)
                }
            };
            let bucket = buckets.get_mut(place).ok_or(NO_BUCKET)?;
            if bucket.policy != charge.policy {
                return Err(Error::TwoPolicies(charge.name.as_bytes().into()));
            }
            bucket.opened.ask(charge.policy);
            bucket.owed = bucket.owed.saturating_add(charge.tokens);
            demands.push((place, charge.tokens, bucket.owed));
        }
        let mut refusing = None;
        for (index, (place, _, owed)) in demands.iter().enumerate() {
            let bucket = buckets.get(*place).ok_or(NO_BUCKET)?;
            if bucket.opened.remaining(&region) < *owed {
                refusing = Some(index);
                break;
            }
        }

        let mut answers = Vec::with_capacity(demands.len());
        for (place, tokens, owed) in demands {
            let opened = &mut buckets.get_mut(place).ok_or(NO_BUCKET)?.opened;
            answers.push(match refusing {
                None => opened.take(tokens, false, now, &region)?,
                // What an earlier charge of this call takes from the same bucket
                // has to be there too.
                Some(_) => opened.refusal(owed, now, &region),
            });
        }
        write(ctx, &mut buckets, refusing.is_none())?;

        let stats = &ctx.module().stats;
        match refusing {
            None => {
                let tokens = answers.iter().fold(0_u64, |sum, a| sum.saturating_add(a.taken));
                stats.count_take(tokens, tokens);
            }
            Some(_) => stats.count_take(1, 0),
        }
        ctx.reply_array(3);
        ctx.reply_integer(i64::from(refusing.is_none()));
        ctx.reply_integer(refusing.map_or(-1, |index| i64::try_from(index).unwrap_or(i64::MAX)));
        ctx.reply_array(answers.len());
        for answer in &answers {
            reply::answer(ctx, answer);
        }
        Ok(())
    }
}

/// Writes the buckets that have to be written. All is planned before anything is written, and
/// all is written before anybody hears of it: none of it can fail half way, and who listens
/// finds every bucket charged.
fn write<'c>(ctx: &Context<'c>, buckets: &mut [Bucket<'c>], granted: bool) -> Result<(), Error> {
    let mut planned = Vec::with_capacity(buckets.len());
    for Bucket { key, opened, owed, .. } in buckets {
        // Asking for no tokens is looking, which writes nothing.
        if *owed > 0 && (granted || opened.terms_changed()) {
            let prepared = store::prepare(ctx, key, opened, None)?;
            planned.push((prepared, &*key, &**opened));
        }
    }
    let applied: Vec<_> = planned
        .into_iter()
        .map(|(prepared, key, opened)| (prepared.apply(ctx, key, opened), key.name()))
        .collect();
    for (applied, name) in applied {
        applied.announce(ctx, name);
    }
    Ok(())
}

const fn list(
    name: &'static std::ffi::CStr,
    kind: ArgumentKind,
    token: &'static std::ffi::CStr,
) -> Argument {
    Argument::new(name, kind).token(token).optional().multiple()
}

/// One bucket of the call.
struct Bucket<'c> {
    key: Key<'c>,
    opened: PooledBucket<'c>,
    /// What every charge of it brings.
    policy: Option<Policy>,
    /// Sum of the charges seen so far.
    owed: u64,
}

/// One key as named in the call.
struct Charge<'a> {
    name: Str<'a>,
    tokens: u64,
    policy: Option<Policy>,
}

struct Call<'a> {
    charges: Vec<Charge<'a>>,
}

impl<'a> Call<'a> {
    fn parse(args: &mut Args<'a>) -> Result<Self, Error> {
        let numkeys = args.next().ok_or(Error::Arity("cl.takeall"))?;
        let numkeys = numkeys.as_numkeys().ok_or(Error::OutOfRange(Quantity::NumKeys))?;
        if numkeys > args.len() {
            return Err(Error::NumKeys);
        }
        if numkeys > MAX_IN_CALL {
            return Err(Error::TooMany);
        }
        let names: Vec<Str<'a>> = std::iter::from_fn(|| args.next()).take(numkeys).collect();

        let (mut tokens, mut capacity, mut refill, mut interval) = (None, None, None, None);
        while let Some(option) = args.next() {
            let (word, list, read): (_, &mut Option<List>, Read) =
                match Word::parse(option.as_bytes()) {
                    Some(word @ Word::Tokens) => (word, &mut tokens, options::tokens),
                    Some(word @ Word::Capacity) => (word, &mut capacity, options::capacity),
                    Some(word @ Word::Refill) => (word, &mut refill, options::refill),
                    Some(word @ Word::Interval) => (word, &mut interval, options::interval),
                    _ => return Err(Error::UnknownOption(option.as_bytes().into())),
                };
            if list.is_some() {
                return Err(Error::Repeated(word.as_str()));
            }
            *list = Some(List::parse(args, word, numkeys, read)?);
        }
        if refill.is_none() && interval.is_some() {
            return Err(Error::LoneInterval);
        }

        let of = |list: &Option<List>, index| list.as_ref().and_then(|list| list.at(index));
        let mut charges = Vec::with_capacity(numkeys);
        for (index, name) in names.into_iter().enumerate() {
            let asked = Asked {
                capacity: of(&capacity, index),
                refill: options::rate(of(&refill, index), of(&interval, index))?,
            };
            let tokens = of(&tokens, index).unwrap_or(1);
            charges.push(Charge { name, tokens, policy: asked.whole()? });
        }
        Ok(Self { charges })
    }
}

type Read = fn(Str<'_>) -> Result<u64, Error>;

/// One value for all keys, or one for each.
struct List(Vec<u64>);

impl List {
    fn parse(args: &mut Args<'_>, word: Word, keys: usize, read: Read) -> Result<Self, Error> {
        let mut values = Vec::new();
        while let Some(text) = args.peek() {
            if Word::parse(text.as_bytes()).is_some() {
                break;
            }
            args.next();
            values.push(read(text)?);
        }
        match values.len() {
            0 => Err(Error::NoValue(word.as_str())),
            len if len == 1 || len == keys => Ok(Self(values)),
            _ => Err(Error::ListLength(word.as_str())),
        }
    }

    fn at(&self, index: usize) -> Option<u64> {
        match self.0.as_slice() {
            [one] => Some(*one),
            values => values.get(index).copied(),
        }
    }
}
