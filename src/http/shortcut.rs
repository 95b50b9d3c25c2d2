//! The two questions that nearly every request asks, answered without the router.
//!
//! `GET /v1/auth/me` and `GET /v1/auth/check` without a query go straight to what their operations do; with one,
//! and for everything else, the router finds the way. What is answered is the same either way.

use std::sync::{Arc, LazyLock};

use poem::{Endpoint, Error, IntoResponse, PathPattern, Request, Response, http::Method};

use super::{
    check_api::{self, plain_check},
    guard::caller_of,
    me_api::me,
};

const ME: &str = "/v1/auth/me";

static ME_ROUTE: LazyLock<Arc<str>> = LazyLock::new(|| ME.into());
static CHECK_ROUTE: LazyLock<Arc<str>> = LazyLock::new(|| check_api::PATH.into());

/// All routes, some of them by the shortcut.
pub(super) struct Shortcut<E>(pub(super) E);

impl<E: Endpoint<Output = Response>> Endpoint for Shortcut<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let is_plain = request.method() == Method::GET && request.uri().query().is_none();
        let (route, answered) = match request.uri().path() {
            ME if is_plain => {
                let caller = caller_of(&request, &Method::GET).await;
                let answered = caller.map(|caller| me(caller).into_response());
                (&ME_ROUTE, answered.map_err(Error::from))
            }
            check_api::PATH if is_plain => (&CHECK_ROUTE, plain_check(&request).await),
            _ => return self.0.call(request).await,
        };
        // As the router does, for whoever counts and logs.
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
