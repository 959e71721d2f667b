//! `CL.POLICY_RO key`

use super::options::KEY;
use super::policy;
use crate::error::Error;
use crate::host::{self, Access, Args, Command, Context, Key, Keys, Spec};
use crate::store;

/// Reads the policy of a bucket, where `CL.POLICY` may not be called.
pub(crate) struct PolicyRo;

impl Command for PolicyRo {
    const SPEC: Spec = Spec {
        name: c"cl.policy_ro",
        flags: c"readonly fast",
        categories: c"read fast hash",
        arity: 2,
        keys: Keys::First,
        access: Access::Read,
        summary: c"Reads the policy of a bucket.",
        complexity: c"O(1)",
        since: c"0.1.0",
        arguments: &[KEY],
    };

    fn run(ctx: &Context<'_>, mut args: Args<'_>) -> Result<(), Error> {
        const ARITY: Error = Error::Arity("cl.policy_ro");
        let name = args.next().ok_or(ARITY)?;
        if !args.is_empty() {
            return Err(ARITY);
        }
        let key = Key::open_read(ctx, name);
        let mut opened = store::open_for_read(ctx, &key, host::now())?;
        opened.ask(None);
        policy::reply_policy(ctx, &opened);
        Ok(())
    }
}
