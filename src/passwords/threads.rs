//! The threads that work on passwords, and the queue before them.
//!
//! Decides what happens when more is asked for than can be done: it is refused at once (ASVS 15.2.2). What is run
//! is the caller's business.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use tokio::sync::oneshot;

use crate::error::{AuthError, AuthResult};

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads behind a bounded queue; they end when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Threads {
    jobs: mpsc::SyncSender<Job>,
    /// What they do, in words.
    what: &'static str,
}

impl Threads {
    /// Starts `count` threads called `name`, for which `waiting` jobs may wait.
    pub(super) fn start(
        (name, what): (&str, &'static str),
        count: usize,
        waiting: usize,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(waiting);
        let queue = Arc::new(Mutex::new(queue));
        for n in 0..count {
            let queue = Arc::clone(&queue);
            let thread = thread::Builder::new().name(format!("{name}-{n}"));
            thread.spawn(move || work(&queue))?;
        }
        Ok(Self { jobs, what })
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
        let job: Job = Box::new(move || {
            // A client that went away while its password waited costs nothing more.
            if !done.is_closed() {
                let _ = done.send(work());
            }
        });
        let queued = self.jobs.try_send(job);
        queued.map_err(|_| AuthError::Overloaded(self.what))?;
        let gone = |_| AuthError::Internal(format!("a thread is gone: {}", self.what));
        answer.await.map_err(gone)
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>) {
    // Low priority: this uses what the answers to everybody else leave over. A container may forbid
    // it, which costs latency under a login storm and nothing else.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 10);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            // A panic is its caller's, who finds no answer; the thread has others to serve.
            Ok(job) => drop(catch_unwind(AssertUnwindSafe(job))),
            Err(mpsc::RecvError) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ASVS 16.5.4.
    #[tokio::test]
    async fn a_panic_takes_no_thread_away() {
        let service = Threads::start(("test", "a test"), 1, 1).expect("a thread");
        let panicked = service.run(|| panic!("on purpose")).await;
        let panicked: AuthResult<()> = panicked;
        assert!(matches!(panicked, Err(AuthError::Internal(_))));
        assert_eq!(service.run(|| 7).await.expect("done"), 7);
    }

    /// ASVS 15.2.2.
    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let service = Threads::start(("test", "a test"), 1, 1).expect("a thread");
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
