//! `CL.TAKEALL key [tokens] [CAPACITY n] [REFILL n [INTERVAL ms]] [KEEP n]
//! [AND key [tokens] [..]] ..`

use super::options::{self, CAPACITY, KEEP, KEY, REFILL, TOKENS, Word};
use super::reply;
use crate::error::{Error, MAX_IN_CALL};
use crate::host::{
    self, Access, Args, Argument, ArgumentKind, Command, Context, Key, Keys, Spec, Str,
};
use crate::store::{self, PooledBucket};
use claw_core::bucket::{Demand, Wait};
use claw_core::policy::Policy;
use std::collections::HashMap;

/// Takes from all of several buckets, or from none.
pub(crate) struct TakeAll;

impl Command for TakeAll {
    const SPEC: Spec = Spec {
        name: c"cl.takeall",
        flags: c"write deny-oom getkeys-api",
        categories: c"write slow hash",
        arity: -2,
        keys: Keys::Groups,
        access: Access::Update,
        summary: c"Takes tokens from all of several buckets, or from none of them.",
        complexity: c"O(N) with N the number of keys",
        since: c"0.1.0",
        arguments: &[
            KEY,
            TOKENS,
            CAPACITY,
            REFILL,
            KEEP,
            Argument::new(
                c"and",
                ArgumentKind::Block(&[KEY.token(c"AND"), TOKENS, CAPACITY, REFILL, KEEP]),
            )
            .optional()
            .multiple(),
        ],
    };

    fn run(ctx: &Context<'_>, args: Args<'_>) -> Result<(), Error> {
        const NO_BUCKET: Error = Error::Internal("a charge without its bucket");
        let charges = Charge::parse_all(args)?;

        let now = host::now();
        let region = ctx.module().regions.region()?;

        // Each bucket once, however often it is named.
        let mut buckets: Vec<Bucket<'_>> = Vec::with_capacity(charges.len());
        let mut places = HashMap::with_capacity(charges.len());
        // What each charge needs of its bucket: what earlier ones of this call take from it has to
        // be there too.
        let mut needs = Vec::with_capacity(charges.len());
        for Charge { name, demand, policy } in &charges {
            let place = match places.get(name.as_bytes()) {
                Some(place) => *place,
                None => {
                    let key = Key::open_write(ctx, *name);
                    let opened = store::open_for_count(ctx, &key, now)?;
                    places.insert(name.as_bytes(), buckets.len());
                    buckets.push(Bucket { key, opened, policy: None, owed: 0 });
                    buckets.len().saturating_sub(1)
                }
            };
            let bucket = buckets.get_mut(place).ok_or(NO_BUCKET)?;
            if let Some(policy) = policy {
                if bucket.policy.is_some_and(|other| other != *policy) {
                    return Err(Error::TwoPolicies(name.as_bytes().into()));
                }
                bucket.policy = Some(*policy);
                bucket.opened.ask(Some(*policy));
            }
            let needed =
                demand.needs().saturating_add(if demand.tokens > 0 { bucket.owed } else { 0 });
            bucket.owed = bucket.owed.saturating_add(demand.tokens);
            needs.push((place, needed));
        }
        for bucket in buckets.iter_mut().filter(|bucket| bucket.policy.is_none()) {
            bucket.opened.ask(None);
        }
        let mut refusing = None;
        for (index, (place, needed)) in needs.iter().enumerate() {
            let bucket = buckets.get(*place).ok_or(NO_BUCKET)?;
            if bucket.opened.lacks(*needed, &region) {
                refusing = Some(index);
                break;
            }
        }

        let mut answers = Vec::with_capacity(charges.len());
        for ((place, needed), charge) in needs.into_iter().zip(&charges) {
            let opened = &mut buckets.get_mut(place).ok_or(NO_BUCKET)?.opened;
            answers.push(match refusing {
                None => opened.take(charge.demand, now, &region)?,
                Some(_) => opened.refusal(needed, now, &region),
            });
        }
        write(ctx, &mut buckets, refusing.is_none())?;

        let stats = &ctx.module().stats;
        match refusing {
            None => {
                let taken = answers.iter().map(|answer| answer.taken);
                let tokens = taken.fold(0, u64::saturating_add);
                stats.count_take(tokens, tokens);
            }
            Some(_) => stats.count_take(1, 0),
        }
        let longest = answers.iter().map(|answer| answer.retry_after).max();
        ctx.reply_array(4);
        ctx.reply_integer(i64::from(refusing.is_none()));
        ctx.reply_integer(refusing.map_or(-1, |index| i64::try_from(index).unwrap_or(i64::MAX)));
        ctx.reply_integer(longest.unwrap_or(Wait::Ms(0)).as_millis());
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

/// One bucket of the call.
struct Bucket<'c> {
    key: Key<'c>,
    opened: PooledBucket<'c>,
    /// What the call brings for it.
    policy: Option<Policy>,
    /// Sum of the charges seen so far.
    owed: u64,
}

/// One group of the call.
struct Charge<'a> {
    name: Str<'a>,
    demand: Demand,
    policy: Option<Policy>,
}

impl<'a> Charge<'a> {
    fn parse_all(args: Args<'a>) -> Result<Vec<Self>, Error> {
        let mut charges = Vec::new();
        for group in args.groups() {
            if charges.len() >= MAX_IN_CALL {
                return Err(Error::TooMany);
            }
            charges.push(Self::parse(group)?);
        }
        Ok(charges)
    }

    fn parse(mut args: Args<'a>) -> Result<Self, Error> {
        let name = args.next().ok_or(Error::NoKey)?;
        let tokens = options::optional_tokens(&mut args)?;
        let allowed = [Word::Capacity, Word::Refill, Word::Interval, Word::Keep];
        let options = options::options(&mut args, &allowed)?;
        let demand = Demand { tokens, partial: false, keep: options.keep.unwrap_or(0) };
        Ok(Self { name, demand, policy: options.asked.whole()? })
    }
}
