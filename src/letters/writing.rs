//! How values are written into letters and pages.
//!
//! What people chose is made harmless here: it stays on its line, has an end and is no link. Making it
//! safe as HTML is left to the templates, which escape everything.

use minijinja::{AutoEscape, Error, ErrorKind, Output, State, Value};

use crate::clock::{Span, Timestamp};

/// Columns of a plain text; the usual limit for a line that may still be quoted.
const COLUMNS: usize = 76;

/// A value that somebody chose, on one line and with at most `most` characters.
///
/// Characters that are not seen, or that change the direction of what follows, are left out: they serve
/// to make one text look like another.
pub(super) fn plain(value: &str, most: usize) -> String {
    let visible: String = value
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .filter(|c| !is_invisible(*c))
        .collect();
    let words: Vec<&str> = visible.split_whitespace().collect();
    let line = words.join(" ");
    if line.chars().count() <= most {
        return line;
    }
    let kept: String = line.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// A text that mail programs make no link of: they take `name.example` for one, and a stranger could
/// send people to his site by the user name that he registers with.
pub(super) fn unlinked(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        safe.push(character);
        let joins = characters.peek().is_some_and(|next| next.is_alphabetic());
        if (character == '.' || character == '@') && joins || character == ':' {
            safe.push('\u{200c}');
        }
    }
    safe
}

/// A text on one line, whatever its template made of it.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The filter `wrap`: breaks a text into lines, never within a word.
pub(super) fn wrap(text: &str) -> String {
    let mut wrapped = String::with_capacity(text.len());
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > COLUMNS {
            wrapped.push('\n');
            column = 0;
        } else if column > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

/// How a value comes into a template: escaped in HTML, but with `/` as it is, since filters take links
/// in disguise for fraud; and an error if it is none, which would read "none".
pub(super) fn put(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if value.is_none() {
        let problem = "a value that is not always there is used without asking for it by `if`";
        return Err(Error::new(ErrorKind::UndefinedError, problem));
    }
    match (state.auto_escape(), value.as_str()) {
        (AutoEscape::Html, Some(text)) if !value.is_safe() => Ok(out.write_str(&escaped(text))?),
        _ => minijinja::escape_formatter(out, state, value),
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// The word for a length of time and how many of them, rounded down: better too careful a promise.
pub(super) fn length(span: Span) -> (&'static str, i64) {
    const HOUR: i64 = 60;
    const DAY: i64 = 24 * HOUR;
    let minutes = (span.as_secs() / 60).max(1);
    if minutes < 2 * HOUR {
        ("words.minutes", minutes)
    } else if minutes < 2 * DAY {
        ("words.hours", minutes / HOUR)
    } else {
        ("words.days", minutes / DAY)
    }
}

/// The parts of a point in time, for a language to put them in order.
pub(super) fn moment(at: Timestamp) -> Value {
    use chrono::{Datelike, Timelike};
    let at = at.to_datetime();
    minijinja::context! {
        year => at.year(),
        month => at.month(),
        day => at.day(),
        hour => format!("{:02}", at.hour()),
        minute => format!("{:02}", at.minute()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ASVS 1.3.3.
    #[test]
    fn what_people_chose_stays_on_its_line_and_is_no_link() {
        assert_eq!(
            plain(" a\r\nBcc:\tb\u{0} \u{202e}c\u{200b}d ", 50),
            "a Bcc: b cd"
        );
        assert_eq!(plain("äöüäöü", 4), "äöü…");
        assert_eq!(unlinked("win.example"), "win.\u{200c}example");
        assert_eq!(unlinked("http://x.y"), "http:\u{200c}//x.\u{200c}y");
        assert_eq!(unlinked("Firefox 121.0."), "Firefox 121.0.");
    }

    #[test]
    fn lines_are_broken_between_words() {
        let text = wrap(&"word ".repeat(40));
        assert!(text.lines().all(|line| line.len() <= COLUMNS));
        assert_eq!(text.lines().count(), 3);
        let long = "x".repeat(200);
        assert_eq!(wrap(&format!("a {long} b")), format!("a\n{long}\nb"));
    }

    #[test]
    fn lengths_of_time_are_rounded_down() {
        assert_eq!(length(Span::secs(5)), ("words.minutes", 1));
        assert_eq!(length(Span::minutes(60)), ("words.minutes", 60));
        assert_eq!(length(Span::minutes(179)), ("words.hours", 2));
        assert_eq!(length(Span::days(1)), ("words.hours", 24));
        assert_eq!(length(Span::days(3)), ("words.days", 3));
    }
}
