//! What is known of one connection, and when it has had its time.
//!
//! A connection notes what moves on it in a few atomics; that is all it costs a request. Every so often the
//! listener looks through all of them ([`Link::judge`]) and says which is to end. So there is one timer for all
//! connections, and none for a request. What is judged by it is for `connection`.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
};

/// How long what may take, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// The head of a request, and before the first one the TLS handshake as well.
    pub(super) head: u64,
    /// Between two requests.
    pub(super) idle: u64,
    /// A request, from its head to its answer.
    pub(super) request: u64,
    /// Until a client has taken some more of its answer.
    pub(super) write: u64,
}

/// What a connection has to do besides what its client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing.
    GoOn,
    /// End once the requests that run have their answers.
    Finish,
    /// End at once.
    Cut,
}

/// What a look at a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may go on.
    Fine,
    /// A request has taken its time: whoever waits in it is to look at the clock.
    Late,
    /// It is to get this order.
    Ends(Order),
}

/// One connection, as its own task and the listener share it. Times are milliseconds by the listener's clock,
/// which never shows 0. Only one task writes each field but `order` (of HTTP/2, those of its streams), and what is
/// judged by them may be a moment old, so nothing here needs an order among memory accesses.
#[derive(Debug)]
pub(super) struct Link {
    /// Requests whose answers are not handed over to the connection in full.
    busy: AtomicU32,
    /// Those of them whose answers have begun.
    answering: AtomicU32,
    /// Since when it is as it is: busy, idle, or receiving a head.
    since: AtomicU64,
    /// When an answer last went on.
    answered: AtomicU64,
    /// Whether a head is being received.
    in_head: AtomicBool,
    /// Whether there may be several requests at once; what arrives between them is not always a head then.
    multiplexed: AtomicBool,
    /// Since when the client takes too little of what is to be written; 0 where nothing waits.
    blocked: AtomicU64,
    order: AtomicU8,
    /// The connection's task, which has one waker as long as it lives.
    task: OnceLock<Waker>,
}

impl Link {
    /// A connection that was opened at `now` and has its first head to send.
    pub(super) fn new(now: u64, order: Order) -> Self {
        Self {
            busy: AtomicU32::new(0),
            answering: AtomicU32::new(0),
            since: AtomicU64::new(now),
            answered: AtomicU64::new(now),
            in_head: AtomicBool::new(true),
            multiplexed: AtomicBool::new(false),
            blocked: AtomicU64::new(0),
            order: AtomicU8::new(order as u8),
            task: OnceLock::new(),
        }
    }

    /// It speaks HTTP/2.
    pub(super) fn is_multiplexed(&self) {
        self.multiplexed.store(true, Relaxed);
    }

    /// Bytes came in.
    pub(super) fn read(&self, now: u64) {
        let idle = self.busy.load(Relaxed) == 0 && !self.in_head.load(Relaxed);
        if idle && !self.multiplexed.load(Relaxed) {
            self.in_head.store(true, Relaxed);
            self.since.store(now, Relaxed);
        }
    }

    /// A request has come in.
    pub(super) fn begin(&self, now: u64) {
        self.busy.fetch_add(1, Relaxed);
        self.in_head.store(false, Relaxed);
        self.since.store(now, Relaxed);
    }

    /// Its answer has begun.
    pub(super) fn answer(&self, now: u64) {
        self.answering.fetch_add(1, Relaxed);
        self.answered.store(now, Relaxed);
    }

    /// Its answer goes on.
    pub(super) fn answer_on(&self, now: u64) {
        self.answered.store(now, Relaxed);
    }

    /// It is over, answered or not.
    pub(super) fn end(&self, now: u64, answered: bool) {
        if answered {
            self.answering.fetch_sub(1, Relaxed);
            self.answered.store(now, Relaxed);
        }
        self.since.store(now, Relaxed);
        self.busy.fetch_sub(1, Relaxed);
    }

    /// What is to be written waits for the client, and has done so since then.
    pub(super) fn block(&self, since: u64) {
        self.blocked.store(since, Relaxed);
    }

    /// All is written.
    pub(super) fn unblock(&self) {
        self.blocked.store(0, Relaxed);
    }

    /// What it is to do.
    pub(super) fn order(&self) -> Order {
        match self.order.load(Relaxed) {
            0 => Order::GoOn,
            1 => Order::Finish,
            _ => Order::Cut,
        }
    }

    /// Gives an order, which a milder one later does not take back.
    pub(super) fn give(&self, order: Order) {
        self.order.fetch_max(order as u8, Relaxed);
        self.wake();
    }

    /// Makes its task look around.
    pub(super) fn wake(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    /// The task that is polled here is the connection's, and stays it.
    pub(super) fn is_served_by(&self, task: &Waker) {
        self.task.get_or_init(|| task.clone());
    }

    /// Whether it has had its time.
    pub(super) fn judge(&self, now: u64, times: &Times) -> Verdict {
        let past = |since: &AtomicU64, limit| now.saturating_sub(since.load(Relaxed)) > limit;
        if self.blocked.load(Relaxed) != 0 && past(&self.blocked, times.write) {
            return Verdict::Ends(Order::Cut);
        }
        if self.busy.load(Relaxed) > 0 {
            // HTTP/2 has flow control of its own: nothing is blocked where nothing may be written.
            if self.answering.load(Relaxed) > 0 && past(&self.answered, times.write) {
                return Verdict::Ends(Order::Cut);
            }
            let late = past(&self.since, times.request);
            return if late { Verdict::Late } else { Verdict::Fine };
        }
        if self.in_head.load(Relaxed) {
            let late = past(&self.since, times.head);
            return if late {
                Verdict::Ends(Order::Cut)
            } else {
                Verdict::Fine
            };
        }
        if !past(&self.since, times.idle) {
            Verdict::Fine
        } else if past(&self.since, times.idle.saturating_add(times.head)) {
            Verdict::Ends(Order::Cut)
        } else {
            Verdict::Ends(Order::Finish)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        head: 10,
        idle: 75,
        request: 30,
        write: 20,
    };

    #[track_caller]
    fn assert_ends(link: &Link, at: u64, order: Order) {
        assert_eq!(link.judge(at, &TIMES), Verdict::Fine);
        assert_eq!(link.judge(at + 1, &TIMES), Verdict::Ends(order));
    }

    /// Bytes that trickle in do not make a head's time longer.
    #[test]
    fn a_head_has_its_time_however_it_comes_in() {
        let link = Link::new(1, Order::GoOn);
        link.read(9);
        assert_ends(&link, 11, Order::Cut);
        link.begin(11);
        link.end(12, false);
        link.read(40);
        link.read(49);
        assert_ends(&link, 50, Order::Cut);
    }

    #[test]
    fn what_is_idle_is_asked_to_end_and_then_made_to() {
        let link = Link::new(1, Order::GoOn);
        link.begin(2);
        link.answer(3);
        link.end(4, true);
        assert_ends(&link, 79, Order::Finish);
        assert_eq!(link.judge(90, &TIMES), Verdict::Ends(Order::Cut));
    }

    #[test]
    fn a_long_request_is_late_and_a_long_answer_is_not_cut_while_it_goes_on() {
        let link = Link::new(1, Order::GoOn);
        link.begin(2);
        assert_eq!(link.judge(32, &TIMES), Verdict::Fine);
        assert_eq!(link.judge(33, &TIMES), Verdict::Late);
        link.answer(33);
        link.answer_on(53);
        assert_eq!(link.judge(73, &TIMES), Verdict::Late);
        assert_eq!(link.judge(74, &TIMES), Verdict::Ends(Order::Cut));
    }

    #[test]
    fn a_client_that_takes_nothing_is_cut_off() {
        let link = Link::new(1, Order::GoOn);
        link.begin(2);
        link.end(3, false);
        link.block(5);
        assert_ends(&link, 25, Order::Cut);
        link.unblock();
        assert_eq!(link.judge(26, &TIMES), Verdict::Fine);
    }

    /// What HTTP/2 sends between requests, such as a ping, is no head.
    #[test]
    fn pings_do_not_make_a_connection_busy() {
        let link = Link::new(1, Order::GoOn);
        link.is_multiplexed();
        link.begin(2);
        link.end(3, false);
        link.read(60);
        assert_ends(&link, 78, Order::Finish);
    }

    #[test]
    fn an_order_is_not_taken_back() {
        let link = Link::new(1, Order::GoOn);
        link.give(Order::Cut);
        link.give(Order::Finish);
        assert_eq!(link.order(), Order::Cut);
    }
}
