//! `CL.PEEK key [tokens] [CAPACITY n] [REFILL n [INTERVAL ms]]`

use super::options::{self, CAPACITY, KEY, REFILL, TOKENS, Word};
use super::reply;
use crate::error::Error;
use crate::host::{self, Access, Args, Command, Context, Key, Keys, Spec};
use crate::store;
use claw_core::bucket::Demand;

/// Answers as `CL.TAKE` would, and changes nothing.
pub(crate) struct Peek;

impl Command for Peek {
    const SPEC: Spec = Spec {
        name: c"cl.peek",
        flags: c"readonly fast",
        categories: c"read fast hash",
        arity: -2,
        keys: Keys::First,
        access: Access::Read,
        summary: c"Returns what CL.TAKE would answer, without taking.",
        complexity: c"O(1)",
        since: c"0.1.0",
        arguments: &[KEY, TOKENS, CAPACITY, REFILL],
    };

    fn run(ctx: &Context<'_>, mut args: Args<'_>) -> Result<(), Error> {
        let name = args.next().ok_or(Error::Arity("cl.peek"))?;
        let tokens = options::optional_tokens(&mut args)?;
        let allowed = [Word::Capacity, Word::Refill, Word::Interval];
        let policy = options::options(&mut args, &allowed)?.asked.whole()?;

        let now = host::now();
        let key = Key::open_read(ctx, name);
        let mut opened = store::open_for_read(ctx, &key, now)?;
        let region = ctx.module().regions.region()?;
        opened.ask(policy);
        reply::answer(ctx, &opened.take(Demand::all(tokens), now, &region)?);
        Ok(())
    }
}
