//! What an operation asks of its caller besides a login, as types: a permission, a fresh login.
//!
//! A handler that takes a [`HasPermission`] cannot be reached without it, and with [`Declared`] the same type
//! says so in the document and in the matrix of roles and operations. What permissions a user has is for
//! `roles`, how fresh a login has to be for `admin`.

use std::{fmt, marker::PhantomData, ops::Deref};

use futures_util::FutureExt;
use poem::{FromRequest, Request, RequestBody};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions, registry::Registry};

use super::{
    Context,
    guard::{Guard, Secured},
    problem::Problem,
};
use crate::{model::role, sessions::CurrentUser};

/// The name of a permission, as a type: what a handler asks for cannot be misspelt in one place only.
///
/// ```
/// struct BillingWrite;
///
/// impl doorward::http::PermissionName for BillingWrite {
///     const NAME: &'static str = "billing:write";
/// }
/// ```
pub trait PermissionName: Send + Sync + 'static {
    /// As it stands in roles.
    const NAME: &'static str;
}

/// See users and their sessions.
#[derive(Debug)]
pub struct UsersRead;

impl PermissionName for UsersRead {
    const NAME: &'static str = role::USERS_READ;
}

/// Make and change users.
#[derive(Debug)]
pub struct UsersWrite;

impl PermissionName for UsersWrite {
    const NAME: &'static str = role::USERS_WRITE;
}

/// End other users' sessions.
#[derive(Debug)]
pub struct SessionsRevoke;

impl PermissionName for SessionsRevoke {
    const NAME: &'static str = role::SESSIONS_REVOKE;
}

/// See which roles there are.
#[derive(Debug)]
pub struct RolesRead;

impl PermissionName for RolesRead {
    const NAME: &'static str = role::ROLES_READ;
}

/// Give roles, make and change them.
#[derive(Debug)]
pub struct RolesGrant;

impl PermissionName for RolesGrant {
    const NAME: &'static str = role::ROLES_GRANT;
}

/// See letters, try them again and drop them.
#[derive(Debug)]
pub struct OutboxManage;

impl PermissionName for OutboxManage {
    const NAME: &'static str = role::OUTBOX_MANAGE;
}

/// Read the audit trail and export it.
#[derive(Debug)]
pub struct AuditRead;

impl PermissionName for AuditRead {
    const NAME: &'static str = role::AUDIT_READ;
}

/// Give out all that is kept of a person, and erase it.
#[derive(Debug)]
pub struct UsersErase;

impl PermissionName for UsersErase {
    const NAME: &'static str = role::USERS_ERASE;
}

/// A caller with a permission, as roles and user are in the database now; anybody else is answered 403.
pub struct HasPermission<P: PermissionName> {
    caller: CurrentUser,
    permission: PhantomData<P>,
}

// By hand, so that the name of a permission need be neither.
impl<P: PermissionName> Clone for HasPermission<P> {
    fn clone(&self) -> Self {
        Self {
            caller: self.caller.clone(),
            permission: PhantomData,
        }
    }
}

impl<P: PermissionName> fmt::Debug for HasPermission<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", P::NAME, self.caller)
    }
}

impl<P: PermissionName> HasPermission<P> {
    /// The caller.
    #[must_use]
    pub fn into_inner(self) -> CurrentUser {
        self.caller
    }
}

impl<P: PermissionName> Deref for HasPermission<P> {
    type Target = CurrentUser;

    fn deref(&self) -> &CurrentUser {
        &self.caller
    }
}

impl<P: PermissionName> AsRef<CurrentUser> for HasPermission<P> {
    fn as_ref(&self) -> &CurrentUser {
        &self.caller
    }
}

impl<'a, P: PermissionName> FromRequest<'a> for HasPermission<P> {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        let caller = <CurrentUser as FromRequest>::from_request(request, body).await?;
        let roles = Context::of(request)?.auth.roles();
        let granted = roles.require(&caller.user, P::NAME).await;
        granted.map_err(Problem::from)?;
        Ok(Self {
            caller,
            permission: PhantomData,
        })
    }
}

impl<P: PermissionName> Guard for HasPermission<P> {}

/// A caller, a [`CurrentUser`] or one with a permission or role, who proved who they are not longer ago than `admin.step_up`; anybody else is answered 403 and
/// told how to do it again (ASVS 7.5.3).
#[derive(Debug, Clone)]
pub struct Fresh<G>(pub G);

impl<G> Deref for Fresh<G> {
    type Target = G;

    fn deref(&self) -> &G {
        &self.0
    }
}

impl<'a, G: Guard + AsRef<CurrentUser>> FromRequest<'a> for Fresh<G> {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        // Boxed for https://github.com/rust-lang/rust/issues/100013.
        let guarded = <G as FromRequest>::from_request(request, body).boxed();
        let guarded = guarded.await?;
        let admin = Context::of(request)?.auth.admin();
        let fresh = admin.require_fresh(guarded.as_ref().actor());
        fresh.map_err(Problem::from)?;
        Ok(Self(guarded))
    }
}

impl<G: Guard + AsRef<CurrentUser>> Guard for Fresh<G> {}

/// A caller of an operation that takes a fresh login for some requests: which they are, the use case says.
#[derive(Debug, Clone)]
pub(super) struct MayStepUp<G>(pub(super) G);

impl<G> Deref for MayStepUp<G> {
    type Target = G;

    fn deref(&self) -> &G {
        &self.0
    }
}

impl<'a, G: Guard> FromRequest<'a> for MayStepUp<G> {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        // Boxed for https://github.com/rust-lang/rust/issues/100013.
        let guarded = <G as FromRequest>::from_request(request, body).boxed();
        guarded.await.map(Self)
    }
}

impl<G: Guard> Guard for MayStepUp<G> {}

/// For which requests an operation takes a fresh login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepUp {
    /// For none.
    Never,
    /// For some: the operation's description says which.
    Sometimes,
    /// For all.
    Always,
}

impl StepUp {
    /// As the document and the matrix write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Sometimes => "sometimes",
            Self::Always => "always",
        }
    }

    /// The reverse of [`Self::as_str`].
    pub(super) fn parse(text: &str) -> Option<Self> {
        let all = [Self::Never, Self::Sometimes, Self::Always];
        all.into_iter().find(|step_up| step_up.as_str() == text)
    }
}

/// A guard that says what it asks for.
pub(super) trait Declares: Guard {
    const PERMISSION: &'static str;
    const STEP_UP: StepUp;
}

impl<P: PermissionName> Declares for HasPermission<P> {
    const PERMISSION: &'static str = P::NAME;
    const STEP_UP: StepUp = StepUp::Never;
}

impl<P: PermissionName> Declares for Fresh<HasPermission<P>> {
    const PERMISSION: &'static str = P::NAME;
    const STEP_UP: StepUp = StepUp::Always;
}

impl<P: PermissionName> Declares for MayStepUp<HasPermission<P>> {
    const PERMISSION: &'static str = P::NAME;
    const STEP_UP: StepUp = StepUp::Sometimes;
}

/// As [`Secured`], and says what is asked for among the schemes of the operation, from where `matrix` takes
/// it: an operation can tell its document nothing else.
#[derive(Debug, Clone)]
pub(super) struct Declared<T>(pub(super) T);

impl<T> Deref for Declared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'a, T: Declares> ApiExtractor<'a> for Declared<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        <Secured<T> as ApiExtractor>::register(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        let mut schemes = <Secured<T> as ApiExtractor>::security_schemes();
        schemes.extend([T::PERMISSION, T::STEP_UP.as_str()]);
        schemes
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let guarded = <Secured<T> as ApiExtractor>::from_request(request, body, options);
        guarded.await.map(|Secured(guarded)| Self(guarded))
    }
}
