//! What one scrypt costs, and what makes a cheaper one as costly as another.
//!
//! Decides which parameters are beyond reason, and how the age of a hash is kept from showing in the time that a
//! check takes (ASVS 6.3.8).

use scrypt::Params;

/// What can be configured, and what a stored hash may claim; more was not made by anybody who could
/// afford it.
pub(super) const LARGEST_LOG_N: u8 = 20;
/// As [`LARGEST_LOG_N`], of [`cost_of`].
pub(super) const LARGEST_COST: u64 = 1 << (LARGEST_LOG_N + 4);

/// How long scrypt takes with these parameters, in blocks of 64 bytes that it mixes.
pub(super) fn cost_of(params: Params) -> u64 {
    (u64::from(params.r()) * u64::from(params.p())) << params.log_n()
}

/// The runs of scrypt that make `done` as much as `target`, with no more memory than these parameters take.
pub(super) fn making_up(params: Params, done: u64, target: u64) -> Vec<Params> {
    let mut missing = target.saturating_sub(done);
    let mut runs = Vec::new();
    for log_n in (1..=params.log_n()).rev() {
        let lane = u64::from(params.r()) << log_n;
        let lanes = u32::try_from(missing / lane).unwrap_or(u32::MAX);
        if let Ok(run) = Params::new(log_n, params.r(), lanes) {
            missing -= cost_of(run);
            runs.push(run);
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ASVS 6.3.8: however old a hash is, checking it takes as long as checking today's.
    #[test]
    fn cheaper_hashes_are_made_up_for() {
        let params = |log_n, p| Params::new(log_n, 8, p).expect("valid");
        let rows = [(17, 1), (16, 2), (15, 3), (14, 5), (13, 10), (4, 1)];
        for (log_n, p) in rows {
            for (today_log_n, today_p) in rows {
                let (old, today) = (params(log_n, p), params(today_log_n, today_p));
                let target = cost_of(today);
                let extra = making_up(old, cost_of(old), target);
                assert!(
                    extra.iter().all(|run| run.log_n() <= log_n),
                    "no more memory"
                );
                let total = cost_of(old) + extra.into_iter().map(cost_of).sum::<u64>();
                assert_eq!(total, target.max(cost_of(old)), "{log_n}/{p}");
            }
        }
    }
}
