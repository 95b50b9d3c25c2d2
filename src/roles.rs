//! What a user may do: roles of the program, the configuration and the database become permissions.
//!
//! Decides what the roles grant that stand in a user's row, read at the moment that somebody asks and never
//! kept, and whom somebody may act on. Which operation asks for what is decided at the edge, by type; making
//! and giving roles is for `admin`.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    error::{AuthError, AuthResult},
    ids::SessionId,
    model::{
        audit::Agent,
        role::{FixedRoles, Permissions, ROLES_GRANT, RoleDefinition, RoleSource, StoredRole},
        user::{ADMIN, Roles, User},
    },
    setting::{BadSetting, shown},
    store::Store,
};

/// `[roles]`: what each role of the configuration grants, by name. Default none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoleSettings(pub BTreeMap<String, Vec<String>>);

impl RoleSettings {
    /// The roles, with the built-in one.
    ///
    /// # Errors
    /// [`BadSetting`] for the first name of a role or a permission that is refused.
    pub fn fixed(&self) -> Result<FixedRoles, BadSetting> {
        let define = |(name, permissions): (&String, &Vec<String>)| {
            let bad = |problem: String, remedy| {
                Err(BadSetting::new(&format!("roles.{name}"), problem, remedy))
            };
            if name == ADMIN {
                let problem = "is the built-in role, which cannot be changed".to_owned();
                return bad(problem, "choose another name");
            }
            if !Roles::is_name(name) {
                let problem = format!("{} is not the name of a role", shown(name));
                return bad(
                    problem,
                    "take lower-case letters, digits, `_` and `-`, beginning with a letter, at most 32 characters",
                );
            }
            let permissions = Permissions::parse(permissions.iter().map(String::as_str));
            match permissions {
                Ok(permissions) => Ok(RoleDefinition {
                    name: name.clone(),
                    permissions,
                }),
                Err(why) => bad(why.to_string(), "correct it, e.g. [\"users:read\"]"),
            }
        };
        let defined: Result<Vec<_>, _> = self.0.iter().map(define).collect();
        Ok(FixedRoles::with(defined?))
    }
}

/// Who acts on users and roles.
#[derive(Debug, Clone, Copy)]
pub enum Actor<'a> {
    /// Whoever holds the database itself, and may do everything.
    Operator,
    /// A user who is logged in.
    User {
        /// The user as the request was authenticated with.
        user: &'a User,
        /// The session they act in.
        session: SessionId,
        /// When they last proved who they are.
        authenticated_at: Timestamp,
    },
}

impl Actor<'_> {
    /// As the audit trail names them.
    #[must_use]
    pub fn agent(&self) -> Agent {
        match self {
            Self::Operator => Agent::Operator,
            Self::User { user, session, .. } => Agent::in_session(user.id, *session),
        }
    }
}

/// A role that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRole {
    /// Its name and what it grants.
    pub role: RoleDefinition,
    /// Where it comes from.
    pub source: RoleSource,
    /// When it was last put into the database, if it is there.
    pub updated_at: Option<Timestamp>,
}

impl From<StoredRole> for KnownRole {
    fn from(stored: StoredRole) -> Self {
        Self {
            role: stored.role,
            source: RoleSource::Stored,
            updated_at: Some(stored.updated_at),
        }
    }
}

/// What roles there are and what they grant; clones share everything.
#[derive(Clone)]
pub struct RoleBook {
    store: Arc<dyn Store>,
    fixed: Arc<FixedRoles>,
}

impl RoleBook {
    pub(crate) fn new(store: Arc<dyn Store>, fixed: Arc<FixedRoles>) -> Self {
        Self { store, fixed }
    }

    /// The roles of the program and the configuration.
    #[must_use]
    pub fn fixed(&self) -> &FixedRoles {
        &self.fixed
    }

    /// All roles by name. A stored one is not among them where the configuration has one of its name.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn list(&self) -> AuthResult<Vec<KnownRole>> {
        let stored = self.store.list_roles().await?.into_iter();
        let stored = stored.filter(|stored| self.fixed.get(&stored.role.name).is_none());
        let stored = stored.map(KnownRole::from);
        let fixed = self.fixed.iter().map(|role| KnownRole {
            source: self.fixed.source(&role.name).unwrap_or(RoleSource::Config),
            role,
            updated_at: None,
        });
        let mut all: Vec<KnownRole> = fixed.chain(stored).collect();
        all.sort_by(|a, b| a.role.name.cmp(&b.role.name));
        Ok(all)
    }

    /// What a user with these roles may do now: all that any of them grants. The database is asked for
    /// those that are not fixed, each time; a role that is defined nowhere grants nothing.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn permissions_of(&self, user: &User) -> AuthResult<Permissions> {
        let (mut granted, others) = self.fixed_part(user);
        if !others.is_empty() {
            for role in self.store.roles_named(&others).await? {
                granted.add(&role.permissions);
            }
        }
        Ok(granted)
    }

    /// Refuses a user who lacks a permission now (ASVS 8.3.2). The database is not asked where the fixed
    /// roles grant it.
    ///
    /// # Errors
    /// [`AuthError::PermissionRequired`], [`AuthError::Store`].
    pub async fn require(
        &self,
        user: &User,
        permission: impl Into<Cow<'static, str>> + Send,
    ) -> AuthResult<()> {
        let permission = permission.into();
        let granted = self.fixed_part(user).0.contains(&permission)
            || self.permissions_of(user).await?.contains(&permission);
        if granted {
            Ok(())
        } else {
            Err(AuthError::PermissionRequired(permission))
        }
    }

    /// Whether somebody may act on anybody, as far as that can be told without the database.
    #[must_use]
    pub fn is_above_all(&self, actor: Actor<'_>) -> bool {
        match actor {
            Actor::Operator => true,
            Actor::User { user, .. } => self.fixed_part(user).0.contains(ROLES_GRANT),
        }
    }

    /// Refuses to act on a user who holds a permission that the actor lacks, active or not; nobody is above
    /// whoever holds [`ROLES_GRANT`], and they are above everybody.
    ///
    /// Both are taken as they were when their roles were read: an act that races with a grant to its target
    /// counts as done before it.
    ///
    /// # Errors
    /// [`AuthError::Outranked`], [`AuthError::Store`].
    pub async fn require_rank(&self, actor: Actor<'_>, target: &User) -> AuthResult<()> {
        let Actor::User { user, .. } = actor else {
            return Ok(());
        };
        if self.is_above_all(actor) || target.id == user.id {
            return Ok(());
        }
        let theirs = self.permissions_of(target).await?;
        if theirs.is_empty() {
            return Ok(());
        }
        let own = self.permissions_of(user).await?;
        if own.contains(ROLES_GRANT) || theirs.are_within(&own) {
            Ok(())
        } else {
            Err(AuthError::Outranked)
        }
    }

    /// What the fixed roles among a user's grant, and the names of the other ones.
    fn fixed_part(&self, user: &User) -> (Permissions, Vec<String>) {
        let (mut granted, mut others) = (Permissions::default(), Vec::new());
        for name in user.roles.iter() {
            match self.fixed.get(name) {
                Some(permissions) => granted.add(permissions),
                None => others.push(name.to_owned()),
            }
        }
        (granted, others)
    }
}
