//! Passwords that are a pattern and nothing besides.
//!
//! Decides whether a password repeats a few characters, or runs along the alphabet, the digits or the keyboard.
//! A pattern inside a longer password is nobody's business.

use super::SHORTEST_FLOOR;

/// What fingers and heads run along, in both directions and from the end to the beginning.
const LINES: [&str; 22] = [
    "abcdefghijklmnopqrstuvwxyz",
    "1234567890",
    "!@#$%^&*()",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "qwertzuiopü",
    "asdfghjklöä",
    "yxcvbnm",
    "azertyuiop",
    "qsdfghjklm",
    "wxcvbn",
    "1qaz",
    "2wsx",
    "3edc",
    "4rfv",
    "5tgb",
    "6yhn",
    "7ujm",
    "8ik,",
    "9ol.",
    "0p;/",
];
/// How long runs are on average in a password that is made of them.
const LEAST_RUN: usize = 3;

/// Whether a password in lower case is a pattern: what is repeated in it would be too short for any policy, or
/// it consists of runs.
pub(super) fn is_pattern(lower: &str) -> bool {
    let chars: Vec<char> = lower.chars().collect();
    let period = period(&chars);
    (period < SHORTEST_FLOOR && period < chars.len()) || runs(&chars) * LEAST_RUN <= chars.len()
}

/// What a password repeats at least twice, and nothing but that; the password itself if it repeats nothing.
pub(super) fn unit(lower: &str) -> &str {
    let chars: Vec<char> = lower.chars().collect();
    let period = period(&chars);
    let end = lower.char_indices().nth(period).map(|(at, _)| at);
    match end {
        Some(end) if period * 2 <= chars.len() => &lower[..end],
        _ => lower,
    }
}

/// After how many characters a text begins anew, the last time perhaps not to its end.
fn period(chars: &[char]) -> usize {
    let repeats = |n: &usize| chars[*n..].iter().zip(chars).all(|(a, b)| a == b);
    (1..chars.len()).find(repeats).unwrap_or(chars.len())
}

/// How many runs a text falls into, each taken as long as it can be.
fn runs(chars: &[char]) -> usize {
    let (mut rest, mut runs) = (chars, 0);
    while !rest.is_empty() {
        rest = &rest[run(rest)..];
        runs += 1;
    }
    runs
}

/// How far the text runs along one line from its first character on.
fn run(chars: &[char]) -> usize {
    let same = 1 + chars
        .windows(2)
        .take_while(|pair| pair[0] == pair[1])
        .count();
    let along = LINES.iter().map(|line| {
        let line: Vec<char> = line.chars().collect();
        let place = |c: char| line.iter().position(|other| *other == c);
        let step = |pair: &[char], by: usize| match (place(pair[0]), place(pair[1])) {
            (Some(a), Some(b)) => (a + by) % line.len() == b,
            _ => false,
        };
        let far = |by: usize| chars.windows(2).take_while(|pair| step(pair, by)).count();
        1 + far(1).max(far(line.len() - 1))
    });
    along.max().unwrap_or(1).max(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_and_runs_are_patterns() {
        for pattern in [
            "aaaaaaaaaaaaaaa",
            "               ",
            "😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀",
            "abcabcabcabcabc",
            "abcabcabcabcab",
            "p4ssp4ssp4ssp4ss",
            "123456789012345",
            "098765432109876",
            "qwertyuiopasdfghjkl",
            "poiuytrewqlkjhgfdsa",
            "1qaz2wsx3edc4rfv",
            "abcdefghijklmno",
            "zyxwvutsrqponml",
            "111222333444555",
            "1234567890qwertyuiop",
            "abcd1234",
        ] {
            assert!(is_pattern(pattern), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_inside_a_password_is_fine() {
        for password in [
            "correct horse battery staple",
            "159263748159263",
            "kqzjwvhxmtrbpnlfgdcs",
            "abc is where it all began",
            "83749218374650192837",
            "qwerty is my keyboard",
            "x",
            "",
        ] {
            assert!(!is_pattern(password) || password.is_empty(), "{password}");
        }
    }

    #[test]
    fn what_is_repeated_is_found() {
        assert_eq!(unit("sunshine sunshine sunshine "), "sunshine ");
        assert_eq!(unit("sunshinesunshine"), "sunshine");
        assert_eq!(unit("sunshinesun"), "sunshinesun");
        assert_eq!(unit(""), "");
    }
}
