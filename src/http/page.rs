//! What the pages share: their security policy and how text is put into them.

use poem::http::HeaderValue;

use super::problem::Problem;

/// A policy under which a page loads nothing but what stands in it under `nonce`; `more` allows what
/// one page needs besides (ASVS 3.4.3).
pub(super) fn page_policy(nonce: &str, more: &str) -> Result<HeaderValue, Problem> {
    let policy = format!(
        "default-src 'none'; object-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; frame-ancestors 'none'; {more}"
    );
    HeaderValue::from_str(&policy).map_err(|_| Problem::internal("the policy is no header value"))
}

/// A text as it may stand between tags and in quoted attributes (ASVS 1.2.1). Braces are written as
/// references as well: a page's places to fill are made of them.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '{' => safe.push_str("&#123;"),
            '}' => safe.push_str("&#125;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn nothing_that_people_write_becomes_markup() {
        let evil = "\"><script>alert('x')</script>&{nonce}";
        assert_eq!(
            escaped(evil),
            "&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&#123;nonce&#125;"
        );
    }
}
