//! The audit trail: what it takes to write it, and where requests come from.
//!
//! Every use case asks [`Trail`] for the [`Occasion`] of what it does and hands it to the store, which writes
//! the records in the same step as the change. What changes nothing, a refused login for one, is recorded here.
//! Sealing, reading and telling the story of a session are for the modules below.

mod reading;
mod retention;
mod sealing;
mod settings;
mod story;
mod verifying;

use std::{future::Future, sync::Arc};

use tokio::task_local;

pub use self::{
    reading::{OwnEvent, ShownDetails, ShownRecord},
    sealing::Sealing,
    settings::AuditPolicy,
    story::{Again, Ending, Fate, Opening, Story},
    verifying::{Break, Flaw, Verified},
};
use crate::{
    clock::Clock,
    entropy::Entropy,
    error::AuthResult,
    ids::{SessionId, UserId},
    lease::Lease,
    model::{
        audit::{
            Agent, Event, EventKind, Occasion, Origin, Recorder, keys::AuditSecret, seal::SealKey,
        },
        token::Purpose,
    },
    setting::BadSetting,
    store::Store,
};

task_local! {
    /// Where the request comes from that is being handled. Set once, at the edge: a handler can neither forget
    /// nor change it.
    static ORIGIN: Box<dyn Fn() -> Origin + Send + Sync>;
}

/// Handles a request as coming from there: everything that is recorded while `handling` runs says so. It is asked
/// for when something is: most requests leave no record.
pub async fn coming_from<F: Future>(
    origin: impl Fn() -> Origin + Send + Sync + 'static,
    handling: F,
) -> F::Output {
    ORIGIN.scope(Box::new(origin), handling).await
}

/// What writes the audit trail; clones share everything.
#[derive(Clone)]
pub struct Trail(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// None where the trail is off.
    recorder: Option<Arc<Recorder>>,
    /// Reads what was recorded, also while the trail is off.
    reader: Arc<Recorder>,
    seal_key: SealKey,
    policy: AuditPolicy,
    /// For sealing.
    lease: Lease,
}

impl Trail {
    /// A trail in this database, with keys from this secret.
    ///
    /// # Errors
    /// [`BadSetting`] when the policy contradicts itself or the secret cannot be used.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        secret: &AuditSecret,
        policy: AuditPolicy,
    ) -> Result<Self, BadSetting> {
        policy.check()?;
        let own = policy.secret()?;
        let secret = own.as_ref().unwrap_or(secret);
        let refused = |_| BadSetting::new("audit.key", "cannot be used", "set 32 random bytes");
        let lease = Lease::new(
            Arc::clone(&store),
            Arc::clone(&clock),
            &*entropy,
            sealing::LEASE_NAME,
        );
        let reader = Arc::new(Recorder::new(secret, entropy).map_err(refused)?);
        Ok(Self(Arc::new(Inner {
            store,
            clock,
            recorder: policy.enabled.then(|| Arc::clone(&reader)),
            reader,
            seal_key: secret.seal_key().map_err(refused)?,
            policy,
            lease,
        })))
    }

    /// What somebody does now.
    #[must_use]
    pub fn by(&self, agent: Agent) -> Occasion {
        Occasion {
            at: self.0.clock.now(),
            agent,
            // What no request causes comes from nowhere.
            origin: ORIGIN.try_with(|origin| Arc::new(origin())).ok(),
            recorder: self.0.recorder.clone(),
        }
    }

    /// What a user does now in a session of theirs.
    #[must_use]
    pub fn by_user(&self, id: UserId, session: SessionId) -> Occasion {
        self.by(Agent::in_session(id, session))
    }

    /// What somebody does now who has not shown who they are.
    #[must_use]
    pub fn by_nobody(&self) -> Occasion {
        self.by(Agent::Nobody)
    }

    /// What is done now because its time has come.
    #[must_use]
    pub fn by_itself(&self) -> Occasion {
        self.by(Agent::System)
    }

    /// Records what changed nothing.
    ///
    /// # Errors
    /// [`AuthError::Store`](crate::error::AuthError::Store): what cannot be recorded is not answered as if it had been.
    pub async fn note(&self, event: Event, agent: Agent) -> AuthResult<()> {
        Ok(self.0.store.record(&[event], &self.by(agent)).await?)
    }

    /// Records that somebody who is logged in gave a wrong password.
    ///
    /// # Errors
    /// As [`Self::note`].
    pub(crate) async fn note_wrong_password(
        &self,
        user: UserId,
        session: SessionId,
    ) -> AuthResult<()> {
        let event = Event::refused(EventKind::Reauthentication, "wrong_password");
        let event = event.about(user).of_session(session);
        self.note(event, Agent::in_session(user, session)).await
    }

    /// Records that a link or a code was refused.
    ///
    /// # Errors
    /// As [`Self::note`].
    pub(crate) async fn note_refused_proof(&self, purpose: Purpose, by: Agent) -> AuthResult<()> {
        let event = Event::refused(EventKind::ProofRefused, purpose.as_str());
        self.note(event.about(by.user()), by).await
    }
}
