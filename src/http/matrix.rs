//! Which operation asks for what: generated from the types that guard the handlers.
//!
//! The document names it with each operation (`x-permission`, `x-step-up`), the command line prints it by
//! role, and a test calls every operation to compare. Decides nothing: an operation's guard does.

use std::{collections::BTreeMap, sync::LazyLock};

use poem_openapi::{
    OpenApi,
    registry::{MetaApi, MetaOperation},
};

use super::{Api, permission::StepUp};
use crate::model::role::Permissions;

/// The schemes that declare what is asked for are none, and stand in no document.
const SCHEMES: [&str; 3] = ["bearer", "password", "client"];

/// Whom an operation lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Everybody.
    Nothing,
    /// A service with a client's credentials.
    Client,
    /// Whoever is logged in.
    Login,
    /// Whoever is logged in and has this permission.
    Permission {
        /// Its name.
        name: &'static str,
        /// For which requests the login has to be fresh.
        step_up: StepUp,
    },
}

/// An operation of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its `operationId`.
    pub id: &'static str,
    /// Its method, in capital letters.
    pub method: String,
    /// Its path, with parameters in braces.
    pub path: String,
    /// Whom it lets in.
    pub asks: Asks,
}

/// What an operation answers to somebody, as far as that depends on who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Lets them in.
    Allowed,
    /// Lets them in, with a fresh login for some requests.
    StepUpSometimes,
    /// Lets them in with a fresh login; without one 403 `reauth_required`.
    StepUp,
    /// 401: they are not logged in, or have to be a service.
    Unauthorized,
    /// 403 `permission_required`.
    Forbidden,
}

impl Verdict {
    /// As the matrix writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::StepUpSometimes => "step_up_sometimes",
            Self::StepUp => "step_up",
            Self::Unauthorized => "401",
            Self::Forbidden => "403",
        }
    }
}

impl Operation {
    /// What it answers to a user with these permissions, or to somebody who is not logged in.
    #[must_use]
    pub fn answers(&self, permissions: Option<&Permissions>) -> Verdict {
        match (self.asks, permissions) {
            (Asks::Nothing, _) | (Asks::Login, Some(_)) => Verdict::Allowed,
            (Asks::Client, _) | (Asks::Login | Asks::Permission { .. }, None) => {
                Verdict::Unauthorized
            }
            (Asks::Permission { name, step_up }, Some(held)) if held.contains(name) => {
                match step_up {
                    StepUp::Never => Verdict::Allowed,
                    StepUp::Sometimes => Verdict::StepUpSometimes,
                    StepUp::Always => Verdict::StepUp,
                }
            }
            (Asks::Permission { .. }, Some(_)) => Verdict::Forbidden,
        }
    }
}

/// Every operation of the API, in the order of the document.
#[must_use]
pub fn operations() -> Vec<Operation> {
    let paths = <Api as OpenApi>::meta()
        .into_iter()
        .flat_map(|api| api.paths);
    let of_path = paths.flat_map(|path| {
        let operations = path.operations.into_iter();
        operations.map(move |operation| Operation {
            id: operation.operation_id.unwrap_or_default(),
            method: operation.method.to_string(),
            path: path.path.clone(),
            asks: asked_by(&operation),
        })
    });
    of_path.collect()
}

fn asked_by(operation: &MetaOperation) -> Asks {
    let schemes = || {
        operation
            .security
            .iter()
            .flat_map(|way| way.keys().copied())
    };
    let permission = schemes().find(|scheme| scheme.contains(':'));
    let step_up = schemes().find_map(StepUp::parse);
    match (permission, step_up) {
        (Some(name), step_up) => Asks::Permission {
            name,
            step_up: step_up.unwrap_or(StepUp::Never),
        },
        (None, _) if schemes().any(|scheme| scheme == "client") => Asks::Client,
        (None, _) if schemes().next().is_some() => Asks::Login,
        (None, _) => Asks::Nothing,
    }
}

/// What an operation asks for, in a sentence that its description ends with.
fn sentence(asks: Asks) -> Option<String> {
    let Asks::Permission { name, step_up } = asks else {
        return None;
    };
    let fresh = match step_up {
        StepUp::Never => "",
        StepUp::Sometimes => ", for some of what it does a fresh login",
        StepUp::Always => " and a fresh login",
    };
    Some(format!("Needs the permission `{name}`{fresh}."))
}

/// The descriptions of operations with what they ask for, by `operationId`.
static DESCRIPTIONS: LazyLock<BTreeMap<&'static str, String>> = LazyLock::new(|| {
    let paths = <Api as OpenApi>::meta()
        .into_iter()
        .flat_map(|api| api.paths);
    let operations = paths.flat_map(|path| path.operations);
    let described = operations.filter_map(|operation| {
        let asked = sentence(asked_by(&operation))?;
        let text = match operation.description {
            Some(text) => format!("{text}\n\n{asked}"),
            None => asked,
        };
        Some((operation.operation_id?, text))
    });
    described.collect()
});

/// An operation's description as it is to stand in the document: what is declared among the schemes is said
/// in words.
pub(super) fn explained(mut apis: Vec<MetaApi>) -> Vec<MetaApi> {
    let paths = apis.iter_mut().flat_map(|api| &mut api.paths);
    for operation in paths.flat_map(|path| &mut path.operations) {
        let security = &mut operation.security;
        security.retain(|way| way.keys().all(|scheme| SCHEMES.contains(scheme)));
        if let Some(text) = operation.operation_id.and_then(|id| DESCRIPTIONS.get(id)) {
            operation.description = Some(text);
        }
    }
    apis
}

/// Adds to each operation of the document, for machines, what it asks for.
pub(super) fn declared(mut document: String) -> String {
    for operation in operations() {
        if let Asks::Permission { name, step_up } = operation.asks {
            let id = format!("\"operationId\": \"{}\"", operation.id);
            let step_up = step_up.as_str();
            let more = format!("{id}, \"x-permission\": \"{name}\", \"x-step-up\": \"{step_up}\"");
            document = document.replace(&id, &more);
        }
    }
    document
}
