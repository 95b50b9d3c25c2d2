//! Permissions and roles: names for what somebody may do, and sets of them under a name.
//!
//! Decides what a permission and a definition of a role look like, which roles are fixed by the program and
//! its configuration, and which of them make an administrator. Who holds a role stands in the user; what
//! stored roles there are is for the store, and what a user may do after all for `roles`.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::user::{ADMIN, Roles};
use crate::clock::Timestamp;

/// See users and their sessions.
pub const USERS_READ: &str = "users:read";
/// Make and change users, deactivate and activate them, start resets of their passwords.
pub const USERS_WRITE: &str = "users:write";
/// End other users' sessions.
pub const SESSIONS_REVOKE: &str = "sessions:revoke";
/// See which roles there are.
pub const ROLES_READ: &str = "roles:read";
/// Give roles to users, make and change roles; whoever actively holds it is an administrator.
pub const ROLES_GRANT: &str = "roles:grant";
/// See letters, try them again and drop them.
pub const OUTBOX_MANAGE: &str = "outbox:manage";
/// Read the audit trail and export it.
pub const AUDIT_READ: &str = "audit:read";
/// Give out all that is kept of a person, and erase it.
pub const USERS_ERASE: &str = "users:erase";

/// All permissions of Doorward's own, with what each allows.
pub const OWN: [(&str, &str); 8] = [
    (USERS_READ, "see users and their sessions"),
    (
        USERS_WRITE,
        "make and change users, deactivate and activate them, start resets of their passwords",
    ),
    (SESSIONS_REVOKE, "end other users' sessions"),
    (ROLES_READ, "see which roles there are"),
    (
        ROLES_GRANT,
        "give roles to users, make and change roles; its holders are the administrators",
    ),
    (OUTBOX_MANAGE, "see letters, try them again and drop them"),
    (AUDIT_READ, "read the audit trail and export it"),
    (
        USERS_ERASE,
        "give out all that is kept of a person, and erase it",
    ),
];

/// What the names of Doorward's permissions begin with, those to come included.
const RESERVED: [&str; 5] = ["users", "sessions", "roles", "outbox", "audit"];

/// Most characters of a permission's name.
pub const LONGEST_PERMISSION: usize = 64;
/// Most permissions of one role.
pub const MOST_PERMISSIONS: usize = 64;

/// The name of something that may be done: `subject:act`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission(Cow<'static, str>);

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPermission {
    /// Not of the accepted form.
    #[error(
        "must be of the form `subject:act`, both of lower-case letters, digits, `_` and `-`, beginning with a letter, \
         at most 64 characters in all"
    )]
    Form,
    /// Begins like Doorward's own and is none of them: the one that may have been meant.
    #[error(
        "is none of Doorward's permissions; did you mean {0}? Names of your own begin otherwise"
    )]
    NotOurs(&'static str),
}

impl Permission {
    /// A permission of Doorward's or of the application's.
    ///
    /// # Errors
    /// [`InvalidPermission`] for another form, and for a name that only looks like one of Doorward's.
    pub fn parse(name: &str) -> Result<Self, InvalidPermission> {
        let is_word = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
        };
        let (subject, act) = name.split_once(':').ok_or(InvalidPermission::Form)?;
        if name.len() > LONGEST_PERMISSION || !is_word(subject) || !is_word(act) {
            return Err(InvalidPermission::Form);
        }
        let own = OWN.map(|(own, _)| own);
        if RESERVED.contains(&subject) && !own.contains(&name) {
            let near = own.into_iter().max_by_key(|own| likeness(own, name));
            return Err(InvalidPermission::NotOurs(near.unwrap_or(USERS_READ)));
        }
        Ok(Self(Cow::Owned(name.to_owned())))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many characters two names begin and end with alike.
fn likeness(a: &str, b: &str) -> usize {
    let same = |a: &mut dyn Iterator<Item = u8>, b: &mut dyn Iterator<Item = u8>| {
        a.zip(b).take_while(|(a, b)| a == b).count()
    };
    same(&mut a.bytes(), &mut b.bytes()) + same(&mut a.bytes().rev(), &mut b.bytes().rev())
}

/// A sorted set of permissions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions(BTreeSet<Permission>);

/// Why a list of permissions is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPermissions {
    /// One of the names is refused.
    #[error("`{name}` {why}")]
    Name {
        /// Which one, from 0.
        at: usize,
        /// The name, cut to the longest length there is.
        name: String,
        /// Why.
        why: InvalidPermission,
    },
    /// More than [`MOST_PERMISSIONS`].
    #[error("must be at most 64 permissions")]
    TooMany,
}

impl Permissions {
    /// A set of permissions, each once.
    ///
    /// # Errors
    /// [`InvalidPermissions`] for the first name that is none, or for too many.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidPermissions> {
        let mut set = BTreeSet::new();
        for (at, name) in names.into_iter().enumerate() {
            let permission = Permission::parse(name).map_err(|why| InvalidPermissions::Name {
                at,
                name: name.chars().take(LONGEST_PERMISSION).collect(),
                why,
            })?;
            set.insert(permission);
        }
        if set.len() > MOST_PERMISSIONS {
            return Err(InvalidPermissions::TooMany);
        }
        Ok(Self(set))
    }

    /// All permissions of Doorward's own.
    #[must_use]
    pub fn own() -> Self {
        let own = OWN.into_iter();
        Self(own.map(|(name, _)| Permission(name.into())).collect())
    }

    /// Permissions as they were stored. What is of the right form stays readable, even if Doorward had a
    /// permission of that name once and has it no more; `None` for another form.
    #[must_use]
    pub fn stored(names: impl IntoIterator<Item = String>) -> Option<Self> {
        let set = names
            .into_iter()
            .map(|name| match Permission::parse(&name) {
                Ok(_) | Err(InvalidPermission::NotOurs(_)) => Some(Permission(name.into())),
                Err(InvalidPermission::Form) => None,
            });
        set.collect::<Option<_>>().map(Self)
    }

    /// Whether it is among them.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(&Permission(Cow::Owned(name.to_owned())))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of these are among others.
    #[must_use]
    pub fn are_within(&self, others: &Self) -> bool {
        self.0.is_subset(&others.0)
    }

    /// Adds others.
    pub fn add(&mut self, others: &Self) {
        self.0.extend(others.0.iter().cloned());
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Permission::as_str)
    }

    /// The names in order, as a list.
    #[must_use]
    pub fn to_vec(&self) -> Vec<String> {
        self.iter().map(str::to_owned).collect()
    }
}

/// A role and what it grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleDefinition {
    /// As it stands in users' `roles`.
    pub name: String,
    /// What its holders may do.
    pub permissions: Permissions,
}

impl RoleDefinition {
    /// Whether its holders are administrators.
    #[must_use]
    pub fn makes_administrators(&self) -> bool {
        self.permissions.contains(ROLES_GRANT)
    }
}

/// A role of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRole {
    /// The role.
    pub role: RoleDefinition,
    /// When it was last put there.
    pub updated_at: Timestamp,
}

/// Where a definition comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleSource {
    /// The program.
    BuiltIn,
    /// `[roles]` of the configuration.
    Config,
    /// The database.
    Stored,
}

impl RoleSource {
    /// As people and scripts are told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BuiltIn => "built_in",
            Self::Config => "config",
            Self::Stored => "stored",
        }
    }
}

/// The roles that the database does not decide: `admin` and those of the configuration. A stored role of
/// the same name counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedRoles(BTreeMap<String, Permissions>);

impl Default for FixedRoles {
    fn default() -> Self {
        Self::with([])
    }
}

impl FixedRoles {
    /// `admin`, which holds all of Doorward's own permissions, and these; another `admin` among them
    /// counts for nothing.
    #[must_use]
    pub fn with(config: impl IntoIterator<Item = RoleDefinition>) -> Self {
        let config = config.into_iter().map(|role| (role.name, role.permissions));
        let built_in = [(ADMIN.to_owned(), Permissions::own())];
        Self(config.chain(built_in).collect())
    }

    /// What a role grants, if it is a fixed one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Permissions> {
        self.0.get(name)
    }

    /// Where a role comes from, if it is a fixed one.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<RoleSource> {
        match name {
            ADMIN => Some(RoleSource::BuiltIn),
            name => self.0.contains_key(name).then_some(RoleSource::Config),
        }
    }

    /// The roles by name.
    pub fn iter(&self) -> impl Iterator<Item = RoleDefinition> {
        self.0.iter().map(|(name, permissions)| RoleDefinition {
            name: name.clone(),
            permissions: permissions.clone(),
        })
    }

    /// The fixed roles whose holders are administrators, or those whose holders are not.
    pub fn names(&self, makes_administrators: bool) -> impl Iterator<Item = &str> {
        let granting = move |permissions: &Permissions| permissions.contains(ROLES_GRANT);
        let names = self.0.iter();
        names
            .filter(move |(_, permissions)| granting(permissions) == makes_administrators)
            .map(|(name, _)| name.as_str())
    }

    /// The roles whose holders are administrators, where these roles are stored.
    #[must_use]
    pub fn administrators<'a>(
        &self,
        stored: impl IntoIterator<Item = &'a RoleDefinition>,
    ) -> AdminRoles {
        let stored = stored
            .into_iter()
            .filter(|role| role.makes_administrators() && self.get(&role.name).is_none());
        let stored = stored.map(|role| role.name.clone());
        AdminRoles(self.names(true).map(str::to_owned).chain(stored).collect())
    }
}

/// Names of roles whose holders are administrators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminRoles(BTreeSet<String>);

impl AdminRoles {
    /// Whether the holder of these roles is an administrator.
    #[must_use]
    pub fn is_among(&self, held: &Roles) -> bool {
        held.iter().any(|role| self.0.contains(role))
    }

    /// The same without one of them.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, permissions: &[&str]) -> RoleDefinition {
        RoleDefinition {
            name: name.to_owned(),
            permissions: Permissions::parse(permissions.iter().copied()).expect("valid"),
        }
    }

    #[test]
    fn a_permission_is_a_subject_and_an_act() {
        for good in ["users:read", "billing:write", "a1-b:c_d"] {
            assert_eq!(
                Permission::parse(good).map(|p| p.to_string()),
                Ok(good.to_owned())
            );
        }
        let long = format!("a:{}", "b".repeat(LONGEST_PERMISSION));
        for bad in [
            "",
            "users",
            "users:",
            ":read",
            "Users:read",
            "a:b:c",
            "a b:c",
            "1a:b",
            &long,
        ] {
            assert_eq!(
                Permission::parse(bad),
                Err(InvalidPermission::Form),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_misspelt_permission_of_our_own_is_named() {
        for (name, meant) in [
            ("users:reed", USERS_READ),
            ("sessions:revok", SESSIONS_REVOKE),
            ("roles:grants", ROLES_GRANT),
            ("outbox:read", OUTBOX_MANAGE),
        ] {
            assert_eq!(
                Permission::parse(name),
                Err(InvalidPermission::NotOurs(meant))
            );
        }
        assert!(matches!(
            Permission::parse("audit:write"),
            Err(InvalidPermission::NotOurs(_))
        ));
    }

    #[test]
    fn the_built_in_administrator_cannot_be_redefined() {
        let fixed = FixedRoles::with([role("admin", &["users:read"])]);
        assert_eq!(fixed.get(ADMIN), Some(&Permissions::own()));
        assert_eq!(fixed.source(ADMIN), Some(RoleSource::BuiltIn));
    }

    #[test]
    fn who_holds_roles_grant_is_an_administrator() {
        let fixed = FixedRoles::with([
            role("owner", &["roles:grant"]),
            role("support", &["users:read"]),
        ]);
        let stored = [
            role("chief", &["roles:grant", "billing:write"]),
            role("support", &["roles:grant"]),
            role("clerk", &["roles:read"]),
        ];
        let administrators = fixed.administrators(&stored);
        assert_eq!(
            administrators.iter().collect::<Vec<_>>(),
            ["admin", "chief", "owner"],
            "a stored role does not count where the configuration has one of its name"
        );
    }
}
