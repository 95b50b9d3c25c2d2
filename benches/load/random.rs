//! Chance that is the same in every run.

/// SplitMix64 (Steele, Lea and Flood 2014): good enough to pick, and the same in every run.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let scaled = (u128::from(z) * n as u128) >> 64;
        usize::try_from(scaled).expect("smaller than n, which is a usize")
    }
}
