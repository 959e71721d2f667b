//! `CL.PANIC`: only in modules built for the tests.

use crate::error::Error;
use crate::host::{Access, Args, Command, Context, Keys, Spec};

/// Panics, to show that the server survives it.
pub(crate) struct Panic;

impl Command for Panic {
    const SPEC: Spec = Spec {
        name: c"cl.panic",
        flags: c"readonly fast",
        categories: c"read fast",
        arity: 1,
        keys: Keys::None,
        access: Access::Read,
        summary: c"Panics.",
        complexity: c"O(1)",
        since: c"0.1.0",
        arguments: &[],
    };

    #[allow(clippy::panic, clippy::panic_in_result_fn)]
    fn run(_ctx: &Context<'_>, _args: Args<'_>) -> Result<(), Error> {
        panic!("asked for")
    }
}
