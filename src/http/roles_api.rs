//! `/v1/admin/roles`: which roles there are, and making some.

use poem_openapi::{Enum, Object, OpenApi, param::Path, types::Example};

use super::{
    Tag,
    body::JsonBody,
    dto::{Time, example_time},
    permission::{Declared, Fresh, HasPermission, RolesGrant, RolesRead},
    problem::{ADMIN, Answer, BODY, CONFLICT, Done, Fails, INVALID, NOT_FOUND},
};
use crate::{auth::Auth, model::role::RoleSource, roles::KnownRole};

pub(super) struct RolesApi(pub(super) Auth);

/// Where a role comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "RoleSource", rename_all = "snake_case")]
enum SourceDto {
    /// The program.
    BuiltIn,
    /// The configuration.
    Config,
    /// The database.
    Stored,
}

impl From<RoleSource> for SourceDto {
    fn from(source: RoleSource) -> Self {
        match source {
            RoleSource::BuiltIn => Self::BuiltIn,
            RoleSource::Config => Self::Config,
            RoleSource::Stored => Self::Stored,
        }
    }
}

/// A role and what it grants.
#[derive(Object)]
#[oai(example, rename = "Role")]
struct RoleDto {
    /// As it stands in users' `roles`.
    name: String,
    /// What its holders may do.
    permissions: Vec<String>,
    /// Where it comes from; only stored ones can be changed here.
    source: SourceDto,
    /// When it was last put here, if it is stored.
    #[oai(nullable)]
    updated_at: Option<Time>,
}

impl From<&KnownRole> for RoleDto {
    fn from(known: &KnownRole) -> Self {
        Self {
            name: known.role.name.clone(),
            permissions: known.role.permissions.to_vec(),
            source: known.source.into(),
            updated_at: known.updated_at.map(Into::into),
        }
    }
}

impl Example for RoleDto {
    fn example() -> Self {
        Self {
            name: "support".to_owned(),
            permissions: vec!["sessions:revoke".to_owned(), "users:read".to_owned()],
            source: SourceDto::Stored,
            updated_at: Some(example_time()),
        }
    }
}

/// All roles, by name.
#[derive(Object)]
#[oai(example)]
struct RoleList {
    /// The roles.
    items: Vec<RoleDto>,
}

impl Example for RoleList {
    fn example() -> Self {
        Self {
            items: vec![RoleDto::example()],
        }
    }
}

/// What a role is to grant.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
struct PutRoleRequest {
    /// All of its permissions, Doorward's own and the application's.
    permissions: Vec<String>,
}

impl Example for PutRoleRequest {
    fn example() -> Self {
        Self {
            permissions: RoleDto::example().permissions,
        }
    }
}

#[OpenApi(prefix_path = "/v1/admin/roles", tag = "Tag::Administration")]
impl RolesApi {
    /// List roles
    ///
    /// The built-in one, those of the configuration and those made here. A name that users hold and that is
    /// not among them is the application's and grants nothing here.
    #[oai(path = "/", method = "get", operation_id = "list_roles")]
    async fn list(
        &self,
        _by: Declared<HasPermission<RolesRead>>,
    ) -> Result<Answer<200, RoleList>, Fails<ADMIN>> {
        let roles = self.0.roles().list().await?;
        Ok(Answer(RoleList {
            items: roles.iter().map(Into::into).collect(),
        }))
    }

    /// Make or replace a role
    ///
    /// Effective on its holders' next requests. The last active administrator cannot be made none by it.
    #[oai(path = "/:name", method = "put", operation_id = "put_role")]
    async fn put(
        &self,
        by: Declared<Fresh<HasPermission<RolesGrant>>>,
        name: Path<String>,
        body: JsonBody<PutRoleRequest>,
    ) -> Result<Answer<200, RoleDto>, Fails<{ ADMIN | BODY | CONFLICT | INVALID }>> {
        let admin = self.0.admin();
        let role = admin.put_role(by.actor(), name.0, &body.0.permissions);
        Ok(Answer((&role.await?).into()))
    }

    /// Delete a role
    ///
    /// Users keep its name, which grants nothing until a role of that name is made again. The last active
    /// administrator cannot be made none by it.
    #[oai(path = "/:name", method = "delete", operation_id = "delete_role")]
    async fn delete(
        &self,
        by: Declared<Fresh<HasPermission<RolesGrant>>>,
        name: Path<String>,
    ) -> Result<Done, Fails<{ ADMIN | NOT_FOUND | CONFLICT }>> {
        self.0.admin().delete_role(by.actor(), &name.0).await?;
        Ok(Done)
    }
}
