//! Passwords that are tried first.
//!
//! Decides whether a password stands on the list that is compiled in, or is made of two that do. What the list
//! holds, where it comes from and how it is made stands in `common/README.md`. That a password was seen in a
//! breach is for `breach` to find out.

use std::cmp::Ordering;

/// One password a line, lower case, NFC, sorted by bytes.
static LIST: &str = include_str!("common/list.txt");

/// What is known about a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Common {
    /// It stands on the list.
    Listed,
    /// It is two that stand there, with at most one sign between them.
    Joined,
}

/// Looks up a password in lower case and NFC. Lists of long passwords are short, and whoever has to choose a
/// long one joins two short ones: so do those who guess.
pub(super) fn look_up(lower: &str) -> Option<Common> {
    if is_listed(lower) {
        return Some(Common::Listed);
    }
    let joined = lower.char_indices().skip(1).any(|(at, _)| {
        let (head, tail) = lower.split_at(at);
        let behind_sign = tail.strip_prefix(|c: char| !c.is_alphanumeric());
        is_listed(head) && (is_listed(tail) || behind_sign.is_some_and(is_listed))
    });
    joined.then_some(Common::Joined)
}

/// A binary search for a whole line.
fn is_listed(word: &str) -> bool {
    let bytes = LIST.as_bytes();
    let (mut from, mut to) = (0, bytes.len());
    while from < to {
        let middle = from + (to - from) / 2;
        let before = bytes[from..middle].iter().rposition(|b| *b == b'\n');
        let start = before.map_or(from, |at| from + at + 1);
        let length = bytes[start..].iter().position(|b| *b == b'\n');
        let end = length.map_or(bytes.len(), |length| start + length);
        match bytes[start..end].cmp(word.as_bytes()) {
            Ordering::Less => from = end + 1,
            Ordering::Equal => return true,
            Ordering::Greater => to = start,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use unicode_normalization::UnicodeNormalization;

    use super::*;

    /// ASVS 6.2.4: more than the 3000 that are asked for, of those that fit the length rule.
    #[test]
    fn the_list_is_in_order_and_long_enough() {
        let lines: Vec<&str> = LIST.lines().collect();
        assert!(lines.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()));
        assert!(LIST.ends_with('\n') && !LIST.contains('\r'));
        let (mut default, mut floor) = (0, 0);
        for line in lines {
            assert_eq!(line.nfc().collect::<String>().to_lowercase(), line);
            match line.chars().count() {
                15..=256 => default += 1,
                8..15 => floor += 1,
                length => assert!((4..8).contains(&length), "{line}"),
            }
        }
        assert_eq!((default, floor), (3401, 17_909));
    }

    #[test]
    fn every_line_is_found_and_nothing_between_them() {
        for line in LIST.lines() {
            assert!(is_listed(line), "{line}");
        }
        for none in [
            "",
            "\n",
            "zzzzzzzzzzzz",
            "kwxqzjvh",
            "iloveyou\n",
            "\u{10ffff}",
        ] {
            assert!(!is_listed(none), "{none:?}");
        }
    }

    #[test]
    fn two_that_are_listed_are_one_that_is_tried() {
        for (password, found) in [
            ("passwordpassword", Some(Common::Listed)),
            ("iloveyou123456789", Some(Common::Joined)),
            ("sunshine-football", Some(Common::Joined)),
            ("sunshine--football", None),
            ("sunshine football dragon", None),
            ("correct horse battery staple", None),
            ("correcthorsebatterystaple", None),
        ] {
            assert_eq!(look_up(password), found, "{password}");
        }
    }
}
