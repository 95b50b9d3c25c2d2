//! What a letter is made of, from its subject to its small print.
//!
//! Decides which parts a kind of letter has. The texts see no secret, so none can get into a subject;
//! the layouts place link and code.

use minijinja::{Error, Value, context};
use serde_json::json;

use super::{
    Letters,
    writing::{length, moment, one_line, plain, unlinked},
};
use crate::{
    clock::{Span, Timestamp},
    model::mail::{LetterDetails, LetterKind},
};

const LONGEST_NAME: usize = 64;
const LONGEST_DETAIL: usize = 120;

/// What goes into one letter. It holds one-time secrets, so it cannot be printed.
#[derive(Clone, Copy)]
pub struct LetterView<'a> {
    /// What it is about.
    pub kind: LetterKind,
    /// One of [`Letters::languages`]; any other stands for the default one.
    pub language: &'a str,
    /// The name of the user.
    pub name: Option<&'a str>,
    /// The address of the account, as its owner wrote it.
    pub account: &'a str,
    /// Where the button leads, with the secret in its fragment.
    pub link: Option<&'a str>,
    /// The code to type in.
    pub code: Option<&'a str>,
    /// How long the link is good.
    pub valid: Span,
    /// How long the code is good.
    pub code_valid: Span,
    /// The page where the code can be typed in, if there is one.
    pub code_page: Option<&'a str>,
    /// What else is told.
    pub details: &'a LetterDetails,
    /// When what is told of happened.
    pub at: Timestamp,
    /// The new address, masked, where it was changed.
    pub new_email: Option<&'a str>,
    /// Where one logs in, for those who have an account already.
    pub login_url: Option<&'a str>,
    /// Where one asks for a new password, for those who have an account already.
    pub forgot_url: Option<&'a str>,
}

/// A letter ready to be sent. Its texts hold one-time secrets, so it cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendered {
    /// One line.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
}

impl Letters {
    pub(super) fn write_letter(&self, letter: &LetterView<'_>) -> Result<Rendered, Error> {
        let writer = Writer::new(self, letter)?;
        let parts = writer.parts()?;
        let templates = &self.0.templates;
        Ok(Rendered {
            subject: writer.subject()?,
            text: templates.layout("layout.txt", &parts)? + "\n",
            html: templates.layout("layout.html", &parts)? + "\n",
        })
    }

    /// A length of time in words.
    pub(super) fn in_words(&self, language: &str, span: Span) -> Result<String, Error> {
        let (unit, n) = length(span);
        let values = context! { n };
        self.0.templates.text(language, unit, &values)
    }

    /// A point in time in words.
    pub(super) fn on_the_clock(&self, language: &str, at: Timestamp) -> Result<String, Error> {
        let templates = &self.0.templates;
        templates.text(language, "words.moment", &moment(at))
    }
}

struct Writer<'a> {
    letters: &'a Letters,
    letter: &'a LetterView<'a>,
    language: &'a str,
    values: Value,
}

impl<'a> Writer<'a> {
    fn new(letters: &'a Letters, letter: &'a LetterView<'a>) -> Result<Self, Error> {
        let language = letters.known(letter.language);
        let detail = |text: &Option<String>| {
            let text = plain(text.as_deref()?, LONGEST_DETAIL);
            (!text.is_empty()).then_some(text)
        };
        let name = letter.name.map(|name| unlinked(&plain(name, LONGEST_NAME)));
        let values = context! {
            product => &letters.0.product,
            name => name.filter(|name| !name.is_empty()),
            account => plain(letter.account, usize::MAX),
            new_email => letter.new_email.map(|address| plain(address, usize::MAX)),
            device => detail(&letter.details.device).map(|device| unlinked(&device)),
            address => detail(&letter.details.address),
            when => letters.on_the_clock(language, letter.at)?,
            valid => letters.in_words(language, letter.valid)?,
            code_valid => letters.in_words(language, letter.code_valid)?,
            code_page => letter.code_page,
            has_link => letter.link.is_some(),
            has_code => letter.code.is_some(),
        };
        Ok(Self {
            letters,
            letter,
            language,
            values,
        })
    }

    fn subject(&self) -> Result<String, Error> {
        Ok(one_line(&self.own("subject")?))
    }

    /// A text of this kind of letter.
    fn own(&self, name: &str) -> Result<String, Error> {
        let kind = self.letter.kind.as_str();
        self.text(&format!("letters.{kind}.{name}"))
    }

    /// A list of texts of this kind of letter.
    fn own_list(&self, name: &str) -> Result<Vec<String>, Error> {
        let key = format!("letters.{}.{name}", self.letter.kind.as_str());
        let templates = &self.letters.0.templates;
        templates.texts(self.language, &key, &self.values)
    }

    fn text(&self, key: &str) -> Result<String, Error> {
        let templates = &self.letters.0.templates;
        templates.text(self.language, key, &self.values)
    }

    /// Everything that the layouts place.
    fn parts(&self) -> Result<serde_json::Value, Error> {
        let alarm = self.is_notice().then(|| self.text("letter.not_me"));
        let alarm = alarm.transpose()?;
        Ok(json!({
            "language": self.language,
            "direction": self.text("direction")?,
            "product": self.letters.0.product,
            "subject": self.subject()?,
            "preheader": self.own("preheader")?,
            "heading": self.own("heading")?,
            "greeting": self.text("letter.greeting")?,
            "paragraphs": self.own_list("paragraphs")?,
            "facts": self.facts()?,
            "alarm": alarm,
            "buttons": self.buttons()?,
            "link_hint": self.text("letter.link_hint")?,
            "code": self.code()?,
            "validity": self.text("letter.validity")?,
            "small": self.own_list("small")?,
            "why": self.own("why")?,
        }))
    }

    /// Whether it tells of something that the reader may not have done.
    fn is_notice(&self) -> bool {
        use LetterKind as K;
        match self.letter.kind {
            K::EmailChanged | K::PasswordChanged | K::RefreshReused | K::NewDevice => true,
            K::VerifyEmail
            | K::ConfirmRegistration
            | K::AddressTaken
            | K::ResetPassword
            | K::ConfirmNewEmail
            | K::Invitation => false,
        }
    }

    /// When, on what and from where something happened.
    fn facts(&self) -> Result<Vec<serde_json::Value>, Error> {
        let mut facts = Vec::new();
        if !self.is_notice() {
            return Ok(facts);
        }
        for name in ["when", "device", "address"] {
            let value = self.values.get_attr(name)?;
            if let Some(value) = value.as_str() {
                let label = self.text(&format!("letter.{name}"))?;
                facts.push(json!({ "label": label, "value": value }));
            }
        }
        Ok(facts)
    }

    fn buttons(&self) -> Result<Vec<serde_json::Value>, Error> {
        let letter = self.letter;
        let (first, second) = if letter.kind == LetterKind::AddressTaken {
            (letter.login_url, letter.forgot_url)
        } else {
            (letter.link, None)
        };
        let mut buttons = Vec::new();
        for (url, label) in [(first, "button"), (second, "second_button")] {
            if let Some(url) = url {
                buttons.push(json!({ "url": url, "label": self.own(label)? }));
            }
        }
        Ok(buttons)
    }

    fn code(&self) -> Result<Option<serde_json::Value>, Error> {
        let Some(code) = self.letter.code else {
            return Ok(None);
        };
        Ok(Some(json!({
            "value": code,
            "label": self.text("letter.code")?,
            "where": self.text("letter.code_where")?,
            "page": self.letter.code_page,
        })))
    }
}
