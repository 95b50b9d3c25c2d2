//! Sample values that every letter and page is tried with when the texts are loaded.
//!
//! Decides which combinations are worth a try: with everything that a letter can hold and with nothing
//! that it can lack, by link, by code and by both, and every word for a time.

use super::{LetterView, Letters, Message, Page, PageView, catalog::Fault, writing::one_line};
use crate::{
    clock::{Span, Timestamp},
    model::mail::{LetterDetails, LetterKind},
};

const DAY: Span = Span::days(1);

/// Fills in everything once.
pub(super) fn try_all(letters: &Letters) -> Result<(), Fault> {
    let fault = |error| letters.0.templates.fault(&error);
    for language in letters.languages() {
        try_words(letters, language).map_err(fault)?;
        for kind in LetterKind::ALL {
            for (link, code) in [(true, true), (true, false), (false, true), (false, false)] {
                for full in [true, false] {
                    try_letter(letters, (language, kind), (link, code), full)?;
                }
            }
        }
        for page in Page::ALL {
            try_page(letters, language, page).map_err(fault)?;
        }
    }
    Ok(())
}

fn try_words(letters: &Letters, language: &str) -> Result<(), minijinja::Error> {
    for minutes in [1, 2, 60, 120, 24 * 60, 3 * 24 * 60] {
        letters.in_words(language, Span::minutes(minutes))?;
    }
    let mut at = Timestamp::EPOCH;
    for _ in 0..12 {
        letters.on_the_clock(language, at)?;
        at = at.plus(Span::days(31));
    }
    Ok(())
}

fn try_letter(
    letters: &Letters,
    (language, kind): (&str, LetterKind),
    (link, code): (bool, bool),
    full: bool,
) -> Result<(), Fault> {
    let mut details = LetterDetails::default();
    if full {
        details.device = Some("Firefox".to_owned());
        details.address = Some("192.0.2.1".to_owned());
    }
    let rendered = letters.write_letter(&LetterView {
        kind,
        language,
        name: full.then_some("ann"),
        account: "ann@example.org",
        link: link.then_some("https://auth.example.org/page#token=dwl_sample"),
        code: code.then_some("12345678"),
        valid: DAY,
        code_valid: Span::minutes(10),
        code_page: full.then_some("https://auth.example.org/page"),
        details: &details,
        at: Timestamp::EPOCH,
        new_email: full.then_some("b***@example.org"),
        login_url: full.then_some("https://auth.example.org/login"),
        forgot_url: full.then_some("https://auth.example.org/reset-password"),
    });
    let rendered = rendered.map_err(|error| letters.0.templates.fault(&error))?;
    if one_line(&rendered.subject).is_empty() {
        return Err(Fault {
            file: format!("{language}.toml"),
            line: None,
            problem: format!("`letters.{}.subject` is empty", kind.as_str()),
        });
    }
    Ok(())
}

fn try_page(letters: &Letters, language: &str, page: Page) -> Result<(), minijinja::Error> {
    let text = "Sample.";
    for (message, done) in [
        (None, false),
        (None, true),
        (Some((text, true)), false),
        (Some((text, false)), true),
    ] {
        letters.write_page(&PageView {
            page,
            language,
            nonce: "sample",
            base: "https://auth.example.org",
            root: "",
            message: message.map(|(text, is_error)| Message { text, is_error }),
            email: "ann@example.org",
            code: "12345678",
            done,
        })?;
    }
    Ok(())
}
