//! The two questions that nearly every request asks, answered without the router.
//!
//! `GET /v1/auth/me` and `GET /v1/auth/check` without a query go straight to what their operations do; with one,
//! and for everything else, the router finds the way. What is answered is the same either way. What surrounds an
//! answer is for `edge`.

use std::sync::{Arc, LazyLock};

use poem::{Error, IntoResponse, PathPattern, Request, Response, http::Method};

use super::{
    check_api::{self, plain_check},
    guard::caller_of,
    me_api::me,
};

const ME: &str = "/v1/auth/me";

static ME_ROUTE: LazyLock<Arc<str>> = LazyLock::new(|| ME.into());
static CHECK_ROUTE: LazyLock<Arc<str>> = LazyLock::new(|| check_api::PATH.into());

/// A question that needs no router.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shortcut {
    Me,
    Check,
}

impl Shortcut {
    /// The one that this request may take, if it has no body to be read.
    pub(super) fn of(request: &mut Request) -> Option<Self> {
        if request.method() != Method::GET || request.uri().query().is_some() {
            return None;
        }
        let shortcut = match request.uri().path() {
            ME => Self::Me,
            check_api::PATH => Self::Check,
            _ => return None,
        };
        let body = request.take_body();
        if body.is_empty() {
            return Some(shortcut);
        }
        request.set_body(body);
        None
    }

    /// The answer, with the route as the router names it, for whoever counts and logs.
    pub(super) async fn answer(self, request: &Request) -> poem::Result<Response> {
        let (route, answered) = match self {
            Self::Me => {
                let caller = caller_of(request, &Method::GET).await;
                let answered = caller.map(|caller| me(caller).into_response());
                (&ME_ROUTE, answered.map_err(Error::from))
            }
            Self::Check => (&CHECK_ROUTE, plain_check(request).await),
        };
        let pattern = PathPattern(Arc::clone(route));
        match answered {
            Ok(mut response) => {
                response.set_data(pattern);
                Ok(response)
            }
            Err(mut error) => {
                error.set_data(pattern);
                Err(error)
            }
        }
    }
}
