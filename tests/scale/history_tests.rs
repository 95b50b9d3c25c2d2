//! The judge of `tests/scale` finds what is planted, and nothing else: promise 1 rests on it there.

use crate::history::{Fault, History};

/// A session whose end was asked for at 10 and acknowledged at 20.
fn ended() -> History {
    let session = History::new();
    session.end_is_asked(10);
    session.end_is_acknowledged(20);
    session
}

#[test]
fn an_acceptance_after_an_acknowledged_end_is_found() {
    let session = ended();
    session.is_accepted(21);
    assert_eq!(session.fault(), Some(Fault::AcceptedAfterItsEnd(1)));

    // However the notes come in, and whatever else is noted.
    let session = History::new();
    session.is_accepted(50);
    session.is_refused(30);
    session.is_accepted(5);
    assert_eq!(
        session.fault(),
        Some(Fault::RefusedBeforeItsEnd),
        "nobody has asked yet"
    );
    session.end_is_acknowledged(20);
    session.end_is_asked(10);
    session.is_refused(60);
    assert_eq!(session.fault(), Some(Fault::AcceptedAfterItsEnd(30)));
    assert!(session.has_ended() && !session.is_to_live());
}

#[test]
fn who_asks_again_is_held_to_the_first_acknowledgement() {
    let session = ended();
    session.end_is_asked(30);
    session.end_is_acknowledged(40);
    session.is_accepted(35);
    assert_eq!(session.fault(), Some(Fault::AcceptedAfterItsEnd(15)));
}

#[test]
fn what_overlaps_the_end_may_be_judged_either_way() {
    let session = ended();
    // Began before the acknowledgement arrived.
    session.is_accepted(19);
    // Answered after somebody had begun to ask.
    session.is_refused(20);
    assert_eq!(session.fault(), None);

    // Nobody knows what became of it.
    let in_doubt = History::new();
    in_doubt.end_is_asked(10);
    in_doubt.is_accepted(1_000);
    assert_eq!(in_doubt.fault(), None);
    assert!(!in_doubt.has_ended() && !in_doubt.is_to_live());
}

#[test]
fn a_refusal_that_nobody_asked_for_is_found() {
    let session = History::new();
    session.is_accepted(1);
    session.is_refused(5);
    assert_eq!(session.fault(), Some(Fault::RefusedBeforeItsEnd));
    session.end_is_asked(6);
    session.end_is_acknowledged(7);
    assert_eq!(session.fault(), Some(Fault::RefusedBeforeItsEnd));
}

#[test]
fn a_session_that_comes_back_is_found() {
    let session = History::new();
    session.end_is_asked(10);
    session.is_refused(15);
    session.is_accepted(16);
    assert_eq!(session.fault(), Some(Fault::AcceptedAgain));
}
