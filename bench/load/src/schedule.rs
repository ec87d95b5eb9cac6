//! When each request is due, and which kind it is: drawn before the run, the same for every server with one seed.

use std::time::Duration;

/// One request to come.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// From the start of the run.
    pub due: Duration,
    pub slow: bool,
}

/// A Poisson process of `rate` a second: the gaps are exponential and independent.
pub fn poisson(rate: f64, length: Duration, slow_share: f64, seed: u64) -> Vec<Arrival> {
    let mut random = SplitMix64(seed);
    let mut arrivals = Vec::with_capacity((rate * length.as_secs_f64() * 1.1) as usize + 16);
    let mut now = 0.0;
    loop {
        // 1 - u is in (0, 1], so that the logarithm is finite.
        now += -(1.0 - random.unit()).ln() / rate;
        if now >= length.as_secs_f64() {
            return arrivals;
        }
        arrivals.push(Arrival { due: Duration::from_secs_f64(now), slow: random.unit() < slow_share });
    }
}

/// Small, seedable, good enough for arrival times (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In [0, 1), from the 53 bits a float holds.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_and_the_share_come_out() {
        let arrivals = poisson(1000.0, Duration::from_secs(20), 0.05, 7);
        assert!((19_000..21_000).contains(&arrivals.len()), "{}", arrivals.len());
        let slow = arrivals.iter().filter(|a| a.slow).count();
        assert!((800..1200).contains(&slow), "{slow}");
        assert!(arrivals.windows(2).all(|w| w[0].due <= w[1].due));
    }
}
