//! `CL.SETTLE key reserved used [CAPACITY n] [REFILL n [INTERVAL ms]]`

use super::options::{self, CAPACITY, KEY, REFILL, Word};
use super::reply;
use crate::error::{Error, Quantity};
use crate::host::{self, Access, Args, Argument, ArgumentKind, Command, Context, Key, Keys, Spec};
use crate::store;
use claw_core::limits::MAX_TOKENS;

/// Books what was used where something else was reserved.
pub(crate) struct Settle;

impl Command for Settle {
    const SPEC: Spec = Spec {
        name: c"cl.settle",
        flags: c"write deny-oom fast",
        categories: c"write fast hash",
        arity: -4,
        keys: Keys::First,
        access: Access::Update,
        summary:
            c"Books what was used where tokens were taken before: gives back or charges the rest.",
        complexity: c"O(1)",
        since: c"0.1.0",
        arguments: &[
            KEY,
            Argument::new(c"reserved", ArgumentKind::Integer),
            Argument::new(c"used", ArgumentKind::Integer),
            CAPACITY,
            REFILL,
        ],
    };

    fn run(ctx: &Context<'_>, mut args: Args<'_>) -> Result<(), Error> {
        const ARITY: Error = Error::Arity("cl.settle");
        let name = args.next().ok_or(ARITY)?;
        let mut number = |what: Quantity| {
            args.next().ok_or(ARITY).and_then(|text| options::integer(text, 0, MAX_TOKENS, what))
        };
        let (reserved, used) = (number(Quantity::Reserved)?, number(Quantity::Used)?);
        let allowed = [Word::Capacity, Word::Refill, Word::Interval];
        let policy = options::options(&mut args, &allowed)?.asked.whole()?;

        let now = host::now();
        let key = Key::open_write(ctx, name);
        let mut opened = store::open_for_count(ctx, &key, now)?;
        let region = ctx.module().regions.region()?;
        opened.ask(policy);
        let before = opened.bucket().tokens();
        let answer = opened.settle(reserved, used, now, &region)?;

        if opened.bucket().tokens() != before || opened.terms_changed() {
            store::save(ctx, &key, &mut opened)?;
        }
        let booked = reply::signed(answer.taken);
        let booked = if used < reserved { booked.saturating_neg() } else { booked };
        ctx.module().stats.count_settle(booked);
        reply::answer_of(ctx, booked, &answer);
        Ok(())
    }
}
