//! Which settings there are: the built-in default file is the list of keys and their types.
//!
//! What is not in it is refused, in files and variables alike, with the nearest known name.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::Path,
};

use config::{Value, ValueKind};

use super::layer::{DEFAULTS, Layer};
use crate::setting::BadSetting;

const PREFIX: &str = "DOORWARD__";
/// The section whose keys are names that people choose; each takes a list of texts.
const OPEN: &str = "roles";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Whole,
    Share,
    Flag,
    Texts,
}

impl Kind {
    fn of(value: &ValueKind) -> Option<Self> {
        match value {
            ValueKind::String(_) => Some(Self::Text),
            ValueKind::I64(_) => Some(Self::Whole),
            ValueKind::Float(_) => Some(Self::Share),
            ValueKind::Boolean(_) => Some(Self::Flag),
            ValueKind::Array(items)
                if items.iter().all(|i| matches!(i.kind, ValueKind::String(_))) =>
            {
                Some(Self::Texts)
            }
            _ => None,
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Text => "a text in quotes",
            Self::Whole => "a whole number",
            Self::Share => "a number from 0 to 1, e.g. 0.1",
            Self::Flag => "true or false",
            Self::Texts => "a list of texts, e.g. [\"a\", \"b\"]",
        }
    }

    /// Whether a value in a file is of this kind.
    fn takes(self, value: &ValueKind) -> bool {
        let found = Self::of(value);
        found == Some(self) || (self, found) == (Self::Share, Some(Self::Whole))
    }

    /// A variable's text as a value of this kind.
    fn read(self, text: &str) -> Option<ValueKind> {
        match self {
            Self::Text => Some(ValueKind::String(text.to_owned())),
            Self::Whole => text.parse().ok().map(ValueKind::I64),
            Self::Share => text.parse().ok().map(ValueKind::Float),
            Self::Flag => text.parse().ok().map(ValueKind::Boolean),
            Self::Texts => {
                let items = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                Some(ValueKind::Array(items.map(Value::from).collect()))
            }
        }
    }
}

/// All keys there are, and what kind of value each takes.
pub(super) struct Shape(BTreeMap<String, Kind>);

impl Shape {
    pub(super) fn of_defaults() -> Result<Self, BadSetting> {
        let defaults = Layer::parse("the built-in default.toml", DEFAULTS)?;
        let kinds = defaults.values.into_iter();
        Ok(Self(
            kinds
                .filter_map(|(key, value)| Some((key, Kind::of(&value.kind)?)))
                .collect(),
        ))
    }

    pub(super) fn file(&self, path: &Path, text: &str) -> Result<Layer, BadSetting> {
        let layer = Layer::parse(&path.display().to_string(), text)?;
        for (key, value) in &layer.values {
            let empty_section = matches!(value.kind, ValueKind::Table(_)) && self.is_section(key);
            if empty_section {
                continue;
            }
            let kind = self
                .kind(key)
                .ok_or_else(|| self.unknown(key, &layer.source))?;
            if !kind.takes(&value.kind) {
                let problem = format!("must be {} ({})", kind.expected(), layer.source);
                return Err(BadSetting::new(key, problem, "correct it there"));
            }
        }
        let values = layer.values.into_iter();
        let values = values
            .filter(|(_, v)| !matches!(v.kind, ValueKind::Table(_)))
            .collect();
        Ok(Layer {
            source: layer.source,
            values,
        })
    }

    fn kind(&self, key: &str) -> Option<Kind> {
        let is_plain = |name: &str| {
            name.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        let open = key.strip_prefix(OPEN).and_then(|key| key.strip_prefix('.'));
        let open = open.filter(|name| !name.is_empty() && is_plain(name));
        self.0.get(key).copied().or(open.map(|_| Kind::Texts))
    }

    fn is_section(&self, key: &str) -> bool {
        let within = format!("{key}.");
        key == OPEN || self.0.keys().any(|known| known.starts_with(&within))
    }

    fn unknown(&self, key: &str, source: &str) -> BadSetting {
        if self.is_section(key) {
            let remedy = format!("write [{key}] and its keys below");
            return BadSetting::new(key, format!("is a section, not a value ({source})"), remedy);
        }
        let remedy = nearest(key, self.0.keys().map(String::as_str)).map_or_else(
            || "`doorward config print` shows all keys".to_owned(),
            |known| format!("did you mean {known}?"),
        );
        BadSetting::new(key, format!("is not a known key ({source})"), remedy)
    }

    pub(super) fn variables(&self, all: &[(OsString, OsString)]) -> Result<Layer, BadSetting> {
        let mut values = BTreeMap::new();
        let names: BTreeSet<String> = self.0.keys().map(|key| variable(key)).collect();
        let ours = all
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value)));
        for (name, value) in ours.filter(|(name, _)| name.starts_with("DOORWARD_")) {
            let Some(path) = name.strip_prefix(PREFIX) else {
                refuse_misspelt(name, &names)?;
                continue;
            };
            let key = path.to_lowercase().replace("__", ".");
            let source = format!("environment variable {name}");
            let Some(kind) = self.kind(&key).filter(|_| variable(&key) == name) else {
                let remedy = nearest(name, names.iter().map(String::as_str)).map_or_else(
                    || "`doorward config print` shows all keys".to_owned(),
                    |known| format!("did you mean {known}?"),
                );
                return Err(BadSetting::new(
                    name,
                    "is not a known environment variable",
                    remedy,
                ));
            };
            let read = value.to_str().and_then(|text| kind.read(text));
            let read = read.ok_or_else(|| {
                let expected = match kind {
                    Kind::Text | Kind::Texts => "UTF-8 text",
                    Kind::Whole | Kind::Share | Kind::Flag => kind.expected(),
                };
                let problem = format!("must be {expected} ({source})");
                BadSetting::new(&key, problem, "correct it there")
            })?;
            values.insert(key, Value::new(Some(&source), read));
        }
        Ok(Layer {
            source: "the environment".to_owned(),
            values,
        })
    }
}

/// The environment variable of a key.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// `DOORWARD_HTTP_LISTEN` would be ignored in silence. Other names pass: Kubernetes sets
/// `DOORWARD_SERVICE_HOST` and the like for a service of that name.
fn refuse_misspelt(name: &str, known: &BTreeSet<String>) -> Result<(), BadSetting> {
    let bare = |name: &str| name.to_uppercase().replace('_', "");
    match known.iter().find(|k| bare(k) == bare(name)) {
        Some(meant) => Err(BadSetting::new(
            name,
            "is not a known environment variable",
            format!("did you mean {meant}?"),
        )),
        None => Ok(()),
    }
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, best) = known.map(|k| (edits(name, k), k)).min()?;
    (distance <= (name.len() / 3).clamp(2, 8)).then_some(best)
}

/// How many letters must be put in, taken out or changed to make one of the other (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The first sentence of what `default.toml` says about a key.
pub(super) fn about(key: &str) -> Option<String> {
    let mut section = String::new();
    let mut comment = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
        } else if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
            comment.clear();
        } else if let Some((name, _)) = line.split_once(" = ") {
            if format!("{section}{name}") == key {
                let text = comment.join(" ");
                let ends = text.match_indices(". ").map(|(at, _)| at);
                let end = ends.into_iter().find(|at| !text[..*at].ends_with("e.g"))?;
                return Some(text[..end].to_owned());
            }
            comment.clear();
        } else {
            comment.clear();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_count_letters() {
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("sitting", "kitten"), 3);
        assert_eq!(edits("same", "same"), 0);
    }

    #[test]
    fn a_far_name_is_not_suggested() {
        let known = ["sessions.access_ttl", "http.listen"];
        assert_eq!(
            nearest("sesions.acces_ttl", known.into_iter()),
            Some("sessions.access_ttl")
        );
        assert_eq!(nearest("mail.transport", known.into_iter()), None);
    }
}
