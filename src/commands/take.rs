//! `CL.TAKE key [tokens] [CAPACITY n] [REFILL n [INTERVAL ms]] [PARTIAL] [KEEP n]`

use super::options::{self, CAPACITY, KEEP, KEY, Options, REFILL, TOKENS, Word};
use super::reply;
use crate::error::Error;
use crate::host::{self, Access, Args, Argument, ArgumentKind, Command, Context, Key, Keys, Spec};
use crate::store;
use claw_core::bucket::Demand;

/// Takes tokens from a bucket, or nothing.
pub(crate) struct Take;

impl Command for Take {
    const SPEC: Spec = Spec {
        name: c"cl.take",
        flags: c"write deny-oom fast",
        categories: c"write fast hash",
        arity: -2,
        keys: Keys::First,
        access: Access::Update,
        summary: c"Takes tokens from a bucket, or nothing when there are not enough.",
        complexity: c"O(1)",
        since: c"0.1.0",
        arguments: &[
            KEY,
            TOKENS,
            CAPACITY,
            REFILL,
            Argument::new(c"partial", ArgumentKind::Token).token(c"PARTIAL").optional(),
            KEEP,
        ],
    };

    fn run(ctx: &Context<'_>, mut args: Args<'_>) -> Result<(), Error> {
        let Some(name) = args.next() else {
            return Err(Error::Arity("cl.take"));
        };
        // Mostly there is only the key.
        let (demand, policy) = match args.is_empty() {
            true => (Demand::all(1), None),
            false => {
                let tokens = options::optional_tokens(&mut args)?;
                let allowed =
                    [Word::Capacity, Word::Refill, Word::Interval, Word::Partial, Word::Keep];
                let Options { asked, partial, keep, .. } = options::options(&mut args, &allowed)?;
                (Demand { tokens, partial, keep: keep.unwrap_or(0) }, asked.whole()?)
            }
        };

        let now = host::now();
        let key = Key::open_write(ctx, name);
        let mut opened = store::open_for_count(ctx, &key, now)?;
        let region = ctx.module().regions.region()?;
        opened.ask(policy);
        let answer = opened.take(demand, now, &region)?;

        // A new policy holds from the call that brings it, even a refused one:
        // else its bucket would go on refilling at the old rate. Asking for no
        // tokens is looking, which writes nothing.
        if answer.taken > 0 || (demand.tokens > 0 && opened.terms_changed()) {
            store::save(ctx, &key, &mut opened)?;
        }
        ctx.module().stats.count_take(demand.tokens, answer.taken);
        reply::answer(ctx, &answer);
        Ok(())
    }
}
