//! The threads that hash passwords, and the queue before them.
//!
//! Decides what happens when more is asked for than can be done: it is refused at once (ASVS 15.2.2). What is run
//! is the caller's business.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use tokio::sync::oneshot;

use super::policy::PasswordPolicy;
use crate::{
    error::{AuthError, AuthResult},
    metrics::Metrics,
    setting::BadSetting,
};

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads behind a bounded queue; they end when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Threads {
    jobs: mpsc::SyncSender<Job>,
    metrics: Arc<Metrics>,
}

impl Threads {
    pub(super) fn start(
        policy: &PasswordPolicy,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BadSetting> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(policy.queue);
        let queue = Arc::new(Mutex::new(queue));
        for n in 0..policy.threads() {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("scrypt-{n}"))
                .spawn(move || work(&queue))
                .map_err(|e| {
                    BadSetting::new(
                        "passwords.threads",
                        format!("a thread cannot be started: {e}"),
                        "lower it",
                    )
                })?;
        }
        Ok(Self { jobs, metrics })
    }

    /// Runs `work` on one of the threads.
    ///
    /// # Errors
    /// [`AuthError::Overloaded`] when the queue is full.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> AuthResult<T> {
        let (done, answer) = oneshot::channel();
        let metrics = Arc::clone(&self.metrics);
        let job: Job = Box::new(move || {
            // A client that went away while its password waited costs nothing more.
            if !done.is_closed() {
                metrics.scrypt_runs.bump();
                let _ = done.send(work());
            }
        });
        self.jobs.try_send(job).map_err(|_| {
            self.metrics.scrypt_refused.bump();
            AuthError::Overloaded("password hashing")
        })?;
        answer
            .await
            .map_err(|_| AuthError::Internal("a hashing thread is gone".into()))
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>) {
    // Low priority: hashing uses what the answers to everybody else leave over. A container may
    // forbid it, which costs latency under a login storm and nothing else.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 10);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(mpsc::RecvError) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ASVS 15.2.2.
    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let policy = PasswordPolicy {
            threads: 1,
            queue: 1,
            ..PasswordPolicy::light()
        };
        let service = Threads::start(&policy, Arc::default()).expect("threads");
        let (release, gate) = mpsc::channel::<()>();
        let (started, running) = oneshot::channel();
        let busy = tokio::spawn({
            let service = service.clone();
            async move {
                service
                    .run(move || {
                        let _ = started.send(());
                        gate.recv()
                    })
                    .await
            }
        });
        running.await.expect("the thread took the job");
        let waiting = tokio::spawn({
            let service = service.clone();
            async move { service.run(|| ()).await }
        });
        tokio::task::yield_now().await;
        let refused = service.run(|| ()).await;
        assert!(
            matches!(refused, Err(AuthError::Overloaded(_))),
            "{refused:?}"
        );
        release.send(()).expect("the thread waits");
        assert!(busy.await.expect("joined").is_ok() && waiting.await.expect("joined").is_ok());
    }
}
