//! Accounts that come from another system, with the hashes of their passwords.
//!
//! Decides what of such an account is accepted, by the rules for every account; only the rules for new passwords do
//! not apply, since nobody knows the password. No letter is sent. What another system calls things, and what
//! becomes of a list of them, is for whoever reads it.

use crate::{
    clock::Timestamp,
    error::{AuthError, AuthResult, FieldError},
    ids::UserId,
    model::{
        account::NewAccount,
        audit::Agent,
        user::{NewUser, PasswordHash, Roles, SessionLimitOverride, User, UserStatus},
    },
    passwords::foreign::HashCost,
    store::{CreateUser, LoginName},
};

use super::Accounts;

/// An account of another system.
#[derive(Debug, Clone)]
pub struct ImportedUser {
    /// Its id, if it is to be kept.
    pub id: Option<UserId>,
    /// Address, name and attributes, unparsed.
    pub account: NewAccount,
    /// Whether the address counts as verified.
    pub email_verified: bool,
    /// Since when; the time of the import where it is not known.
    pub email_verified_at: Option<Timestamp>,
    /// Roles, unparsed. The administrator's is one like the others here: an operator says who has it.
    pub roles: Vec<String>,
    /// Whether the user may log in.
    pub active: bool,
    /// Since when not.
    pub deactivated_at: Option<Timestamp>,
    /// When the account was made; the time of the import where it is not known.
    pub created_at: Option<Timestamp>,
    /// The hash of the password in one of the spellings that can be checked; none for a user who sets one by a
    /// letter.
    pub password_hash: Option<PasswordHash>,
}

/// What became of an account that was to be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    /// It is stored, or would be.
    Created {
        /// What checking its password costs, where that is more than any check cost so far.
        unexpected: Option<HashCost>,
    },
    /// There is an account with this address already; it stays as it is.
    Exists,
}

impl Accounts {
    /// Stores an account of another system, with its record in the audit trail, as the operator; with `really`
    /// unset only says what would become of it. Done again it answers [`Imported::Exists`].
    ///
    /// Of concurrent calls for one address one is `Created`; two for one id may end as a store error.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] with every field that breaks a rule, which repeats no hash;
    /// [`AuthError::UsernameTaken`], [`AuthError::Store`].
    pub async fn import(&self, from: ImportedUser, really: bool) -> AuthResult<Imported> {
        let (new, unexpected) = self.judge_import(from)?;
        let user = &new.user;
        let by_address = LoginName::Email(user.email.clone());
        if self.store.user_by_login(&by_address).await?.is_some() {
            return Ok(Imported::Exists);
        }
        if self.store.user(user.id).await?.is_some() {
            return Err(FieldError::new("id", "taken", "is the id of another user").into());
        }
        if really {
            let by = self.trail.by(Agent::Operator);
            return match self.store.create_user(&new, None, None, &by).await? {
                CreateUser::Created => Ok(Imported::Created { unexpected }),
                CreateUser::EmailTaken => match self.store.user_by_login(&by_address).await? {
                    Some(_) => Ok(Imported::Exists),
                    // It is kept for another account.
                    None => Err(AuthError::EmailTaken),
                },
                CreateUser::UsernameTaken => Err(AuthError::UsernameTaken),
            };
        }
        if let Some(username) = &user.username {
            let by_name = LoginName::Username(username.clone());
            if self.store.user_by_login(&by_name).await?.is_some() {
                return Err(AuthError::UsernameTaken);
            }
        }
        Ok(Imported::Created { unexpected })
    }

    /// Judges everything that can be judged without the database.
    fn judge_import(&self, from: ImportedUser) -> AuthResult<(NewUser, Option<HashCost>)> {
        let mut errors = Vec::new();
        let parsed = from.account.parse(&self.rules, &mut errors);
        let roles = Roles::parse(from.roles);
        let roles =
            roles.map_err(|e| errors.push(FieldError::new("roles", "invalid", e.to_string())));
        let cost = from
            .password_hash
            .as_ref()
            .map(|hash| self.passwords.appraise(hash));
        let cost = cost.transpose().map_err(|why| {
            errors.push(FieldError::new(
                "password_hash",
                "unusable",
                why.to_string(),
            ));
        });
        let (Some((email, username, attributes)), Ok(roles), Ok(cost)) = (parsed, roles, cost)
        else {
            return Err(AuthError::Invalid(errors));
        };
        let now = self.clock.now();
        // What is said to be yet to come has just been.
        let past = |at: Option<Timestamp>| at.map_or(now, |at| at.min(now));
        let created_at = past(from.created_at);
        let status = if from.active {
            UserStatus::Active
        } else {
            let at = past(from.deactivated_at);
            UserStatus::Deactivated { at }
        };
        let user = User {
            // By when the account was made, so that lists are in that order.
            id: from
                .id
                .unwrap_or_else(|| UserId::fresh(created_at, &*self.entropy)),
            email,
            email_verified_at: from.email_verified.then(|| past(from.email_verified_at)),
            username,
            attributes,
            roles,
            status,
            session_limit: SessionLimitOverride::default(),
            created_at,
            updated_at: now,
        };
        let new = NewUser {
            user,
            password_hash: from.password_hash,
            provisional_until: None,
        };
        Ok((new, cost.flatten()))
    }
}
