//! Which language somebody reads best, of those that there are texts in.
//!
//! Tags are compared as RFC 4647 §3.4 looks them up: from the whole tag down to its first part. Where
//! the wishes come from is for the callers.

/// Longest header that is read; what stands behind that is no wish that anybody has.
const LONGEST: usize = 1000;

/// The language for a wish of the user, else for the `Accept-Language` of a request, else `default`.
pub(super) fn choose<'a>(
    known: &[&'a str],
    wish: Option<&str>,
    accept_language: Option<&str>,
    default: &'a str,
) -> &'a str {
    let wished = wish.and_then(|tag| look_up(known, tag));
    wished
        .or_else(|| accepted(known, accept_language.unwrap_or_default()))
        .unwrap_or(default)
}

/// The first of the wishes that can be met, in the order of their weights (RFC 9110 §12.5.4).
fn accepted<'a>(known: &[&'a str], header: &str) -> Option<&'a str> {
    let header = header.get(..LONGEST).unwrap_or(header);
    if header.len() > LONGEST {
        return None;
    }
    let mut wishes: Vec<(u16, &str)> = header.split(',').filter_map(weighed).collect();
    wishes.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    wishes.into_iter().find_map(|(_, tag)| look_up(known, tag))
}

/// One member of the header with its weight in thousandths; none for one that is not acceptable.
fn weighed(member: &str) -> Option<(u16, &str)> {
    let (tag, parameter) = member.split_once(';').unwrap_or((member, "q=1"));
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let weight = thousandths(value.trim())?;
    (weight > 0).then_some((weight, tag.trim()))
}

/// A weight as RFC 9110 §12.4.2 writes it: 0 to 1 with up to three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let weight = format!("{whole}{decimals:0<3}").parse().ok()?;
    (whole.len() == 1 && weight <= 1000).then_some(weight)
}

/// The tag itself, a shorter one that it begins with, or any that begins with its first part.
fn look_up<'a>(known: &[&'a str], tag: &str) -> Option<&'a str> {
    let tag = tag.trim().replace('_', "-").to_ascii_lowercase();
    let mut rest = tag.as_str();
    loop {
        if let Some(found) = known.iter().find(|name| **name == rest) {
            return Some(found);
        }
        match rest.rsplit_once('-') {
            Some((shorter, _)) => rest = shorter,
            None => break,
        }
    }
    let begins = |name: &&&str| name.split('-').next() == Some(rest);
    known.iter().find(begins).copied()
}

/// Whether a text is a language tag as the names of files write it: `de`, `pt-br`, `zh-hant`.
pub(super) fn is_tag(text: &str) -> bool {
    let mut parts = text.split('-');
    let lower = |part: &str| {
        part.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    parts
        .next()
        .is_some_and(|first| (2..=3).contains(&first.len()) && lower(first))
        && parts.all(|part| (1..=8).contains(&part.len()) && lower(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_language_is_chosen() {
        let known = ["de", "en", "pt-br"];
        for (wish, header, chosen) in [
            (None, None, "en"),
            (Some("de"), None, "de"),
            (Some("de-AT"), Some("pt-BR"), "de"),
            (Some("DE_at"), None, "de"),
            (Some("fr"), Some("de"), "de"),
            (Some(""), Some(""), "en"),
            (Some("pt"), None, "pt-br"),
            (None, Some("fr-CH, fr;q=0.9, de;q=0.7, *;q=0.5"), "de"),
            (None, Some("de;q=0.3, pt-BR;q=0.8"), "pt-br"),
            (None, Some("de;q=0, pt-BR;q=0.001"), "pt-br"),
            (None, Some("de;q=0"), "en"),
            (None, Some("de ; Q=0.5 , en;q=0.4"), "de"),
            (None, Some("de;q=2, *"), "en"),
            (None, Some("de;q=0.1234"), "en"),
            (None, Some(";;;,=,q=1"), "en"),
            (None, Some("ünicode, de"), "de"),
        ] {
            let found = choose(&known, wish, header, "en");
            assert_eq!(found, chosen, "{wish:?} {header:?}");
        }
        let endless = "fr,".repeat(1000) + "de";
        assert_eq!(choose(&known, None, Some(&endless), "en"), "en");
    }

    #[test]
    fn a_tag_is_told_from_other_names() {
        assert!(
            ["de", "pt-br", "zh-hant-tw", "es-419"]
                .into_iter()
                .all(is_tag)
        );
        let others = [
            "", "d", "DE", "de-", "-de", "de_at", "layout", "de.at", "../de",
        ];
        assert!(!others.into_iter().any(is_tag));
    }
}
