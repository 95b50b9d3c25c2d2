//! Layers of settings, and which of them wins.
//!
//! `config/default.toml` is the list of all keys with their types: what is not in it is refused, in
//! files and variables alike, with the nearest known name. What a value means is left to the section
//! that obeys it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use config::{Config, ConfigError, FileFormat, Format, Map, Source, Value, ValueKind};
use serde::de::DeserializeOwned;

use super::Environment;
use crate::setting::BadSetting;

/// Every key with its default.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");
const DEVELOPMENT: &str = include_str!("../../config/development.toml");
const PRODUCTION: &str = include_str!("../../config/production.toml");

const PREFIX: &str = "DOORWARD__";

/// Where settings are looked for.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The folder of `default.toml` and `{environment}.toml`.
    pub folder: PathBuf,
    /// The file named by `--config`.
    pub file: Option<PathBuf>,
    /// Environment variables; only those that begin with `DOORWARD_` are looked at.
    pub variables: Vec<(OsString, OsString)>,
}

impl Sources {
    /// Those of this process: `./config`, the given file and the environment.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>) -> Self {
        Self {
            folder: PathBuf::from("config"),
            file,
            variables: std::env::vars_os().collect(),
        }
    }

    /// Puts the layers on top of each other.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, BadSetting> {
        let shape = Shape::of_defaults()?;
        let built_in = |name: &str, text| Layer::parse(&format!("the built-in {name}"), text);
        let defaults = built_in("default.toml", DEFAULTS)?;
        let default_file = self.optional_file("default.toml", &shape)?;
        let extra = self.file.as_deref().map(|path| named_file(path, &shape));
        let extra = extra.transpose()?;
        let variables = shape.variables(&self.variables)?;

        let base: Vec<Layer> = [Some(defaults), default_file]
            .into_iter()
            .flatten()
            .collect();
        let top: Vec<Layer> = extra.into_iter().chain([variables]).collect();
        let environment = chosen_environment(base.iter().chain(&top))?;
        let overlay = match environment {
            Environment::Development => Some(built_in("development.toml", DEVELOPMENT)?),
            Environment::Production => Some(built_in("production.toml", PRODUCTION)?),
            Environment::Test => None,
        };
        let overlay_file = self.optional_file(&format!("{environment}.toml"), &shape)?;
        if let Some(layer) = overlay_file
            .iter()
            .find(|l| l.values.contains_key("environment"))
        {
            return Err(BadSetting::new(
                "environment",
                format!(
                    "cannot be set in {}, which is read because of it",
                    layer.source
                ),
                "take the line out",
            ));
        }
        let layers = base
            .into_iter()
            .chain(overlay)
            .chain(overlay_file)
            .chain(top);
        deserialize(layers.collect())
    }

    fn optional_file(&self, name: &str, shape: &Shape) -> Result<Option<Layer>, BadSetting> {
        let path = self.folder.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => shape.file(&path, &text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&path, &error)),
        }
    }
}

fn named_file(path: &Path, shape: &Shape) -> Result<Layer, BadSetting> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    shape.file(path, &text)
}

fn unreadable(path: &Path, error: &io::Error) -> BadSetting {
    BadSetting::new(
        &path.display().to_string(),
        format!("cannot be read: {error}"),
        "check its name and permissions",
    )
}

fn chosen_environment<'a>(
    layers: impl DoubleEndedIterator<Item = &'a Layer>,
) -> Result<Environment, BadSetting> {
    let chosen = layers.rev().find_map(|layer| {
        let value = layer.values.get("environment")?.clone();
        Some((
            layer.source.clone(),
            value.into_string().unwrap_or_default(),
        ))
    });
    let (source, name) = chosen.unwrap_or_default();
    Environment::parse(&name).ok_or_else(|| {
        BadSetting::new(
            "environment",
            format!("`{name}` is unknown ({source})"),
            "set it to development, test or production",
        )
    })
}

/// The values of one source by dotted key.
#[derive(Clone)]
struct Layer {
    source: String,
    values: BTreeMap<String, Value>,
}

/// Names the source and nothing that may be secret.
impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone().into_iter().collect())
    }
}

impl Layer {
    fn parse(source: &str, text: &str) -> Result<Self, BadSetting> {
        let table = FileFormat::Toml
            .parse(Some(&source.to_owned()), text)
            .map_err(|e| {
                // Only the first line: the ones below show the text, which may be secret.
                let place = e.to_string().lines().next().unwrap_or_default().to_owned();
                BadSetting::new(source, format!("is not TOML ({place})"), "correct it there")
            })?;
        let mut values = BTreeMap::new();
        flatten("", table, &mut values);
        Ok(Self {
            source: source.to_owned(),
            values,
        })
    }
}

fn flatten(prefix: &str, table: Map<String, Value>, into: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        // A name with a dot in quotes must not pass for a path.
        let name = if name.contains(['.', '[', ']']) {
            format!("{name:?}")
        } else {
            name
        };
        let key = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}.{name}")
        };
        match value.kind {
            ValueKind::Table(inner) if !inner.is_empty() => flatten(&key, inner, into),
            _ => {
                into.insert(key, value);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Whole,
    Flag,
    Texts,
}

impl Kind {
    fn of(value: &ValueKind) -> Option<Self> {
        match value {
            ValueKind::String(_) => Some(Self::Text),
            ValueKind::I64(_) => Some(Self::Whole),
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
            Self::Flag => "true or false",
            Self::Texts => "a list of texts, e.g. [\"a\", \"b\"]",
        }
    }

    /// A variable's text as a value of this kind.
    fn read(self, text: &str) -> Option<ValueKind> {
        match self {
            Self::Text => Some(ValueKind::String(text.to_owned())),
            Self::Whole => text.parse().ok().map(ValueKind::I64),
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
struct Shape(BTreeMap<String, Kind>);

impl Shape {
    fn of_defaults() -> Result<Self, BadSetting> {
        let defaults = Layer::parse("the built-in default.toml", DEFAULTS)?;
        let kinds = defaults.values.into_iter();
        Ok(Self(
            kinds
                .filter_map(|(key, value)| Some((key, Kind::of(&value.kind)?)))
                .collect(),
        ))
    }

    fn file(&self, path: &Path, text: &str) -> Result<Layer, BadSetting> {
        let layer = Layer::parse(&path.display().to_string(), text)?;
        for (key, value) in &layer.values {
            let empty_section = matches!(value.kind, ValueKind::Table(_)) && self.is_section(key);
            if empty_section {
                continue;
            }
            let kind = self
                .0
                .get(key)
                .ok_or_else(|| self.unknown(key, &layer.source))?;
            if Kind::of(&value.kind) != Some(*kind) {
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

    fn is_section(&self, key: &str) -> bool {
        let within = format!("{key}.");
        self.0.keys().any(|known| known.starts_with(&within))
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

    fn variables(&self, all: &[(OsString, OsString)]) -> Result<Layer, BadSetting> {
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
            let Some(kind) = self.0.get(&key).filter(|_| names.contains(name)) else {
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
                    Kind::Whole | Kind::Flag => kind.expected(),
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

fn deserialize<T: DeserializeOwned>(layers: Vec<Layer>) -> Result<T, BadSetting> {
    let mut sources = BTreeMap::new();
    let mut builder = Config::builder();
    for layer in layers {
        for (key, value) in &layer.values {
            sources.insert(
                key.clone(),
                value.origin().unwrap_or(&layer.source).to_owned(),
            );
        }
        builder = builder.add_source(layer);
    }
    let merged = builder.build().and_then(Config::try_deserialize);
    merged.map_err(|error| {
        let (key, problem) = key_and_problem(&error);
        let plain = key.split('[').next().unwrap_or_default();
        let source = sources
            .get(plain)
            .map_or("the configuration", String::as_str);
        let remedy = about(plain).map_or_else(
            || "correct it there".to_owned(),
            |text| format!("what it takes: {text}"),
        );
        BadSetting::new(&key, format!("{problem} ({source})"), remedy)
    })
}

fn key_and_problem(error: &ConfigError) -> (String, String) {
    match error {
        ConfigError::At {
            error,
            key: Some(key),
            ..
        } => {
            let text = error.to_string();
            let variant = text.split_once(" does not have variant constructor ");
            let problem = variant.map_or(text.clone(), |(_, name)| format!("`{name}` is unknown"));
            (key.clone(), problem)
        }
        ConfigError::Type {
            unexpected,
            expected,
            key: Some(key),
            ..
        } => (key.clone(), format!("{unexpected} is not {expected}")),
        ConfigError::NotFound(key) => (key.clone(), "is missing".to_owned()),
        other => ("configuration".to_owned(), other.to_string()),
    }
}

/// The first sentence of what `default.toml` says about a key.
fn about(key: &str) -> Option<String> {
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
                return text.split_once(". ").map(|(first, _)| first.to_owned());
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
