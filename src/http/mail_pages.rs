//! The pages that links in letters open, and what their forms send.
//!
//! Looking at a page consumes nothing, however often and by whomever: the secret of a link stays in the
//! fragment until the page's button posts it to the API (ASVS 3.5.3, 14.2.1). What is typed, a code or the
//! address of a forgotten password, is sent by a plain form, so that it works without scripts.

use poem::{
    Endpoint, FromRequest, IntoResponse, Request, RequestBody, Response,
    http::header,
    web::{Form, Html},
};
use serde::Deserialize;

use super::{Context, body::malformed_form, guard::Caused, page::page_policy, problem::Problem};
use crate::{
    error::{AuthError, AuthResult},
    letters::{Message, Page, PageView},
    outbox::Cause,
    tokens::Evidence,
};

/// A page, and how many segments it stands below the root of the API besides its own.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) page: Page,
    pub(super) depth: usize,
}

/// The page.
pub(super) struct ShowPage(pub(super) Place);

impl Endpoint for ShowPage {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let context = Context::of(&request)?;
        let shown = Shown::new(self.0, &request);
        let in_vain = self.0.page == Page::ForgotPassword && !context.auth.outbox().is_on();
        let problem = in_vain.then(|| Problem::from(AuthError::MailOff));
        let stage = problem.as_ref().map_or(Stage::Asking, Stage::Over);
        Ok(shown.render(context, &Filled::default(), stage)?)
    }
}

/// What its form sends.
pub(super) struct TakeForm(pub(super) Place);

#[derive(Default, Deserialize)]
struct Filled {
    email: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    password: String,
}

impl Endpoint for TakeForm {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let (request, mut body) = request.split();
        self.answer(&request, &mut body).await
    }
}

impl TakeForm {
    pub(super) async fn answer(
        &self,
        request: &Request,
        body: &mut RequestBody,
    ) -> poem::Result<Response> {
        let context = Context::of(request)?;
        let shown = Shown::new(self.0, request);
        let Caused(cause) = Caused::from_request(request, body).await?;
        let form = Form::<Filled>::from_request(request, body).await;
        let Form(filled) = form.map_err(|error| malformed_form(&error))?;
        let done = obey(self.0.page, context, &filled, &cause).await;
        let refused = done.err().map(Problem::from);
        let stage = refused.as_ref().map_or(Stage::Done, Stage::Refused);
        let mut response = shown.render(context, &filled, stage)?;
        if let Some(problem) = &refused {
            problem.log();
            problem.apply_to(&mut response);
        }
        Ok(response)
    }
}

/// Does what the form of a page is for.
async fn obey(page: Page, context: &Context, filled: &Filled, cause: &Cause) -> AuthResult<()> {
    let (verification, recovery) = (context.auth.verification(), context.auth.recovery());
    let code: String = filled.code.split_whitespace().collect();
    let evidence = Evidence::Code {
        email: &filled.email,
        code: &code,
    };
    let password = filled.password.as_str().into();
    match page {
        Page::ForgotPassword => recovery.forgot(&filled.email, cause).await,
        Page::ResetPassword => recovery.set_password(evidence, &password, cause).await,
        Page::ConfirmRegistration => {
            let confirmed = verification.confirm_account(evidence, &password, cause);
            confirmed.await.map(drop)
        }
        _ => verification.verify(evidence, cause).await.map(drop),
    }
}

/// How far somebody got with a page.
#[derive(Clone, Copy)]
enum Stage<'a> {
    /// Its form was not sent.
    Asking,
    /// It was, and can be sent again once this is mended.
    Refused(&'a Problem),
    /// It cannot be of use.
    Over(&'a Problem),
    /// What it is for is done.
    Done,
}

impl<'a> Stage<'a> {
    fn problem(self) -> Option<&'a Problem> {
        match self {
            Self::Refused(problem) | Self::Over(problem) => Some(problem),
            Self::Asking | Self::Done => None,
        }
    }
}

/// A page in the language of its reader.
struct Shown {
    place: Place,
    accept_language: Option<String>,
}

impl Shown {
    fn new(place: Place, request: &Request) -> Self {
        let accept_language = request.header(header::ACCEPT_LANGUAGE).map(str::to_owned);
        Self {
            place,
            accept_language,
        }
    }

    fn render(
        &self,
        context: &Context,
        filled: &Filled,
        stage: Stage<'_>,
    ) -> Result<Response, Problem> {
        let letters = context.auth.letters();
        let language = letters.choose(None, self.accept_language.as_deref());
        let nonce = context.auth.nonce();
        let refusal = stage.problem().map(|problem| {
            let (code, detail) = problem.first_fault();
            letters
                .sentence(&language, code, detail)
                .unwrap_or_else(|| detail.to_owned())
        });
        let html = letters.page(&PageView {
            page: self.place.page,
            language: &language,
            nonce: &nonce,
            base: &context.surface.options.public_url,
            root: &"../".repeat(self.place.depth),
            message: refusal.as_deref().map(|text| Message {
                text,
                is_error: true,
            }),
            email: &filled.email,
            code: &filled.code,
            done: matches!(stage, Stage::Done | Stage::Over(_)),
        })?;
        self.answer(html, &nonce)
    }

    fn answer(&self, html: String, nonce: &str) -> Result<Response, Problem> {
        let form_action = if self.place.page.takes_form() {
            "'self'"
        } else {
            "'none'"
        };
        let policy =
            format!("script-src 'nonce-{nonce}'; connect-src 'self'; form-action {form_action}");
        let policy = page_policy(nonce, &policy)?;
        let mut response = Html(html).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        headers.insert(
            header::VARY,
            header::HeaderValue::from_static("Accept-Language"),
        );
        Ok(response)
    }
}
