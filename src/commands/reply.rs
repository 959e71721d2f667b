//! Replies that several commands give.

use crate::host::Context;
use claw_core::bucket::Answer;

/// `[taken, capacity, remaining, retry_after, reset_after]`, times in
/// milliseconds, -1 for never.
pub(super) fn answer(ctx: &Context<'_>, answer: &Answer) {
    answer_of(ctx, signed(answer.taken), answer);
}

/// The same, with `taken` of a sign.
pub(super) fn answer_of(ctx: &Context<'_>, taken: i64, answer: &Answer) {
    ctx.reply_array(5);
    ctx.reply_integer(taken);
    ctx.reply_integer(signed(answer.capacity));
    ctx.reply_integer(answer.remaining);
    ctx.reply_integer(answer.retry_after.as_millis());
    ctx.reply_integer(answer.reset_after.as_millis());
}

/// Counts of tokens are at most 10^12.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
