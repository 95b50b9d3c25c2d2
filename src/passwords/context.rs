//! Words that whoever attacks an account tries first: the product's name, its host, the user's own.
//!
//! Decides whether a password is made of such words and nothing besides, in the variants that people think of
//! (ASVS 6.2.11). The whole password is compared: a long phrase may well hold such a word
//! (NIST SP 800-63B-4 §3.1.1.2).

use std::collections::BTreeSet;

use crate::{model::user::User, username::Username};

/// Shorter words are in every password.
const SHORTEST_WORD: usize = 3;
/// How many digits and signs before and behind the words count for nothing: as many as a date has. More do
/// where they are no more than half of the password.
const ORNAMENT: usize = 8;
/// Nothing longer is looked at, in code points; no address and no name is.
const LONGEST_TEXT: usize = 320;

/// What is known of the person whose password it is. Prints nothing of it.
#[derive(Clone, Default)]
pub struct Personal(Vec<String>);

impl Personal {
    /// Nobody in particular.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// Somebody with this address and this user name, as far as they are known; they need not be valid.
    #[must_use]
    pub fn new(email: Option<&str>, username: Option<&str>) -> Self {
        let given = email.into_iter().chain(username);
        let cut = given.map(|text| text.chars().take(LONGEST_TEXT).collect());
        Self(cut.collect())
    }

    /// A user.
    #[must_use]
    pub fn of(user: &User) -> Self {
        let username = user.username.as_ref().map(Username::as_str);
        Self::new(Some(user.email.as_str()), username)
    }

    /// The texts themselves.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl std::fmt::Debug for Personal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Personal(***)")
    }
}

/// Words as they are compared.
#[derive(Clone, Default)]
pub(super) struct Words(BTreeSet<String>);

impl Words {
    /// The words of these texts: each as a whole and each of its parts.
    pub(super) fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut words = Self::default();
        for text in texts {
            words.add(text);
            text.split(|c: char| !c.is_alphanumeric())
                .for_each(|part| words.add(part));
        }
        words
    }

    fn add(&mut self, text: &str) {
        let bare = text.trim_matches(is_ornament);
        for word in [text, bare].into_iter().flat_map(canonical) {
            if word.chars().count() >= SHORTEST_WORD {
                self.0.insert(word.chars().rev().collect());
                self.0.insert(word);
            }
        }
    }

    /// Whether a password is one of these words, or several of them, with nothing but ornaments around.
    pub(super) fn make(&self, other: &Self, password: &str) -> bool {
        let words: Vec<&str> = self.0.union(&other.0).map(String::as_str).collect();
        let texts = bare(password).into_iter().flat_map(canonical);
        texts
            .into_iter()
            .any(|text| !text.is_empty() && is_made_of(&text, &words))
    }
}

/// The password with and without the ornaments before and behind it, unless these are most of it.
fn bare(password: &str) -> [&str; 4] {
    let (begins, ends) = (
        password.trim_start_matches(is_ornament),
        password.trim_end_matches(is_ornament),
    );
    let both = begins.trim_end_matches(is_ornament);
    let length = password.chars().count();
    [password, begins, ends, both].map(|bare| {
        let taken = length - bare.chars().count();
        if taken <= ORNAMENT.max(length / 2) {
            bare
        } else {
            password
        }
    })
}

fn is_ornament(c: char) -> bool {
    !c.is_alphabetic()
}

/// Lower case, letters for the digits that look like them, and neither spaces nor signs: with the letters that
/// some signs look like, and without.
fn canonical(text: &str) -> [String; 2] {
    let lower: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
    let letter = |c: char| match c {
        '0' => 'o',
        '1' | 'l' => 'i',
        '3' => 'e',
        '4' => 'a',
        '5' => 's',
        '7' => 't',
        other => other,
    };
    let like_letters = lower.iter().map(|c| match c {
        '!' | '|' => 'i',
        '€' => 'e',
        '@' => 'a',
        '$' => 's',
        other => *other,
    });
    let written = |text: &mut dyn Iterator<Item = char>| {
        let letters = text.filter(|c| c.is_alphanumeric());
        letters.map(letter).collect()
    };
    [
        written(&mut like_letters.into_iter()),
        written(&mut lower.iter().copied()),
    ]
}

/// Whether a text can be cut so that each piece is a word.
fn is_made_of(text: &str, words: &[&str]) -> bool {
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for at in 0..text.len() {
        if !reached[at] {
            continue;
        }
        let rest = &text[at..];
        for word in words.iter().filter(|word| rest.starts_with(**word)) {
            reached[at + word.len()] = true;
        }
    }
    reached[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(password: &str) -> bool {
        let product = Words::of(["Doorward", "auth.example.org", "Acme Cloud"]);
        let personal = Personal::new(Some("Ann.Smith@mail.example.com"), Some("annie_77"));
        product.make(&Words::of(personal.texts()), password)
    }

    /// ASVS 6.2.11.
    #[test]
    fn words_of_the_place_and_of_the_person_are_refused_in_their_variants() {
        for password in [
            "doorward",
            "DOORWARD",
            "D00rw4rd",
            "door-ward",
            "drawrood",
            "doorwarddoorward",
            "Doorward2026!",
            "2026Doorward",
            "!!!doorward!!!",
            "doorward12345678",
            "acmecloud",
            "Acme Cloud 1",
            "auth.example.org",
            "exampleexample",
            "ann.smith@mail.example.com",
            "annsmith",
            "AnnSmith1987",
            "4nn_5m1th",
            "smithann",
            "annsmithdoorward",
            "annie_77",
            "annie77annie77",
            "htimsnna!",
            "@nn$mithEx@mple",
            "ann.smith@doorward",
            "Smith$Doorward!1",
        ] {
            assert!(is_refused(password), "{password}");
        }
    }

    /// NIST SP 800-63B-4 §3.1.1.2: no ban of what merely holds a word.
    #[test]
    fn a_phrase_that_holds_a_word_is_fine() {
        for password in [
            "doorward guards my garden gate",
            "ann likes purple elephants",
            "the smith of acme cloud city",
            "correct horse battery staple",
            "kqzjwvhxmtrbpnlfgdcs",
            "83749218374650192837",
            "ann83749218374650192",
            "🐎🔋📎 correct 🦆🌧",
            "",
        ] {
            assert!(!is_refused(password), "{password}");
        }
    }

    #[test]
    fn nobody_in_particular_has_no_words() {
        assert!(!Words::default().make(&Words::of(Personal::unknown().texts()), "anything"));
        assert!(Words::of(["a", "bo", "..", ""]).0.is_empty());
        let printed = format!("{:?}", Personal::new(Some("ann@example.org"), None));
        assert_eq!(printed, "Personal(***)");
    }
}
