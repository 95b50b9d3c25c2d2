//! Doorward inside somebody else's poem app: what lets its handlers take a `CurrentUser`.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use poem::{Endpoint, IntoResponse, Middleware, Request, Response};

use super::{ApiOptions, Context, problem::Problem, surface::Surface};
use crate::auth::Auth;

impl Auth {
    /// Lets the handlers of a poem app take [`crate::CurrentUser`], [`super::HasRole`],
    /// [`super::HasPermission`], [`super::Fresh`] and [`super::Secured`]. Give it the options that [`Auth::routes`] gets: cookies are then called the
    /// same everywhere.
    ///
    /// A handler that panics is answered 500. It does nothing else to the app's own routes: headers for security and CORS, and a limit on bodies,
    /// are the app's to add.
    #[must_use]
    pub fn middleware(&self, options: &ApiOptions) -> AuthMiddleware {
        AuthMiddleware {
            auth: self.clone(),
            surface: Surface::new(options),
        }
    }
}

/// See [`Auth::middleware`].
#[derive(Clone)]
pub struct AuthMiddleware {
    auth: Auth,
    surface: Arc<Surface>,
}

impl<E: Endpoint> Middleware<E> for AuthMiddleware {
    type Output = Authenticated<E>;

    fn transform(&self, inner: E) -> Authenticated<E> {
        Authenticated {
            inner,
            layer: self.clone(),
        }
    }
}

/// An endpoint whose handlers can ask who is calling.
pub struct Authenticated<E> {
    inner: E,
    layer: AuthMiddleware,
}

impl<E: Endpoint> Endpoint for Authenticated<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let AuthMiddleware { auth, surface } = &self.layer;
        let context = Context::new(auth, surface, &request);
        request.set_data(context.clone());
        let handled = AssertUnwindSafe(context.recorded(&self.inner, request)).catch_unwind();
        let panicked = |_| Err(Problem::internal("a handler panicked").into());
        match handled.await.unwrap_or_else(panicked) {
            Ok(answer) => Ok(answer.into_response()),
            // Ours are answered here, where the request's id is known; the others are the app's.
            Err(error) => match error.downcast_ref::<Problem>() {
                Some(problem) => {
                    problem.log();
                    Ok(problem.render(&context.request_id))
                }
                None => Err(error),
            },
        }
    }
}
