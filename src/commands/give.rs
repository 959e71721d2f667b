//! `CL.GIVE key [tokens]`

use super::options::{self, KEY, TOKENS};
use super::reply;
use crate::error::Error;
use crate::host::{self, Access, Args, Command, Context, Key, Keys, Spec};
use crate::store;

/// Gives back tokens that were taken and not used.
pub(crate) struct Give;

impl Command for Give {
    const SPEC: Spec = Spec {
        name: c"cl.give",
        flags: c"write deny-oom fast",
        categories: c"write fast hash",
        arity: -2,
        keys: Keys::First,
        access: Access::Update,
        summary: c"Gives unused tokens back to a bucket, up to its capacity.",
        complexity: c"O(1)",
        since: c"0.1.0",
        arguments: &[KEY, TOKENS],
    };

    fn run(ctx: &Context<'_>, mut args: Args<'_>) -> Result<(), Error> {
        let name = args.next().ok_or(Error::Arity("cl.give"))?;
        let tokens = options::optional_tokens(&mut args)?;
        options::options(&mut args, &[])?;

        let now = host::now();
        let key = Key::open_write(ctx, name);
        let mut opened = store::open_for_count(ctx, &key, now)?;
        let region = ctx.module().regions.region()?;
        // The policy stays what it was left at: whoever gives back need not know
        // with which options the tokens were taken.
        let before = opened.bucket().tokens();
        let answer = opened.give(tokens, now, &region);

        if opened.bucket().tokens() != before {
            store::save(ctx, &key, &mut opened)?;
        }
        ctx.module().stats.count_give(answer.taken);
        reply::answer(ctx, &answer);
        Ok(())
    }
}
