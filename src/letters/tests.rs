//! What holds for every letter and every page in every language.

use std::fs;

use super::*;
use crate::{
    clock::{Span, Timestamp},
    model::mail::{LetterDetails, LetterKind},
};

const LINK: &str = "https://auth.example.org/reset-password#token=dwl_c2VjcmV0";
const CODE: &str = "40718253";
const EVIL: &str = "{{7*7}} {0} %n <b>&\"'\r\nBcc: eve@example.org";

fn letters() -> Letters {
    Letters::load(&LetterSettings::default()).expect("what is compiled in is whole")
}

fn view<'a>(kind: LetterKind, language: &'a str, details: &'a LetterDetails) -> LetterView<'a> {
    LetterView {
        kind,
        language,
        name: None,
        account: "ann@example.org",
        link: None,
        code: None,
        valid: Span::days(1),
        code_valid: Span::minutes(10),
        code_page: None,
        details,
        at: Timestamp::from_millis(1_763_737_740_000),
        new_email: None,
        login_url: None,
        forgot_url: None,
    }
}

fn details(text: &str) -> LetterDetails {
    LetterDetails {
        device: Some(text.to_owned()),
        address: Some("192.0.2.7".to_owned()),
        ..LetterDetails::default()
    }
}

fn page_view(page: Page, language: &str) -> PageView<'_> {
    PageView {
        page,
        language,
        nonce: "n0nce",
        base: "https://auth.example.org/below",
        root: "../",
        message: None,
        email: "",
        code: "",
        done: false,
    }
}

/// Loads the texts with one file of the operator's.
fn with_file(name: &str, text: &str) -> Result<Letters, BadSetting> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join(name), text).expect("written");
    fs::write(folder.path().join(".hidden"), "passed over").expect("written");
    Letters::load(&LetterSettings {
        templates: folder.path().to_str().expect("UTF-8").to_owned(),
        ..LetterSettings::default()
    })
}

#[test]
fn every_letter_holds_its_link_and_its_code_and_speaks_of_no_other() {
    let letters = letters();
    let details = details("Firefox on Linux");
    for language in letters.languages() {
        for kind in LetterKind::ALL {
            for (link, code) in [
                (Some(LINK), Some(CODE)),
                (Some(LINK), None),
                (None, Some(CODE)),
                (None, None),
            ] {
                let view = LetterView {
                    link,
                    code,
                    ..view(kind, language, &details)
                };
                let said = letters.render(&view).expect("rendered");
                let place = format!("{kind:?} in {language}:\n{}\n{}", said.text, said.html);
                assert!(!said.subject.contains(CODE), "{place}");
                let linked = link.is_some() && kind != LetterKind::AddressTaken;
                for text in [&said.text, &said.html] {
                    assert_eq!(text.contains(LINK), linked, "{place}");
                    assert_eq!(text.contains(CODE), code.is_some(), "{place}");
                    assert!(!text.contains("{{") && !text.contains("{%"), "{place}");
                }
                assert!(!said.text.contains("none"), "{place}");
                let words = match language {
                    "de" => ("24 Stunden", "10 Minuten"),
                    _ => ("24 hours", "10 minutes"),
                };
                assert_eq!(said.text.contains(words.0), link.is_some(), "{place}");
                assert_eq!(said.text.contains(words.1), code.is_some(), "{place}");
                let long = said.text.lines().filter(|line| line.chars().count() > 76);
                assert_eq!(long.count(), 0, "{place}");
            }
        }
    }
}

#[test]
fn a_notice_tells_when_on_what_and_from_where() {
    let letters = letters();
    let details = details("Firefox on Linux");
    for kind in [
        LetterKind::EmailChanged,
        LetterKind::PasswordChanged,
        LetterKind::RefreshReused,
        LetterKind::NewDevice,
    ] {
        let said = letters
            .render(&view(kind, "en", &details))
            .expect("rendered");
        for told in [
            "21 November 2025 at 15:09 UTC",
            "Firefox on Linux",
            "192.0.2.7",
        ] {
            assert!(said.text.contains(told), "{}", said.text);
            assert!(said.html.contains(told), "{}", said.html);
        }
    }
}

#[test]
fn nothing_that_people_write_becomes_markup_or_another_line() {
    let letters = letters();
    let details = details(EVIL);
    for language in letters.languages() {
        for kind in LetterKind::ALL {
            let said = letters.render(&LetterView {
                name: Some(EVIL),
                account: EVIL,
                new_email: Some(EVIL),
                link: Some("https://x.test/?a=1&b=\"#t"),
                ..view(kind, language, &details)
            });
            let said = said.expect("rendered");
            assert!(!said.subject.contains(['\r', '\n']), "{}", said.subject);
            assert!(
                said.text.contains("{{7*7}} {0} %n <b>&\"' Bcc"),
                "{}",
                said.text
            );
            let safe = "{{7*7}} {0} %n &lt;b&gt;&amp;&quot;&#39; Bcc";
            assert!(said.html.contains(safe), "{}", said.html);
            assert!(!said.html.contains("<b>") && !said.html.contains("49"));
        }
        for page in Page::ALL {
            let html = letters.page(&PageView {
                email: EVIL,
                code: EVIL,
                message: Some(Message {
                    text: EVIL,
                    is_error: true,
                }),
                ..page_view(page, language)
            });
            let html = html.expect("rendered");
            assert!(!html.contains("<b>") && html.contains("{{7*7}} {0} %n &lt;b&gt;"));
        }
    }
}

/// ASVS 3.4.3: the policy of the pages allows nothing inline but by the nonce.
#[test]
fn a_page_obeys_a_strict_policy() {
    let letters = letters();
    for language in letters.languages() {
        for page in Page::ALL {
            let html = letters.page(&page_view(page, language)).expect("rendered");
            for banned in [
                " style=",
                " onclick",
                " onsubmit",
                "javascript:",
                " src=",
                "<link",
            ] {
                assert!(!html.contains(banned), "{page:?}: {banned}");
            }
            let scripts = usize::from(page != Page::ForgotPassword);
            assert_eq!(html.matches("<script").count(), scripts);
            assert_eq!(html.matches("<script nonce=\"n0nce\">").count(), scripts);
            assert!(html.contains("data-post=\"../v1/auth/"));
            assert!(html.contains("<style nonce=\"n0nce\">"));
            assert!(html.contains(&format!("<html lang=\"{language}\"")));
            assert_eq!(html.contains("name=\"code\""), page.takes_code());
            assert_eq!(html.contains("name=\"password\""), page.takes_password());
            assert_eq!(html.contains("<noscript>"), !page.takes_form());
            assert_eq!(html.contains("name=\"email\""), page.takes_form());
        }
    }
}

#[test]
fn a_page_that_is_done_has_nothing_to_fill_in() {
    let letters = letters();
    for page in Page::ALL {
        let view = PageView {
            done: true,
            ..page_view(page, "en")
        };
        let html = letters.page(&view).expect("rendered");
        assert!(!html.contains("<form") && !html.contains("<script"));
        assert!(html.contains("role=\"status\""));
    }
}

#[test]
fn a_broken_file_stops_the_start_with_its_name_and_line() {
    let texts = include_str!("en.toml");
    let line_of = |text: &str| {
        texts
            .lines()
            .position(|line| line.contains(text))
            .map(|n| n + 1)
    };
    let subject = line_of("subject = \"Set a new").expect("there");
    let validity = line_of("{% if has_link and has_code %}The").expect("there");
    let renamed = texts.replace("noscript_link = ", "noscript_kink = ");
    for (name, text, said) in [
        (
            "en.toml",
            texts.replace("Set a new password for {{", "{{"),
            String::new(),
        ),
        (
            "en.toml",
            texts.replace("Set a new password for {{ product }}", "{{ code }}"),
            format!("en.toml, line {subject}: `letters.reset_password.subject`: undefined"),
        ),
        (
            "de.toml",
            texts.replace("{% elif has_link %}", "{% elif %}"),
            format!("de.toml, line {validity}: `letter.validity`: syntax error"),
        ),
        (
            "fr.toml",
            renamed,
            "`pages.set_password.noscript_kink` is not".to_owned(),
        ),
        (
            "fr.toml",
            "direction = \"ltr\"".to_owned(),
            "fr.toml: the text".to_owned(),
        ),
        (
            "fr.toml",
            "a = 1\nb == 2".to_owned(),
            "fr.toml, line 2".to_owned(),
        ),
        (
            "fr.toml",
            "a = 1".to_owned(),
            "fr.toml, line 1: `a` must".to_owned(),
        ),
        (
            "layout.html",
            "<p>\n{{ nothing }}".to_owned(),
            "layout.html, line 2".to_owned(),
        ),
        (
            "layout.txt",
            "{% if %}".to_owned(),
            "layout.txt, line 1".to_owned(),
        ),
        (
            "page.html",
            "\n\n{{ message }}{{ x }}".to_owned(),
            "page.html, line 3".to_owned(),
        ),
        (
            "layout.htm",
            String::new(),
            "layout.htm: is none of".to_owned(),
        ),
        ("README", String::new(), "README: is none of".to_owned()),
    ] {
        match with_file(name, &text) {
            Ok(_) => assert_eq!(said, "", "{name}"),
            Err(bad) => {
                assert_eq!(bad.key, "mail.templates");
                assert!(!said.is_empty() && bad.problem.contains(&said), "{bad}");
            }
        }
    }
}

#[test]
fn a_translation_is_one_file() {
    let french = include_str!("en.toml").replace("Hello", "Bonjour");
    let letters = with_file("fr.toml", &french).expect("loaded");
    assert_eq!(letters.languages(), ["de", "en", "fr"]);
    let language = letters.choose(None, Some("fr-CH, de;q=0.5"));
    assert_eq!(language, "fr");
    let details = LetterDetails::default();
    let said = letters.render(&view(LetterKind::Invitation, &language, &details));
    assert!(said.expect("rendered").text.contains("Bonjour,"));
}

#[test]
fn settings_that_cannot_be_obeyed_are_refused() {
    let load = |product: &str, language: &str, templates: &str| {
        let settings = LetterSettings {
            product: product.to_owned(),
            language: language.to_owned(),
            templates: templates.to_owned(),
        };
        Letters::load(&settings).err().map(|bad| bad.key)
    };
    assert_eq!(load("Ärzte & Co.", "DE", ""), None);
    assert_eq!(load("", "en", "").as_deref(), Some("mail.product"));
    assert_eq!(load("a\nb", "en", "").as_deref(), Some("mail.product"));
    assert_eq!(load("a", "fr", "").as_deref(), Some("mail.language"));
    assert_eq!(
        load("a", "en", "/nowhere/at/all").as_deref(),
        Some("mail.templates")
    );
}

#[test]
fn an_error_is_told_in_the_language() {
    let letters = letters();
    let said = letters.sentence("de", "code_invalid", "");
    assert_eq!(
        said.as_deref(),
        Some("Der Code ist falsch oder gilt nicht mehr.")
    );
    assert_eq!(letters.sentence("en", "too_short", ""), None);
    assert_eq!(letters.sentence("en", "of_another_kind", "12"), None);
}
