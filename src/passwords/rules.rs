//! The rules for new passwords that this process can judge by itself.
//!
//! Decides in which order they are told and what each says; the single rules are for `patterns`, `context` and
//! `common`. There is no rule about kinds of characters, and none about age (ASVS 6.2.5, 6.2.10).

use super::{
    LONGEST,
    common::{Common, look_up},
    context::{Personal, Words},
    patterns::{is_pattern, unit},
};

const BETTER: &str = "choose several unrelated words";

/// A rule that a password breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenRule {
    /// The stable name of the rule: `too_short`, `too_long`, `repetitive`, `context`, `common` or `breached`.
    pub code: &'static str,
    /// The rule, and what would be better; never repeats the password.
    pub detail: String,
}

impl BrokenRule {
    pub(super) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { code, detail }
    }
}

/// The rules of one policy.
#[derive(Clone)]
pub(super) struct Rules {
    min_length: usize,
    words: Words,
}

impl Rules {
    pub(super) fn new<'a>(min_length: usize, words: impl IntoIterator<Item = &'a str>) -> Self {
        let words = Words::of(words);
        Self { min_length, words }
    }

    /// Every rule that a password in NFC breaks, the plainest first. Of one that is too long nothing else is
    /// said.
    pub(super) fn broken_by(&self, normal: &str, personal: &Personal) -> Vec<BrokenRule> {
        let length = normal.chars().count();
        if length > LONGEST {
            let detail = format!("must be at most {LONGEST} characters");
            return vec![BrokenRule::new("too_long", detail)];
        }
        let mut broken = Vec::new();
        if length < self.min_length {
            let detail = format!(
                "must be at least {} characters; a few random words make a good password",
                self.min_length
            );
            broken.push(BrokenRule::new("too_short", detail));
        }
        let lower = normal.to_lowercase();
        if is_pattern(&lower) {
            let what = "repeats a few characters or follows the alphabet or the keyboard";
            broken.push(BrokenRule::new("repetitive", format!("{what}; {BETTER}")));
        }
        broken.extend(self.context_in(normal, personal));
        let found = look_up(&lower).or_else(|| look_up(unit(&lower)));
        let what = found.map(|found| match found {
            Common::Listed => "is on a list of passwords that are tried first",
            Common::Joined => "is made of two passwords that are tried first",
        });
        broken.extend(what.map(|what| BrokenRule::new("common", format!("{what}; {BETTER}"))));
        broken
    }

    /// The rule about words of the place and of the person alone.
    pub(super) fn context_in(&self, normal: &str, personal: &Personal) -> Option<BrokenRule> {
        let what = "is made of your name, your address or the name of this service";
        let is_broken = self.words.make(&Words::of(personal.texts()), normal);
        is_broken.then(|| BrokenRule::new("context", format!("{what}; {BETTER}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(password: &str) -> Vec<&'static str> {
        let rules = Rules::new(15, ["Doorward"]);
        let ann = Personal::new(Some("ann.smith@example.org"), None);
        let broken = rules.broken_by(password, &ann);
        broken.into_iter().map(|rule| rule.code).collect()
    }

    /// ASVS 6.2.1, 6.2.4, 6.2.5, 6.2.9, 6.2.11: length, what is known or obvious, and nothing else.
    #[test]
    fn each_rule_has_its_name_and_there_are_no_others() {
        for (password, expected) in [
            ("fourteen chars", &["too_short"][..]),
            ("Iloveyou", &["too_short", "common"]),
            ("password", &["too_short", "common"]),
            ("PasswordPassword", &["common"]),
            ("iLoveYou123456789", &["common"]),
            ("abcabcabcabcabcabc", &["repetitive"]),
            ("AnnSmithDoorward!", &["context"]),
            ("fifteen letters", &[]),
            ("kqzjwvhxmtrbpnlfgdcs", &[]),
            ("83749218374650192837", &[]),
            ("Ein Pferd frisst keinen Gurkensalat", &[]),
            ("🐎🔋📎🦆🌧🎈🧲🪵🧀🛶🪐🧭🎻🌵🦉", &[]),
        ] {
            assert_eq!(codes(password), expected, "{password}");
        }
        let long: String = ('\u{4e00}'..).take(LONGEST + 1).collect();
        assert_eq!(codes(&long), ["too_long"]);
        let longest: String = long.chars().skip(1).collect();
        assert_eq!(codes(&longest), [""; 0]);
    }

    #[test]
    fn no_rule_repeats_the_password() {
        let rules = Rules::new(15, ["Doorward"]);
        for password in ["iloveyou", "123456789012345", "DoorwardDoorward"] {
            for rule in rules.broken_by(password, &Personal::unknown()) {
                assert!(!rule.detail.contains(password), "{rule:?}");
            }
        }
    }
}
