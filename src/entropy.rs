//! Chance as an argument.
//!
//! Decides where random bytes come from. Everything above takes an [`Entropy`]; only this module may
//! ask the operating system, which a test enforces.

/// A source of random bytes fit for secrets.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `out` with random bytes.
    ///
    /// # Panics
    /// When the source cannot answer: a request that needs a secret then fails as a whole
    /// (ASVS 11.5.2) instead of going on with a weak one.
    fn fill(&self, out: &mut [u8]);
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, out: &mut [u8]) {
        aws_lc_rs::rand::fill(out)
            .expect("the generator of the cryptographic library always answers once seeded");
    }
}

/// `N` fresh random bytes.
#[must_use]
pub fn random_bytes<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}
