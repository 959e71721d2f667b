//! Numbers that look random and are the same in every run with the same seed.

/// SplitMix64, by Steele, Lea and Flood: "Fast splittable pseudorandom number
/// generators", 2014.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Seeds next to each other must not give runs that resemble each other.
        let mut random = Self(seed);
        Self(random.bits())
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Of `from..=to`.
    pub fn of(&mut self, from: u64, to: u64) -> u64 {
        from + self.bits() % (to - from + 1)
    }

    /// True in so many of a thousand cases.
    pub fn permille(&mut self, chances: u64) -> bool {
        self.of(1, 1_000) <= chances
    }

    /// One of them.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.bits()).unwrap_or(usize::MAX) % of.len()]
    }
}
