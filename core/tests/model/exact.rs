//! The contract in rational numbers: nothing is rounded, nothing overflows.
//!
//! Written from docs/commands and docs/storage-and-replication.md, not from the code.
//! Amounts are tokens, instants are unix microseconds. Where the code may round, and
//! the model with it, the comment says *rounded*; there are three such places.

use num_bigint::BigInt;
use num_rational::BigRational;

/// An exact number.
pub type Q = BigRational;

/// An integer as an exact number.
pub fn q(integer: impl Into<BigInt>) -> Q {
    Q::from_integer(integer.into())
}

fn millionths(amount: impl Into<BigInt>) -> Q {
    Q::new(amount.into(), BigInt::from(1_000_000))
}

/// A stored timestamp further ahead of the clock than this is an error.
const LONGEST_LEAD_US: u64 = 30 * 24 * 60 * 60 * 1_000_000;

/// Capacity, refill and interval, as a caller says them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Whole tokens.
    pub capacity: u64,
    /// Millionths of a token per interval.
    pub refill: u64,
    /// Milliseconds.
    pub interval: u64,
}

impl Terms {
    pub fn capacity(&self) -> Q {
        q(self.capacity)
    }

    /// Tokens per microsecond.
    pub fn rate(&self, weight: u8) -> Q {
        millionths(self.refill) * q(weight) / q(self.interval) / q(1_000)
    }
}

/// The policy options of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Whole tokens.
    pub capacity: Option<u64>,
    /// Millionths of a token, and milliseconds.
    pub refill: Option<(u64, u64)>,
}

impl Options {
    fn none(&self) -> bool {
        *self == Self::default()
    }

    /// A call's policy is a whole: nothing of it comes from elsewhere. Without a capacity it is
    /// what one interval refills, up to a whole token.
    fn whole(&self) -> Option<Terms> {
        let (refill, interval) = self.refill?;
        let refilled = millionths(refill).ceil().to_integer();
        let capacity = self.capacity.unwrap_or_else(|| refilled.try_into().unwrap());
        Some(Terms { capacity, refill, interval })
    }

    /// What CL.POLICY leaves out stays as it was.
    fn over(&self, base: Terms) -> Terms {
        let (refill, interval) = self.refill.unwrap_or((base.refill, base.interval));
        Terms { capacity: self.capacity.unwrap_or(base.capacity), refill, interval }
    }
}

/// Where the policy of a bucket comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// The configuration: a rule, else the default.
    Configured,
    /// The options of the latest call that had any.
    Called(Terms),
    /// CL.POLICY.
    Pinned(Terms),
}

/// A bucket that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it holds at `at`; negative in debt.
    pub tokens: Q,
    /// When.
    pub at: u64,
    /// 1..=10.
    pub weight: u8,
    /// Its policy.
    pub own: Own,
}

/// What a call wants to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    pub tokens: u64,
    /// Less will do.
    pub partial: bool,
    /// What has to be left.
    pub keep: u64,
}

/// All of `tokens`.
pub fn all(tokens: u64) -> Want {
    Want { tokens, partial: false, keep: 0 }
}

/// What there is of `tokens`.
pub fn partial(tokens: u64) -> Want {
    Want { tokens, partial: true, keep: 0 }
}

/// A reply; times in milliseconds, -1 for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    pub taken: u64,
    pub capacity: u64,
    pub remaining: i64,
    pub retry_after: i64,
    pub reset_after: i64,
}

/// The stored timestamp is too far ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead;

/// One bucket and what is configured for its key.
#[derive(Debug, Clone)]
pub struct Exact {
    pub default: Terms,
    /// Of the rules that fit, the one that counts.
    pub rule: Option<Terms>,
    /// `None` for a missing key.
    pub bucket: Option<Line>,
}

impl Exact {
    pub fn terms(&self, own: Own) -> Terms {
        match own {
            Own::Configured => self.configured(),
            Own::Called(terms) | Own::Pinned(terms) => terms,
        }
    }

    /// What holds for a bucket that has no policy of its own.
    fn configured(&self) -> Terms {
        self.rule.unwrap_or(self.default)
    }

    /// The bucket as a call finds it: credited under the policy it was left
    /// with. A missing key is a full bucket.
    pub fn open(&self, now: u64) -> Result<Line, Ahead> {
        let Some(line) = &self.bucket else {
            let tokens = self.configured().capacity();
            return Ok(Line { tokens, at: now, weight: 1, own: Own::Configured });
        };
        if line.at > now.saturating_add(LONGEST_LEAD_US) {
            return Err(Ahead);
        }
        let mut line = line.clone();
        line.credit(&self.terms(line.own), now);
        Ok(line)
    }

    /// `CL.TAKE`. A refused one leaves the bucket as it was, but for a policy
    /// that the call brought: that holds from now on. Asking for nothing is looking.
    pub fn take(&mut self, want: Want, options: Options, now: u64) -> Result<Reply, Ahead> {
        let (reply, line) = self.try_take(want, options, now)?;
        if reply.taken > 0 || (want.tokens > 0 && self.brings(&line)) {
            self.bucket = Some(line);
        }
        Ok(reply)
    }

    /// `CL.PEEK`.
    pub fn peek(&self, tokens: u64, options: Options, now: u64) -> Result<Reply, Ahead> {
        Ok(self.try_take(all(tokens), options, now)?.0)
    }

    fn try_take(&self, want: Want, options: Options, now: u64) -> Result<(Reply, Line), Ahead> {
        let (mut line, terms) = self.ask(options, now)?;
        // What is kept for others is not there.
        let there = whole(&line.tokens.clone().max(q(0))).unsigned_abs().saturating_sub(want.keep);
        let taken = match want.tokens {
            tokens if tokens <= there => tokens,
            _ if want.partial => there,
            _ => 0,
        };
        line.tokens -= q(taken);
        // Who got less than was wanted waits for more, and one token is more.
        let more = if want.partial { 1 } else { want.tokens };
        let retry_after =
            if taken < want.tokens { line.wait(&terms, q(more) + q(want.keep), now) } else { 0 };
        Ok((Reply { retry_after, ..line.reply(&terms, taken, now) }, line))
    }

    /// The bucket under the policy that a call brings, unless it is pinned; where a rule fits, a
    /// call that brings none ends what another brought.
    fn ask(&self, options: Options, now: u64) -> Result<(Line, Terms), Ahead> {
        let mut line = self.open(now)?;
        match (options.whole(), line.own) {
            (_, Own::Pinned(_)) => {}
            (Some(called), _) => self.switch(&mut line, Own::Called(called), called),
            (None, Own::Called(_)) => {
                if let Some(rule) = self.rule {
                    self.switch(&mut line, Own::Configured, rule);
                }
            }
            (None, Own::Configured) => {}
        }
        let terms = self.terms(line.own);
        Ok((line, terms))
    }

    /// Whether a call has brought another policy than the bucket has; of a missing one, whether
    /// it blocks it.
    fn brings(&self, line: &Line) -> bool {
        match &self.bucket {
            Some(old) => old.own != line.own,
            None => matches!(line.own, Own::Called(Terms { capacity: 0, .. })),
        }
    }

    /// `CL.SETTLE`: gives back what was not used, or takes what is missing until as much is owed
    /// as the bucket can hold. `taken` is what was given back or taken.
    pub fn settle(
        &mut self,
        (reserved, used): (u64, u64),
        options: Options,
        now: u64,
    ) -> Result<Reply, Ahead> {
        let (mut line, terms) = self.ask(options, now)?;
        let before = line.tokens.clone();
        let reply = if used <= reserved {
            line.put_back(&terms, reserved - used, now)
        } else {
            let more = used - reserved;
            let bookable = whole(&(&before + terms.capacity()).max(q(0))).unsigned_abs();
            let booked = more.min(bookable);
            line.tokens -= q(booked);
            let rest = q(more - booked);
            let retry_after =
                if rest > q(0) { line.wait(&terms, rest - terms.capacity(), now) } else { 0 };
            Reply { retry_after, ..line.reply(&terms, booked, now) }
        };
        if line.tokens != before || self.brings(&line) {
            self.bucket = Some(line);
        }
        Ok(reply)
    }

    /// `CL.GIVE`. The policy stays the one the bucket was left with.
    pub fn give(&mut self, tokens: u64, now: u64) -> Result<Reply, Ahead> {
        let mut line = self.open(now)?;
        let terms = self.terms(line.own);
        let before = line.tokens.clone();
        let reply = line.put_back(&terms, tokens, now);
        if line.tokens != before {
            self.bucket = Some(line);
        }
        Ok(reply)
    }

    /// `CL.POLICY key CAPACITY .. REFILL .. WEIGHT ..`. What is left out stays.
    pub fn pin(&mut self, options: Options, weight: Option<u8>, now: u64) -> Result<(), Ahead> {
        let before = self.open(now)?;
        let old = (self.bucket.is_some(), before.own, before.weight);
        let (mut line, _) = self.ask(Options::default(), now)?;
        if !options.none() {
            let terms = options.over(self.terms(line.own));
            self.switch(&mut line, Own::Pinned(terms), terms);
        }
        line.weight = weight.unwrap_or(line.weight);
        if old != (true, line.own, line.weight)
            && (self.bucket.is_some() || matches!(line.own, Own::Pinned(_)) || line.weight != 1)
        {
            self.bucket = Some(line);
        }
        Ok(())
    }

    /// `CL.POLICY key RESET`.
    pub fn reset(&mut self, now: u64) -> Result<(), Ahead> {
        let mut line = self.open(now)?;
        let old = (line.own, line.weight);
        self.switch(&mut line, Own::Configured, self.configured());
        line.weight = 1;
        if self.bucket.is_some() && old != (line.own, line.weight) {
            self.bucket = Some(line);
        }
        Ok(())
    }

    /// `CONFIG SET`: whatever follows the configuration changes its policy now.
    pub fn configure(&mut self, default: Terms, rule: Option<Terms>, now: u64) {
        let old = self.configured();
        (self.default, self.rule) = (default, rule);
        let terms = self.configured();
        if let Some(line) = self.bucket.as_mut().filter(|line| line.own == Own::Configured) {
            line.credit(&old, now);
            line.change(&old, &terms);
        }
    }

    fn switch(&self, line: &mut Line, own: Own, terms: Terms) {
        if self.bucket.is_none() {
            line.tokens = terms.capacity();
        } else {
            line.change(&self.terms(line.own), &terms);
        }
        line.own = own;
    }
}

impl Line {
    /// A clock that stepped back credits nothing and loses nothing: the bucket
    /// stays where it is until the clock has caught up.
    fn credit(&mut self, terms: &Terms, now: u64) {
        if now > self.at {
            let gained = terms.rate(self.weight) * q(now - self.at);
            self.tokens = (&self.tokens + gained).min(terms.capacity());
            self.at = now;
        }
    }

    /// Keeps the tokens, cut at the new capacity.
    fn change(&mut self, old: &Terms, new: &Terms) {
        if old.interval != new.interval {
            // Rounded: what is below a millionth is counted in 1/2520 of a
            // millionth over the interval in microseconds, so another interval
            // cuts it there.
            let grain = q(1_000_000) * q(2_520) * q(new.interval) * q(1_000);
            self.tokens = (&self.tokens * &grain).floor() / grain;
        }
        self.tokens = self.tokens.clone().min(new.capacity());
    }

    /// Gives back `tokens`, cut at the capacity.
    fn put_back(&mut self, terms: &Terms, tokens: u64, now: u64) -> Reply {
        let before = self.tokens.clone();
        self.tokens = (&before + q(tokens)).min(terms.capacity());
        // Rounded: what went back is counted in whole millionths of a token.
        let returned = floor(&(&self.tokens * q(1_000_000))) - floor(&(&before * q(1_000_000)));
        self.reply(terms, whole(&millionths(returned)).unsigned_abs(), now)
    }

    fn reply(&self, terms: &Terms, taken: u64, now: u64) -> Reply {
        Reply {
            taken,
            capacity: terms.capacity,
            remaining: whole(&self.tokens),
            retry_after: 0,
            reset_after: self.wait(terms, terms.capacity(), now),
        }
    }

    /// The least whole number of milliseconds after which `tokens` are there.
    fn wait(&self, terms: &Terms, tokens: Q, now: u64) -> i64 {
        let (missing, rate) = (&tokens - &self.tokens, terms.rate(self.weight));
        if tokens > terms.capacity() {
            return -1;
        }
        if missing <= q(0) {
            return 0;
        }
        if rate == q(0) {
            return -1;
        }
        let at = q(self.at.max(now)) + missing / rate;
        let ms = ((at - q(now)) / q(1_000)).ceil().to_integer();
        // Rounded: a reply cannot carry more; that is 292 million years.
        i64::try_from(ms).unwrap_or(-1)
    }
}

fn floor(amount: &Q) -> BigInt {
    amount.floor().to_integer()
}

/// Whole tokens in `amount`, rounded down.
pub fn whole(amount: &Q) -> i64 {
    i64::try_from(floor(amount)).expect("amounts are between the deepest debt and the capacity")
}
