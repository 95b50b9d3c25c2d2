//! Refreshing: one refresh token traded for the next, and noticing when somebody else has a copy.

use super::{Sessions, TokenPair};
use crate::{
    error::{AuthError, AuthResult},
    model::{
        audit::{Agent, Event, EventKind},
        mail::LetterKind,
        session::{CloseReason, RefreshVerdict, Verdict},
    },
    outbox::Cause,
    store::{CloseSession, RotateRefresh},
    tokens::RefreshToken,
};

impl Sessions {
    /// Trades a refresh token for its successor and a fresh access token (RFC 9700 §4.14.2).
    ///
    /// A token that was used before is answered with the same successor again while its client may not
    /// have got it: within `refresh_grace`, or as long as no access token of the new generation was
    /// seen. After that it is taken for a copy, and the session ends.
    ///
    /// # Errors
    /// [`AuthError::TokenInvalid`]; [`AuthError::RateLimited`]; [`AuthError::SessionEnded`], with
    /// [`CloseReason::RefreshReused`] for a copy; [`AuthError::SessionUnknown`];
    /// [`AuthError::Store`] when it cannot be decided: then the same token may be sent again.
    pub async fn refresh(&self, token: &str) -> AuthResult<TokenPair> {
        let presented = self.tokens.read_refresh(token)?;
        self.throttle.refresh(presented.session()).await?;
        let successor = self.tokens.successor(&presented)?;
        let rotation = RotateRefresh {
            user: presented.user(),
            session: presented.session(),
            presented: presented.hash(),
            successor: successor.hash(),
            generation: successor.generation(),
            idle: self.policy.idle(),
        };
        // Whoever finds that the session has changed meanwhile judges once more.
        for _ in 0..3 {
            let now = self.clock.now();
            if let Some(session_end) = self.store.rotate_refresh(&rotation, now).await? {
                self.presence.note(rotation.user, rotation.session, now);
                return self.pair(successor, session_end);
            }
            if let Some(again) = self.not_rotated(&presented).await? {
                return Ok(again);
            }
        }
        Err(AuthError::Overloaded("refreshes of one session"))
    }

    /// What a token that could not be rotated is answered; `None` to try once more.
    async fn not_rotated(&self, presented: &RefreshToken) -> AuthResult<Option<TokenPair>> {
        let (user, session) = (presented.user(), presented.session());
        let state = self
            .store
            .refresh_state(user, session)
            .await?
            .ok_or(AuthError::SessionUnknown)?;
        if presented.generation() > state.generation {
            // Restored from a backup: what came after it is not known any more, and nobody's fault.
            tracing::warn!(%user, %session, "the database is older than its tokens");
            return Err(AuthError::SessionUnknown);
        }
        let now = self.clock.now();
        let (grace, idle) = (self.policy.refresh_grace, self.policy.idle());
        match state.judge(presented.hash(), grace, idle, now) {
            RefreshVerdict::LostReply(current) => {
                if state.rotated_at.is_none_or(|at| now >= at.plus(grace)) {
                    // A lost answer, most likely; of a copy whose access tokens are never shown here, it is
                    // all that can be seen.
                    tracing::warn!(%user, %session, "a refresh token was used again late");
                }
                let event = Event::done(EventKind::RefreshRepeated);
                let event = event.about(user).of_session(session);
                let by = Agent::in_session(user, session);
                self.trail.note(event, by).await?;
                let retired = AuthError::TokenInvalid("made with a key that has been retired");
                let again = self.tokens.successor_with(presented, current);
                self.presence.note(user, session, now);
                self.pair(again.ok_or(retired)?, state.view.expires_at)
                    .map(Some)
            }
            RefreshVerdict::Reused => {
                let reason = CloseReason::RefreshReused;
                let notice = self
                    .outbox
                    .letter(LetterKind::RefreshReused, &Cause::default())
                    .map(|notice| notice.about(user).to(&state.view.user.email));
                let by = self.trail.by_nobody();
                let closing = self
                    .store
                    .close_reused_session(user, session, notice.as_ref(), &by);
                if closing.await? == CloseSession::Closed {
                    self.outbox.ring();
                    tracing::warn!(%user, %session, "a used refresh token was used again");
                    return Err(AuthError::SessionEnded(reason));
                }
                Ok(None)
            }
            RefreshVerdict::Dead(Verdict::Ended(reason)) => Err(AuthError::SessionEnded(reason)),
            RefreshVerdict::Dead(Verdict::Overdue(reason)) => {
                if self.close_overdue(&state.view, reason).await? {
                    return Err(AuthError::SessionEnded(reason));
                }
                Ok(None)
            }
            RefreshVerdict::Current | RefreshVerdict::Dead(Verdict::Live) => Ok(None),
        }
    }
}
