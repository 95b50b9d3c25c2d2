//! Letters and the pages that their links open: what stands in them, in which language.
//!
//! Decides the words and the looks. Texts come from one file per language, layouts from templates, both
//! compiled in and replaceable by files of the operator's; all of them are tried when they are loaded.
//! Which letters are sent, when and with which secrets is for [`crate::outbox`], how they travel for
//! [`crate::mail`], and what a page's button does for [`crate::http`].

mod catalog;
mod language;
mod letter;
mod page;
mod sample;
mod templates;
#[cfg(test)]
mod tests;
mod writing;

use std::{path::Path, sync::Arc};

use self::{catalog::Fault, templates::Templates, writing::plain};
pub use self::{
    letter::{LetterView, Rendered},
    page::{Message, Page, PageView},
};
use crate::{error::AuthError, setting::BadSetting};

/// Longest name of a product that still fits into a subject.
const LONGEST_PRODUCT: usize = 60;

/// What letters and pages call the product, and where their texts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterSettings {
    /// The name of the product, as people know it.
    pub product: String,
    /// The language for those who have no wish that can be met.
    pub language: String,
    /// A folder with files that replace the ones compiled in, and with further languages; empty for
    /// none.
    pub templates: String,
}

impl Default for LetterSettings {
    fn default() -> Self {
        Self {
            product: "Doorward".to_owned(),
            language: "en".to_owned(),
            templates: String::new(),
        }
    }
}

/// All letters and pages in all languages. Clones share them.
#[derive(Clone)]
pub struct Letters(Arc<Inner>);

struct Inner {
    product: String,
    default_language: String,
    templates: Templates,
}

impl Letters {
    /// Reads the texts and layouts, and fills each of them in with sample values once: a fault in one
    /// shows now and not in somebody's letter.
    ///
    /// # Errors
    /// [`BadSetting`] for `mail.templates` with the file, the line and what is wrong; for `mail.language`
    /// if there are no texts in it; for `mail.product` if it is no name.
    pub fn load(settings: &LetterSettings) -> Result<Self, BadSetting> {
        let folder = Some(settings.templates.as_str()).filter(|folder| !folder.is_empty());
        let templates = Templates::load(folder.map(Path::new)).map_err(bad_file)?;
        let letters = Self(Arc::new(Inner {
            product: product(&settings.product)?,
            default_language: default_language(&settings.language, &templates)?,
            templates,
        }));
        sample::try_all(&letters).map_err(bad_file)?;
        Ok(letters)
    }

    /// The files that are compiled in, by their names: what `mail.templates` can replace.
    pub fn built_in_files() -> impl Iterator<Item = (&'static str, &'static str)> {
        templates::BUILT_IN.into_iter()
    }

    /// The languages that there are texts in, in alphabetical order.
    #[must_use]
    pub fn languages(&self) -> Vec<&str> {
        self.0.templates.languages().collect()
    }

    /// The language for somebody: by the wish of the user (`de-AT` is met by `de`), else by the
    /// `Accept-Language` header of a request (RFC 9110 §12.5.4), else the default one.
    #[must_use]
    pub fn choose(&self, wish: Option<&str>, accept_language: Option<&str>) -> String {
        let default = &self.0.default_language;
        language::choose(&self.languages(), wish, accept_language, default).to_owned()
    }

    /// A letter, ready to be sent.
    ///
    /// # Errors
    /// [`AuthError::Internal`] when a template of the operator's fails on values that the samples did
    /// not have.
    pub fn render(&self, letter: &LetterView<'_>) -> Result<Rendered, AuthError> {
        self.write_letter(letter)
            .map_err(|error| self.failed(&error))
    }

    /// A page as HTML.
    ///
    /// # Errors
    /// As [`Letters::render`].
    pub fn page(&self, page: &PageView<'_>) -> Result<String, AuthError> {
        self.write_page(page).map_err(|error| self.failed(&error))
    }

    /// The name of the product, as people know it.
    #[must_use]
    pub fn product(&self) -> &str {
        &self.0.product
    }

    /// What to say about an error with this code, on a page or elsewhere; none for a code that there is
    /// no sentence for. A number in it is taken from `detail`, as the script of a page does.
    #[must_use]
    pub fn sentence(&self, language: &str, code: &str, detail: &str) -> Option<String> {
        let key = format!("problems.{code}");
        let language = self.known(language);
        let values = minijinja::context! { product => &self.0.product };
        let sentence = self.0.templates.text_if_any(language, &key, &values);
        let sentence = sentence.ok()??;
        let mut numbers = detail.split(|c: char| !c.is_ascii_digit());
        match numbers.find(|number| !number.is_empty()) {
            Some(number) => Some(sentence.replace("{n}", number)),
            None => Some(sentence).filter(|text| !text.contains("{n}")),
        }
    }

    /// The language itself if there are texts in it.
    fn known<'a>(&'a self, language: &'a str) -> &'a str {
        self.0
            .templates
            .languages()
            .find(|name| *name == language)
            .unwrap_or(&self.0.default_language)
    }

    /// Without what the template engine says, since that may repeat values.
    fn failed(&self, error: &minijinja::Error) -> AuthError {
        let Fault { file, line, .. } = self.0.templates.fault(error);
        let line = line.unwrap_or_default();
        AuthError::Internal(format!("{file}, line {line}: {}", error.kind()))
    }
}

fn product(name: &str) -> Result<String, BadSetting> {
    let shown = plain(name, LONGEST_PRODUCT);
    if shown.is_empty() || shown != name {
        let problem = "is no name for letters to call the product by";
        let remedy = format!("give 1 to {LONGEST_PRODUCT} characters on one line");
        return Err(BadSetting::new("mail.product", problem, remedy));
    }
    Ok(shown)
}

fn default_language(name: &str, templates: &Templates) -> Result<String, BadSetting> {
    let name = name.to_ascii_lowercase();
    if templates.languages().any(|known| known == name) {
        return Ok(name);
    }
    let known: Vec<&str> = templates.languages().collect();
    let remedy = format!(
        "choose one of {}, or put a file for it into the folder of `mail.templates`",
        known.join(", ")
    );
    let problem = "there are no texts in this language";
    Err(BadSetting::new("mail.language", problem, remedy))
}

fn bad_file(fault: Fault) -> BadSetting {
    let Fault {
        file,
        line,
        problem,
    } = fault;
    let place = line.map_or(file.clone(), |line| format!("{file}, line {line}"));
    let remedy = "correct the file, or remove it to use the one that is compiled in";
    BadSetting::new("mail.templates", format!("{place}: {problem}"), remedy)
}
