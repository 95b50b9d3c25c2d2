//! Work in the background that a panic does not end.
//!
//! Decides what becomes of a task that is to run as long as the process and panics: it is run anew after a
//! pause, so that what panics at once costs little. What the task does, and when it is over, is for its module.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::time::sleep;

/// How long to wait before the work is begun anew.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1000 });

/// Runs `work` until it ends by itself; what panics is begun anew after a second.
pub(crate) async fn restarting<W>(what: &'static str, mut work: impl FnMut() -> W + Send)
where
    W: Future<Output = ()> + Send,
{
    while AssertUnwindSafe(work()).catch_unwind().await.is_err() {
        tracing::error!(what, "a task in the background panicked and is begun anew");
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ASVS 16.5.4.
    #[tokio::test]
    async fn a_panic_ends_no_work() {
        let mut runs = 0;
        restarting("a test", || {
            runs += 1;
            let run = runs;
            async move { assert!(run > 2, "on purpose") }
        })
        .await;
        assert_eq!(runs, 3);
    }
}
