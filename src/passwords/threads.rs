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

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{AuthError, AuthResult};

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads behind a bounded queue; they end when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Threads {
    jobs: mpsc::Sender<Job>,
    /// One for each job that may run or wait.
    places: Arc<Semaphore>,
    /// What they do, in words.
    what: &'static str,
}

/// A place for one job, running or waiting, until it is done or given up.
#[must_use]
pub(crate) struct Place(#[expect(dead_code, reason = "it is had, not used")] OwnedSemaphorePermit);

impl Threads {
    /// Starts `count` threads called `name`, for which `waiting` jobs may wait.
    pub(super) fn start(
        (name, what): (&str, &'static str),
        count: usize,
        waiting: usize,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for n in 0..count {
            let queue = Arc::clone(&queue);
            let thread = thread::Builder::new().name(format!("{name}-{n}"));
            thread.spawn(move || work(&queue))?;
        }
        let places = Arc::new(Semaphore::new(count.saturating_add(waiting)));
        Ok(Self { jobs, places, what })
    }

    /// A place for a job, for whoever wants to know that there is one before anything else is done.
    ///
    /// # Errors
    /// [`AuthError::Overloaded`] when the queue is full.
    pub(super) fn place(&self) -> AuthResult<Place> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place
            .map(Place)
            .map_err(|_| AuthError::Overloaded(self.what))
    }

    /// Runs `work` on one of the threads.
    ///
    /// # Errors
    /// As [`Self::place`].
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> AuthResult<T> {
        self.run_in(self.place()?, work).await
    }

    /// As [`Self::run`], in a place that was taken before.
    pub(super) async fn run_in<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> AuthResult<T> {
        let (done, answer) = oneshot::channel();
        let job: Job = Box::new(move || {
            // A client that went away while its password waited costs nothing more.
            if !done.is_closed() {
                let _ = done.send(work());
            }
            drop(place);
        });
        let gone = || AuthError::Internal(format!("a thread is gone: {}", self.what));
        self.jobs.send(job).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
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
