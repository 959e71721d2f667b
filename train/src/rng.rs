//! Random numbers by SplitMix64, as a stream and by name.

#[derive(Clone)]
pub struct Rng(u64);

fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn unit(x: u64) -> f64 {
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number in 0..1 that depends on what it is for alone, so that all controllers meet the same clients.
pub fn named(seed: u64, request: u32, attempt: u8, purpose: u64) -> f64 {
    let name = (u64::from(request) << 16) | (u64::from(attempt) << 8) | purpose;
    unit(mix(seed ^ mix(name)))
}

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(mix(self.0))
    }

    pub fn unit(&mut self) -> f64 {
        unit(self.next())
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn range(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    pub fn log_range(&mut self, from: f64, to: f64) -> f64 {
        libm::exp(self.range(libm::log(from), libm::log(to)))
    }

    pub fn one_of(&mut self, choices: &[f64]) -> f64 {
        choices[self.below(choices.len())]
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(1.0 - self.unit())
    }

    pub fn normal(&mut self) -> f64 {
        normal(self.unit(), self.unit())
    }
}

/// A normal deviate of two uniform ones.
pub fn normal(a: f64, b: f64) -> f64 {
    (-2.0 * libm::log(1.0 - a)).sqrt() * libm::cos(std::f64::consts::TAU * b)
}
