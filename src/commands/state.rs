//! `CL.STATE key`

use super::merge::Stored;
use super::options::KEY;
use crate::error::Error;
use crate::host::{self, Access, Args, Command, Context, Keys, Spec};
use claw_core::codec;

/// Returns a bucket as MessagePack, for `CL.MERGE .. STATE` on another server.
pub(crate) struct State;

impl Command for State {
    const SPEC: Spec = Spec {
        name: c"cl.state",
        flags: c"readonly fast",
        categories: c"read fast hash",
        arity: 2,
        keys: Keys::First,
        access: Access::Read,
        summary: c"Returns the state of a bucket as MessagePack, for CL.MERGE.",
        complexity: c"O(1)",
        since: c"0.1.0",
        arguments: &[KEY],
    };

    fn run(ctx: &Context<'_>, mut args: Args<'_>) -> Result<(), Error> {
        let name = args.next().ok_or(Error::Arity("cl.state"))?;
        let now = host::now();
        let Some(stored) = Stored::read_bucket(ctx, name, now)? else {
            ctx.reply_null();
            return Ok(());
        };
        let state = stored.state;
        let blob = codec::encode(&state, &stored.besides())
            .map_err(|why| Error::Blob { index: 0, why })?;
        ctx.reply_bytes(&blob);
        Ok(())
    }
}
