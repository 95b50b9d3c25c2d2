//! What confidential clients may ask of a token (RFC 7662), and ending a session by one (RFC 7009).

use super::{CurrentUser, Sessions};
use crate::{
    error::{AuthError, AuthResult},
    ids::{SessionId, UserId},
    model::{
        audit::Agent,
        session::{CloseReason, RefreshVerdict, Transport},
    },
    tokens::{Claims, TokenKind, refresh::is_refresh_token},
};

/// An active token.
#[derive(Debug, Clone)]
pub struct Introspection {
    /// Whose it is, now.
    pub caller: CurrentUser,
    /// Which token it is.
    pub token: IntrospectedToken,
}

/// Which token an [`Introspection`] is about.
#[derive(Debug, Clone)]
pub enum IntrospectedToken {
    /// An access token.
    Access(Claims),
    /// A refresh token; it ends with its session.
    Refresh,
}

/// Why a token is not active, as opposed to why that cannot be told.
fn is_refusal(error: &AuthError) -> bool {
    matches!(
        error,
        AuthError::TokenInvalid(_)
            | AuthError::TokenExpired
            | AuthError::SessionEnded(_)
            | AuthError::SessionUnknown
    )
}

impl Sessions {
    /// What an access or refresh token is worth now; `None` for whatever is not active. An access
    /// token counts as used, a refresh token does not.
    ///
    /// # Errors
    /// [`AuthError::Store`] and [`AuthError::Overloaded`] when it cannot be told.
    pub async fn introspect(&self, token: &str) -> AuthResult<Option<Introspection>> {
        let found = if is_refresh_token(token) {
            self.current_refresh(token).await
        } else {
            self.active_access(token).await
        };
        match found {
            Err(refused) if is_refusal(&refused) => Ok(None),
            found => found.map(Some),
        }
    }

    async fn active_access(&self, token: &str) -> AuthResult<Introspection> {
        let claims = self.tokens.verify(TokenKind::Access, token)?;
        Ok(Introspection {
            caller: self.judge_claims(TokenKind::Access, &claims).await?,
            token: IntrospectedToken::Access(claims),
        })
    }

    async fn current_refresh(&self, token: &str) -> AuthResult<Introspection> {
        let presented = self.tokens.read_refresh(token)?;
        let state = self
            .store
            .refresh_state(presented.user(), presented.session())
            .await?
            .ok_or(AuthError::SessionUnknown)?;
        let (grace, idle) = (self.policy.refresh_grace, self.policy.idle());
        match state.judge(presented.hash(), grace, idle, self.clock.now()) {
            RefreshVerdict::Current => Ok(Introspection {
                caller: CurrentUser::new(state.view, Transport::Bearer),
                token: IntrospectedToken::Refresh,
            }),
            _ => Err(AuthError::TokenInvalid("not the current refresh token")),
        }
    }

    /// Ends the session of a genuine access or refresh token, even an expired or used one; anything
    /// else has nothing to end (RFC 7009 §2.2).
    ///
    /// # Errors
    /// [`AuthError::Store`] when the session could not be ended.
    pub async fn revoke_by_token(&self, token: &str) -> AuthResult<()> {
        let (user, session) = match self.of_token(token) {
            Ok(of) => of,
            Err(refused) if is_refusal(&refused) => return Ok(()),
            Err(other) => return Err(other),
        };
        let (reason, by) = (CloseReason::Revoked, self.trail.by(Agent::Client));
        self.store
            .close_session(user, session, reason, None, &by)
            .await?;
        Ok(())
    }

    fn of_token(&self, token: &str) -> AuthResult<(UserId, SessionId)> {
        if is_refresh_token(token) {
            let read = self.tokens.read_refresh(token);
            read.map(|token| (token.user(), token.session()))
        } else {
            let read = self.tokens.verify(TokenKind::Access, token);
            read.map(|claims| (claims.sub, claims.sid))
        }
    }

    /// Which session a genuine access token, refresh token or cookie belongs to, whether or not it is honoured any
    /// more. The database is not asked.
    ///
    /// # Errors
    /// [`AuthError::TokenInvalid`] for whatever was not made with a key of the ring.
    pub fn session_of_token(&self, token: &str) -> AuthResult<SessionId> {
        if let Ok((_, session)) = self.of_token(token) {
            return Ok(session);
        }
        let cookie = self.tokens.verify(TokenKind::Cookie, token)?;
        Ok(cookie.sid)
    }
}
