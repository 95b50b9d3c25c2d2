//! Making, replacing and deleting roles.
//!
//! Decides what a role may be called and consist of; whether an administrator would be left is decided by the
//! store, in the same step as the change.

use super::Admin;
use crate::{
    error::{AuthError, AuthResult, FieldError},
    model::{
        role::{InvalidPermissions, Permissions, RoleDefinition, RoleSource},
        user::Roles,
    },
    roles::{Actor, KnownRole},
    store::{DeleteRole, PutRole},
};

impl Admin {
    /// Makes a role, or replaces one of the database; effective on its holders' next requests.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] for a name or a permission; [`AuthError::RoleFixed`] for a built-in role and
    /// one of the configuration; [`AuthError::LastAdmin`], [`AuthError::ReauthRequired`].
    pub async fn put_role(
        &self,
        by: Actor<'_>,
        name: String,
        permissions: &[String],
    ) -> AuthResult<KnownRole> {
        self.require_fresh(by)?;
        self.require_own(&name)?;
        let permissions = parse_permissions(permissions).map_err(AuthError::from)?;
        if !Roles::is_name(&name) {
            let detail = "must be of lower-case letters, digits, `_` and `-`, beginning with a letter, at most 32 \
                          characters";
            return Err(FieldError::new("name", "invalid", detail).into());
        }
        let role = RoleDefinition { name, permissions };
        let by = self.trail.by(by.agent());
        match self.store.put_role(&role, &self.fixed_roles, &by).await? {
            PutRole::Stored(stored) => Ok(stored.into()),
            PutRole::LastAdmin => Err(AuthError::LastAdmin),
        }
    }

    /// Deletes a role of the database. Users keep its name, which grants nothing until there is a role of
    /// that name again.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::RoleFixed`], [`AuthError::LastAdmin`],
    /// [`AuthError::ReauthRequired`].
    pub async fn delete_role(&self, by: Actor<'_>, name: &str) -> AuthResult<()> {
        self.require_fresh(by)?;
        self.require_own(name)?;
        let by = self.trail.by(by.agent());
        match self.store.delete_role(name, &self.fixed_roles, &by).await? {
            DeleteRole::Deleted => Ok(()),
            DeleteRole::LastAdmin => Err(AuthError::LastAdmin),
            DeleteRole::Unknown => Err(AuthError::NotFound("role")),
        }
    }

    /// Refuses to change what is not the database's.
    fn require_own(&self, name: &str) -> AuthResult<()> {
        match self.fixed_roles.source(name) {
            None | Some(RoleSource::Stored) => Ok(()),
            Some(RoleSource::BuiltIn) => Err(AuthError::RoleFixed("program")),
            Some(RoleSource::Config) => Err(AuthError::RoleFixed("configuration")),
        }
    }
}

fn parse_permissions(names: &[String]) -> Result<Permissions, FieldError> {
    let parsed = Permissions::parse(names.iter().map(String::as_str));
    parsed.map_err(|error| match error {
        InvalidPermissions::Name { at, why, .. } => {
            FieldError::new(format!("permissions.{at}"), "invalid", why.to_string())
        }
        InvalidPermissions::TooMany => {
            FieldError::new("permissions", "too_many", error.to_string())
        }
    })
}
