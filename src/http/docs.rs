//! The API's documents: one OpenAPI description and three ways to read it, all from the binary.

use std::{marker::PhantomData, sync::LazyLock};

use poem::{
    Endpoint, IntoResponse, Request, Response, Route,
    endpoint::BoxEndpoint,
    http::{HeaderMap, HeaderValue, Method, header},
    web::Html,
};
use poem_openapi::{
    LicenseObject, OpenApi, OpenApiService, ServerObject,
    registry::{MetaApi, Registry},
};

use super::{
    Api, matrix,
    shapes::{close_requests, written},
};

const DESCRIPTION: &str = "A stateful session server. Every request decodes the access token or cookie and then looks \
    its session up in the database, so that a logout, a revocation or a deactivated account is obeyed on the very next \
    request.\n\nWhere an access token is asked for, browsers may send the cookie of a login with `transport: cookie` \
    instead: `__Host-doorward`, `__Secure-doorward` with `http.cookie_domain`, or `doorward` on plain http. Never both.\n\nErrors are `application/problem+json` (RFC 9457); `code` is the stable name to program against. The \
    endpoints below `/v1/oauth` answer what is wrong in the words of their RFCs, with the same `code` besides.";

/// What one page of documents may load: only what stands in it.
const PAGE_POLICY: &str = "default-src 'none'; object-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob:; worker-src blob:; \
    style-src 'unsafe-inline'; img-src 'self' data: blob:; font-src data:; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// The description of an API without the API: nothing has to run to write it down.
struct Described<T>(PhantomData<T>);

impl<T: OpenApi> OpenApi for Described<T> {
    fn meta() -> Vec<MetaApi> {
        matrix::explained(T::meta())
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
        close_requests(&T::meta(), registry);
    }

    fn add_routes(
        self,
        _: &mut std::collections::HashMap<
            String,
            std::collections::HashMap<Method, BoxEndpoint<'static>>,
        >,
    ) {
    }
}

fn service(public_url: &str) -> OpenApiService<Described<Api>, ()> {
    OpenApiService::new(
        Described::<Api>(PhantomData),
        "Doorward",
        env!("CARGO_PKG_VERSION"),
    )
    .description(DESCRIPTION)
    .license(LicenseObject::new("MIT").url("https://opensource.org/license/mit"))
    .server(ServerObject::new(public_url))
}

/// The OpenAPI description as JSON.
#[must_use]
pub fn openapi_document(public_url: &str) -> String {
    complete(&service(public_url).spec(), public_url)
}

/// OAuth2 flows must list their scopes, even none (OpenAPI 3.0 §4.7.29); poem-openapi leaves an empty
/// list out. Operations say in `x-permission` and `x-step-up` what they ask for.
fn complete(document: &str, server: &str) -> String {
    let flow = "\"tokenUrl\": \"/v1/auth/login\"";
    let whole = format!(
        "\"tokenUrl\": \"{}/v1/auth/login\", \"scopes\": {{}}",
        path_of(server)
    );
    matrix::declared(written(&document.replace(flow, &whole)))
}

/// The path that the API is nested below, of an address or of a path; empty for none.
fn path_of(address: &str) -> String {
    let path = match url::Url::parse(address) {
        Ok(url) => url.path().to_owned(),
        Err(_) => address.to_owned(),
    };
    path.trim_end_matches('/').to_owned()
}

/// `/openapi.json`, `/docs`, `/redoc` and `/scalar`.
pub(super) fn mount(route: Route, public_url: &str) -> Route {
    // The pages call the node that they came from, whatever it is called outside.
    let here = format!("{}/", path_of(public_url));
    let page = |make: fn(&OpenApiService<Described<Api>, ()>) -> String| {
        let here = here.clone();
        Document::page(move || complete(&make(&service(&here)), &here))
    };
    let public_url = public_url.to_owned();
    route
        .at(
            "/openapi.json",
            Document::json(move || openapi_document(&public_url)),
        )
        .at("/docs", page(OpenApiService::swagger_ui_html))
        .at(
            "/redoc",
            page(|api| without_foreign_fonts(&api.redoc_html())),
        )
        .at("/scalar", page(|api| with_own_fonts(&api.scalar_html())))
}

/// Scalar's bundle asks its makers' server for letters unless it is told not to.
fn with_own_fonts(page: &str) -> String {
    let reference = "id=\"api-reference\"";
    page.replacen(
        reference,
        &format!("{reference} data-configuration='{{\"withDefaultFonts\":false}}'"),
        1,
    )
}

/// Redoc's template asks a font service of somebody else for its letters; the system's will do.
fn without_foreign_fonts(page: &str) -> String {
    let own = page
        .lines()
        .filter(|line| !line.contains("fonts.googleapis.com"));
    own.collect::<Vec<_>>().join("\n")
}

type Make = Box<dyn FnOnce() -> String + Send>;

/// A text of megabytes that never changes while the process runs, made when it is first asked for.
struct Document {
    text: LazyLock<String, Make>,
    is_page: bool,
}

impl Document {
    fn json(make: impl FnOnce() -> String + Send + 'static) -> Self {
        Self {
            text: LazyLock::new(Box::new(make)),
            is_page: false,
        }
    }

    fn page(make: impl FnOnce() -> String + Send + 'static) -> Self {
        Self {
            text: LazyLock::new(Box::new(make)),
            is_page: true,
        }
    }
}

impl Endpoint for Document {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Err(poem::error::MethodNotAllowedError.into());
        }
        let mut response = if self.is_page {
            Html(self.text.clone()).into_response()
        } else {
            self.text
                .to_string()
                .with_content_type("application/json")
                .into_response()
        };
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=300"),
        );
        if self.is_page {
            headers.insert(
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(PAGE_POLICY),
            );
        }
        Ok(response)
    }
}
