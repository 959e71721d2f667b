//! `CL.POLICY key [CAPACITY n] [REFILL n [INTERVAL ms]] [WEIGHT w] [FOR ms]` and
//! `CL.POLICY key RESET`

use super::options::{self, CAPACITY, KEY, Options, REFILL, Word};
use super::reply;
use crate::error::{Error, Quantity};
use crate::host::{self, Access, Args, Argument, ArgumentKind, Command, Context, Key, Keys, Spec};
use crate::store;
use claw_core::bucket::Weight;
use claw_core::decimal::Decimal;
use claw_core::open::{OpenBucket, PolicySource};
use claw_core::policy::Asked;

/// Reads, pins or unpins the policy of a bucket.
pub(crate) struct Policy;

impl Command for Policy {
    const SPEC: Spec = Spec {
        name: c"cl.policy",
        flags: c"write deny-oom fast",
        categories: c"write fast hash",
        arity: -2,
        keys: Keys::First,
        access: Access::Update,
        summary: c"Reads, pins or resets the policy of a bucket.",
        complexity: c"O(1)",
        since: c"0.1.0",
        arguments: &[
            KEY,
            Argument::new(
                c"change",
                ArgumentKind::OneOf(&[
                    Argument::new(
                        c"pin",
                        ArgumentKind::Block(&[
                            CAPACITY,
                            REFILL,
                            Argument::new(c"weight", ArgumentKind::Integer)
                                .token(c"WEIGHT")
                                .optional(),
                            Argument::new(c"duration", ArgumentKind::Integer)
                                .token(c"FOR")
                                .optional(),
                        ]),
                    ),
                    Argument::new(c"reset", ArgumentKind::Token).token(c"RESET"),
                ]),
            )
            .optional(),
        ],
    };

    fn run(ctx: &Context<'_>, mut args: Args<'_>) -> Result<(), Error> {
        let name = args.next().ok_or(Error::Arity("cl.policy"))?;
        let change = Change::parse(&mut args)?;

        let now = host::now();
        let reading = matches!(change, Change::None);
        let key = if reading { Key::open_read(ctx, name) } else { Key::open_write(ctx, name) };
        let mut opened = store::open_for_read(ctx, &key, now)?;
        let region = ctx.module().regions.region()?;
        // What a rule has made of an earlier call's policy is the truth.
        opened.ask(None);
        match change {
            Change::None => {}
            Change::Reset => opened.reset(&region)?,
            // What is left out stays as it is.
            Change::SetFor { asked, ms } => {
                let policy = asked.over(opened.bucket().policy())?;
                opened.pin_for(policy, ms, &region)?;
            }
            Change::Set { asked, weight } => {
                if !asked.is_empty() {
                    // A temporary pin ends with it.
                    let policy = asked.over(opened.beneath())?;
                    opened.pin(policy, &region)?;
                }
                if let Some(weight) = weight {
                    opened.set_weight(weight, &region)?;
                }
            }
        }

        let new = opened.record().is_none() && opened.to_record().is_kept();
        if new || (!reading && opened.terms_changed()) {
            store::save(ctx, &key, &mut opened)?;
        }
        reply_policy(ctx, &opened);
        Ok(())
    }
}

/// The map of CL.POLICY and CL.POLICY_RO.
pub(super) fn reply_policy(ctx: &Context<'_>, opened: &OpenBucket) {
    let (policy, source) = (opened.bucket().policy(), opened.source());
    ctx.reply_map(7);
    ctx.reply_bytes(b"capacity");
    ctx.reply_integer(reply::signed(policy.capacity()));
    ctx.reply_bytes(b"refill");
    ctx.reply_bytes(Decimal::new(policy.refill()).as_bytes());
    ctx.reply_bytes(b"interval");
    ctx.reply_integer(reply::signed(policy.interval_ms()));
    ctx.reply_bytes(b"weight");
    ctx.reply_integer(i64::from(opened.bucket().weight().get()));
    ctx.reply_bytes(b"pinned");
    ctx.reply_integer(i64::from(source == PolicySource::Pin));
    ctx.reply_bytes(b"source");
    ctx.reply_bytes(match source {
        PolicySource::Pin => b"pin",
        PolicySource::Rule => b"rule",
        PolicySource::Bucket => b"bucket",
        PolicySource::Default => b"default",
    });
    ctx.reply_bytes(b"pin_remaining_ms");
    ctx.reply_integer(opened.pin_remaining_ms());
}

/// What the call asks for.
enum Change {
    None,
    Set { asked: Asked, weight: Option<Weight> },
    SetFor { asked: Asked, ms: u64 },
    Reset,
}

impl Change {
    fn parse(args: &mut Args<'_>) -> Result<Self, Error> {
        let Some(first) = args.peek() else {
            return Ok(Self::None);
        };
        if Word::parse(first.as_bytes()) == Some(Word::Reset) {
            args.next();
            return if args.is_empty() { Ok(Self::Reset) } else { Err(Error::LoneReset) };
        }
        let allowed = [Word::Capacity, Word::Refill, Word::Interval, Word::Weight, Word::For];
        let Options { asked, weight, duration, .. } = options::options(args, &allowed)?;
        if let Some(ms) = duration {
            // A weight has no end.
            return match (asked.is_empty(), weight) {
                (false, None) => Ok(Self::SetFor { asked, ms }),
                (false, Some(_)) => Err(Error::ForWeight),
                (true, _) => Err(Error::LoneFor),
            };
        }
        let weight = match weight {
            None => None,
            Some(weight) => Some(Weight::new(weight).ok_or(Error::OutOfRange(Quantity::Weight))?),
        };
        Ok(Self::Set { asked, weight })
    }
}
