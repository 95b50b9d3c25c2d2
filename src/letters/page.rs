//! The pages that links in letters open.
//!
//! Decides which there are, where each stands and which parts it has. A page takes the secret out of the
//! fragment of its own address and posts it when its button is pressed; without one it is a plain form
//! for a code. The page that asks for a letter is a plain form for an address. What the server does with
//! any of them is for [`crate::http`].

use minijinja::{Error, context};
use serde_json::json;

use super::Letters;

/// A page that a letter links to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Page {
    /// Shows that an address is its owner's.
    VerifyEmail,
    /// Completes a registration.
    ConfirmRegistration,
    /// Asks for the letter that leads to [`Page::ResetPassword`].
    ForgotPassword,
    /// Sets a new password.
    ResetPassword,
    /// Sets the first password of an account that an administrator has made.
    SetPassword,
    /// Gives an account its new address.
    ConfirmNewEmail,
    /// Secures an account whose owner did not do what a letter told of.
    NotMe,
}

/// What can be typed in without a link.
enum Form {
    /// The code of a letter, with the address that it was sent to.
    Code,
    /// An address, and nothing else.
    Address,
}

/// Which password a page asks for.
enum Asked {
    Nothing,
    /// One to be set, typed twice.
    New,
    /// The one that was chosen when registering.
    Chosen,
}

impl Page {
    /// Every page.
    pub const ALL: [Self; 7] = [
        Self::VerifyEmail,
        Self::ConfirmRegistration,
        Self::ForgotPassword,
        Self::ResetPassword,
        Self::SetPassword,
        Self::ConfirmNewEmail,
        Self::NotMe,
    ];

    /// Where it stands below the public URL.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::VerifyEmail => "/verify-email",
            Self::ConfirmRegistration => "/confirm-registration",
            Self::ForgotPassword => "/forgot-password",
            Self::ResetPassword => "/reset-password",
            Self::SetPassword => "/set-password",
            Self::ConfirmNewEmail => "/confirm-email",
            Self::NotMe => "/not-me",
        }
    }

    const fn form(self) -> Option<Form> {
        match self {
            Self::VerifyEmail | Self::ConfirmRegistration | Self::ResetPassword => Some(Form::Code),
            Self::ForgotPassword => Some(Form::Address),
            Self::SetPassword | Self::ConfirmNewEmail | Self::NotMe => None,
        }
    }

    /// Whether it has a form that works without scripts. The others are opened by links only.
    #[must_use]
    pub const fn takes_form(self) -> bool {
        self.form().is_some()
    }

    /// Whether a code can be typed in as well.
    #[must_use]
    pub const fn takes_code(self) -> bool {
        matches!(self.form(), Some(Form::Code))
    }

    /// Whether it asks for a password.
    #[must_use]
    pub const fn takes_password(self) -> bool {
        !matches!(self.asked(), Asked::Nothing)
    }

    const fn asked(self) -> Asked {
        match self {
            Self::ResetPassword | Self::SetPassword => Asked::New,
            Self::ConfirmRegistration => Asked::Chosen,
            Self::VerifyEmail | Self::ForgotPassword | Self::ConfirmNewEmail | Self::NotMe => {
                Asked::Nothing
            }
        }
    }

    /// What its texts are called.
    const fn name(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::ConfirmRegistration => "confirm_registration",
            Self::ForgotPassword => "forgot_password",
            Self::ResetPassword => "reset_password",
            Self::SetPassword => "set_password",
            Self::ConfirmNewEmail => "confirm_new_email",
            Self::NotMe => "not_me",
        }
    }

    /// What its script posts to, below the root of the API.
    const fn post(self) -> &'static str {
        match self {
            Self::VerifyEmail => "v1/auth/email/verify",
            Self::ConfirmRegistration => "v1/auth/register/confirm",
            Self::ForgotPassword => "v1/auth/password/forgot",
            Self::ResetPassword | Self::SetPassword => "v1/auth/password/reset",
            Self::ConfirmNewEmail => "v1/auth/email/confirm",
            Self::NotMe => "v1/auth/not-me",
        }
    }
}

/// What goes into one page. It may hold a code, so it cannot be printed.
#[derive(Clone, Copy)]
pub struct PageView<'a> {
    /// Which page.
    pub page: Page,
    /// One of [`Letters::languages`]; any other stands for the default one.
    pub language: &'a str,
    /// What the policy of the page allows its style and its script by.
    pub nonce: &'a str,
    /// The public URL, without a slash at its end.
    pub base: &'a str,
    /// Where the root of the API is, seen from where the page stands: empty right below it, `../` one
    /// segment deeper, and so on.
    pub root: &'a str,
    /// What to say about the form that was sent; a page that is done has a text of its own.
    pub message: Option<Message<'a>>,
    /// The address that was typed before.
    pub email: &'a str,
    /// The code that was typed before.
    pub code: &'a str,
    /// Whether it is done: the page then holds a message and nothing to fill in.
    pub done: bool,
}

/// What a page says about what was done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// A sentence for people.
    pub text: &'a str,
    /// Whether something went wrong.
    pub is_error: bool,
}

impl Letters {
    pub(super) fn write_page(&self, view: &PageView<'_>) -> Result<String, Error> {
        let language = self.known(view.language);
        let page = view.page;
        let values = context! { product => &self.0.product };
        let templates = &self.0.templates;
        let common = |key: &str| templates.text(language, key, &values);
        let own = |name: &str| {
            let key = format!("pages.{}.{name}", page.name());
            templates.text_if_any(language, &key, &values)
        };
        let done = own("done")?.unwrap_or_default();
        let said = view.message.map(|said| (said.text, said.is_error));
        let said = said.or(view.done.then_some((done.as_str(), false)));
        let message = said.map(|(text, is_error)| json!({ "text": text, "is_error": is_error }));
        // The template places what the label stands for; the address is not the texts' business.
        let noscript_link = own("noscript_link")?.map(|label| {
            let url = format!("{}{}", view.base, Page::ResetPassword.path());
            json!({ "url": url, "label": label })
        });
        let next_link = own("next_link")?.map(|label| {
            let path = Page::ResetPassword.path().trim_start_matches('/');
            let url = format!("{}{path}", view.root);
            json!({ "url": url, "label": label })
        });
        let parts = json!({
            "language": language,
            "direction": common("direction")?,
            "product": self.0.product,
            "nonce": view.nonce,
            "title": own("title")?,
            "message": message,
            "done": view.done,
            "post": format!("{}{}", view.root, page.post()),
            "texts": self.script_texts(language, &done)?.to_string(),
            "words": templates.group(language, "page.", &values)?,
            "code_form": page.takes_code(),
            "address_form": matches!(page.form(), Some(Form::Address)),
            "password": match page.asked() {
                Asked::Nothing => "",
                Asked::New => "new",
                Asked::Chosen => "chosen",
            },
            "alarm": page == Page::NotMe,
            "link_intro": own("link_intro")?,
            "link_button": own("link_button")?,
            "code_intro": own("code_intro")?,
            "code_button": own("code_button")?,
            "address_intro": own("address_intro")?,
            "address_button": own("address_button")?,
            "next_link": next_link,
            "noscript": own("noscript")?,
            "noscript_link": noscript_link,
            "email": view.email,
            "code": view.code,
        });
        Ok(templates.layout("page.html", &parts)? + "\n")
    }

    /// What the script of a page may have to say.
    fn script_texts(&self, language: &str, done: &str) -> Result<serde_json::Value, Error> {
        let values = context! { product => &self.0.product };
        let templates = &self.0.templates;
        let text = |name: &str| templates.text(language, &format!("page.{name}"), &values);
        Ok(json!({
            "done": done,
            "password": text("password")?,
            "working": text("working")?,
            "differ": text("differ")?,
            "incomplete": text("incomplete")?,
            "later": text("later")?,
            "unreachable": text("unreachable")?,
            "failed": text("failed")?,
            "problems": templates.group(language, "problems.", &values)?,
        }))
    }
}
