//! `CL.THROTTLE key max_burst count period [quantity]`: redis-cell's command.

use super::options::{self, KEY};
use super::reply;
use crate::error::{Error, Quantity};
use crate::host::{
    self, Access, Args, Argument, ArgumentKind, Command, Context, Key, Keys, Spec, Str,
};
use crate::store;
use claw_core::bucket::Demand;
use claw_core::limits::MAX_TOKENS;
use claw_core::throttle;

/// Takes tokens with redis-cell's arguments, and answers in seconds.
pub(crate) struct Throttle;

impl Command for Throttle {
    const SPEC: Spec = Spec {
        name: c"cl.throttle",
        flags: c"write deny-oom fast",
        categories: c"write fast hash",
        arity: -5,
        keys: Keys::First,
        access: Access::Update,
        summary: c"Takes tokens with the arguments and the reply of redis-cell.",
        complexity: c"O(1)",
        since: c"0.1.0",
        arguments: &[
            KEY,
            Argument::new(c"max_burst", ArgumentKind::Integer),
            Argument::new(c"count", ArgumentKind::Integer),
            Argument::new(c"period", ArgumentKind::Integer),
            Argument::new(c"quantity", ArgumentKind::Integer).optional(),
        ],
    };

    fn run(ctx: &Context<'_>, mut args: Args<'_>) -> Result<(), Error> {
        const ARITY: Error = Error::Arity("cl.throttle");
        let name = args.next().ok_or(ARITY)?;
        let mut number = |max: u64, what: Quantity| {
            args.next().ok_or(ARITY).and_then(|text| options::integer(text, 0, max, what))
        };
        let max_burst = number(u64::MAX, Quantity::MaxBurst)?;
        let count = number(u64::MAX, Quantity::Count)?;
        let period = number(u64::MAX, Quantity::Period)?;
        let quantity = args.next().map_or(Ok(Move::Take(1)), quantity)?;
        if !args.is_empty() {
            return Err(ARITY);
        }
        let policy = throttle::policy(max_burst, count, period)?;

        let now = host::now();
        let key = Key::open_write(ctx, name);
        let mut opened = store::open_for_count(ctx, &key, now)?;
        let region = ctx.module().regions.region()?;
        opened.ask(Some(policy));
        let before = opened.bucket().tokens();
        let (limited, answer) = match quantity {
            Move::Take(tokens) => {
                let answer = opened.take(Demand::all(tokens), now, &region)?;
                let taken = answer.taken;
                ctx.module().stats.count_take(tokens, taken);
                (taken < tokens, answer)
            }
            Move::Give(tokens) => {
                let answer = opened.give(tokens, now, &region)?;
                ctx.module().stats.count_give(answer.taken);
                (false, answer)
            }
        };

        let looking = matches!(quantity, Move::Take(0));
        if opened.bucket().tokens() != before || (opened.terms_changed() && !looking) {
            store::save(ctx, &key, &mut opened)?;
        }
        ctx.reply_array(5);
        ctx.reply_integer(i64::from(limited));
        ctx.reply_integer(reply::signed(answer.capacity));
        // It knows of no debt.
        ctx.reply_integer(answer.remaining.max(0));
        ctx.reply_integer(if limited { answer.retry_after.as_seconds() } else { -1 });
        ctx.reply_integer(answer.reset_after.as_seconds());
        Ok(())
    }
}

/// What `quantity` asks for: a negative one gives back.
#[derive(Clone, Copy)]
enum Move {
    Take(u64),
    Give(u64),
}

fn quantity(text: Str<'_>) -> Result<Move, Error> {
    let bytes = text.as_bytes();
    let (digits, negative) = match bytes.strip_prefix(b"-") {
        Some(digits) => (digits, true),
        None => (bytes, false),
    };
    let value = claw_core::decimal::whole(digits).ok().filter(|value| *value <= MAX_TOKENS);
    let value = value.ok_or(Error::OutOfRange(Quantity::Signed))?;
    Ok(if negative && value > 0 { Move::Give(value) } else { Move::Take(value) })
}
