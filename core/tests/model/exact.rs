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
    /// The configuration.
    Default,
    /// The options of the latest call that had any.
    Called(Terms),
    /// CL.POLICY.
    Pinned(Terms),
}

/// A bucket that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it holds at `at`.
    pub tokens: Q,
    /// When.
    pub at: u64,
    /// 1..=10.
    pub weight: u8,
    /// Its policy.
    pub own: Own,
}

/// A reply; times in milliseconds, -1 for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    pub taken: u64,
    pub capacity: u64,
    pub remaining: u64,
    pub retry_after: i64,
    pub reset_after: i64,
}

/// The stored timestamp is too far ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead;

/// One bucket and the configured default policy.
#[derive(Debug, Clone)]
pub struct Exact {
    pub default: Terms,
    /// `None` for a missing key.
    pub bucket: Option<Line>,
}

impl Exact {
    pub fn terms(&self, own: Own) -> Terms {
        match own {
            Own::Default => self.default,
            Own::Called(terms) | Own::Pinned(terms) => terms,
        }
    }

    /// The bucket as a call finds it: credited under the policy it was left
    /// with. A missing key is a full bucket.
    pub fn open(&self, now: u64) -> Result<Line, Ahead> {
        let Some(line) = &self.bucket else {
            let tokens = self.default.capacity();
            return Ok(Line { tokens, at: now, weight: 1, own: Own::Default });
        };
        if line.at > now.saturating_add(LONGEST_LEAD_US) {
            return Err(Ahead);
        }
        let mut line = line.clone();
        line.credit(&self.terms(line.own), now);
        Ok(line)
    }

    /// `CL.TAKE`. A refused one leaves the bucket as it was, but for a policy
    /// that the call brought: that holds from now on.
    pub fn take(
        &mut self,
        tokens: u64,
        options: Options,
        partial: bool,
        now: u64,
    ) -> Result<Reply, Ahead> {
        let (reply, line) = self.try_take(tokens, options, partial, now)?;
        let changed = self.bucket.as_ref().is_some_and(|old| old.own != line.own);
        if reply.taken > 0 || changed {
            self.bucket = Some(line);
        }
        Ok(reply)
    }

    /// `CL.PEEK`.
    pub fn peek(&self, tokens: u64, options: Options, now: u64) -> Result<Reply, Ahead> {
        Ok(self.try_take(tokens, options, false, now)?.0)
    }

    fn try_take(
        &self,
        tokens: u64,
        options: Options,
        partial: bool,
        now: u64,
    ) -> Result<(Reply, Line), Ahead> {
        let mut line = self.open(now)?;
        if let (Some(called), Own::Default | Own::Called(_)) = (options.whole(), line.own) {
            self.switch(&mut line, Own::Called(called), called);
        }
        let terms = self.terms(line.own);
        let there = whole(&line.tokens);
        let taken = match tokens {
            _ if tokens <= there => tokens,
            _ if partial => there,
            _ => 0,
        };
        line.tokens -= q(taken);
        let refused = taken == 0 && tokens > 0;
        let wanted = if partial { 1 } else { tokens };
        let retry_after = if refused { line.wait(&terms, wanted, now) } else { 0 };
        Ok((Reply { retry_after, ..line.reply(&terms, taken, now) }, line))
    }

    /// `CL.GIVE`. The policy stays the one the bucket was left with.
    pub fn give(&mut self, tokens: u64, now: u64) -> Result<Reply, Ahead> {
        let mut line = self.open(now)?;
        let terms = self.terms(line.own);
        let before = line.tokens.clone();
        line.tokens = (&before + q(tokens)).min(terms.capacity());
        // Rounded: what went back is counted in whole millionths of a token.
        let returned = floor(&(&line.tokens * q(1_000_000))) - floor(&(&before * q(1_000_000)));
        let reply = line.reply(&terms, whole(&millionths(returned)), now);
        if line.tokens != before {
            self.bucket = Some(line);
        }
        Ok(reply)
    }

    /// `CL.POLICY key CAPACITY .. REFILL .. WEIGHT ..`. What is left out stays.
    pub fn pin(&mut self, options: Options, weight: Option<u8>, now: u64) -> Result<(), Ahead> {
        let mut line = self.open(now)?;
        let old = (self.bucket.is_some(), line.own, line.weight);
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
        self.switch(&mut line, Own::Default, self.default);
        line.weight = 1;
        if self.bucket.is_some() && old != (line.own, line.weight) {
            self.bucket = Some(line);
        }
        Ok(())
    }

    /// `CONFIG SET`: whatever follows the default changes its policy now.
    pub fn change_default(&mut self, terms: Terms, now: u64) {
        let old = std::mem::replace(&mut self.default, terms);
        if let Some(line) = self.bucket.as_mut().filter(|line| line.own == Own::Default) {
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

    fn reply(&self, terms: &Terms, taken: u64, now: u64) -> Reply {
        Reply {
            taken,
            capacity: terms.capacity,
            remaining: whole(&self.tokens),
            retry_after: 0,
            reset_after: self.wait(terms, terms.capacity, now),
        }
    }

    /// The least whole number of milliseconds after which `tokens` are there.
    pub fn wait(&self, terms: &Terms, tokens: u64, now: u64) -> i64 {
        let (missing, rate) = (q(tokens) - &self.tokens, terms.rate(self.weight));
        if tokens > terms.capacity {
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

/// Whole tokens in `amount`.
pub fn whole(amount: &Q) -> u64 {
    u64::try_from(floor(amount)).expect("amounts are between 0 and the capacity")
}
