//! The files that texts and layouts come from, and filling them in.
//!
//! Decides which file counts: one in the folder of the operator comes before the one of the same name
//! that is compiled in. Which texts belong into which letter is for the modules above.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use minijinja::{
    AutoEscape, Environment, Error, UndefinedBehavior, Value, syntax::SyntaxConfig, value::Serde,
};
use serde_json::{Map, json};

use super::{
    catalog::{Catalog, Entry, Fault},
    language::is_tag,
    writing::{put, wrap},
};

/// The texts that every other language is measured by.
const MODEL: (&str, &str) = ("en.toml", include_str!("en.toml"));
pub(super) const BUILT_IN: [(&str, &str); 5] = [
    MODEL,
    ("de.toml", include_str!("de.toml")),
    ("layout.html", include_str!("layout.html")),
    ("layout.txt", include_str!("layout.txt")),
    ("page.html", include_str!("page.html")),
];

/// Layouts and the texts of all languages, ready to be filled in.
pub(super) struct Templates {
    environment: Environment<'static>,
    catalogs: BTreeMap<String, Catalog>,
}

impl Templates {
    /// What is compiled in, and what stands in `folder` if there is one.
    pub(super) fn load(folder: Option<&Path>) -> Result<Self, Fault> {
        let mut files: BTreeMap<String, String> = BUILT_IN
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        if let Some(folder) = folder {
            files.extend(read_folder(folder)?);
        }
        let model = Catalog::parse(MODEL.0, MODEL.1)?;
        let mut templates = Self {
            environment: environment(),
            catalogs: BTreeMap::new(),
        };
        for (file, source) in files {
            match file.strip_suffix(".toml") {
                Some(language) => {
                    let catalog = Catalog::parse(&file, &source)?;
                    catalog.matches(&file, &model)?;
                    templates.add_texts(&file, &catalog)?;
                    templates.catalogs.insert(language.to_owned(), catalog);
                }
                None => templates.add(file, source)?,
            }
        }
        Ok(templates)
    }

    fn add_texts(&mut self, file: &str, catalog: &Catalog) -> Result<(), Fault> {
        for (key, entry) in &catalog.0 {
            for (n, text) in entry.texts().iter().enumerate() {
                let name = format!("{file}/{key}/{n}");
                let added = self
                    .environment
                    .add_template_owned(name, text.source.clone());
                added.map_err(|error| Fault {
                    file: file.to_owned(),
                    line: Some(text.line + error.line().unwrap_or(1) - 1),
                    problem: format!("`{key}`: {}", what(&error)),
                })?;
            }
        }
        Ok(())
    }

    fn add(&mut self, file: String, source: String) -> Result<(), Fault> {
        let added = self.environment.add_template_owned(file.clone(), source);
        added.map_err(|error| Fault {
            file,
            line: error.line(),
            problem: what(&error),
        })
    }

    pub(super) fn languages(&self) -> impl Iterator<Item = &str> {
        self.catalogs.keys().map(String::as_str)
    }

    /// One text of a language that there is.
    pub(super) fn text(&self, language: &str, key: &str, values: &Value) -> Result<String, Error> {
        self.fill(&format!("{language}.toml/{key}/0"), values)
    }

    /// A text that only some letters or pages have.
    pub(super) fn text_if_any(
        &self,
        language: &str,
        key: &str,
        values: &Value,
    ) -> Result<Option<String>, Error> {
        match self.entry(language, key) {
            Some(_) => self.text(language, key, values).map(Some),
            None => Ok(None),
        }
    }

    /// The texts of a list, without those that have nothing to say for these values.
    pub(super) fn texts(
        &self,
        language: &str,
        key: &str,
        values: &Value,
    ) -> Result<Vec<String>, Error> {
        let count = self.entry(language, key).map_or(0, |e| e.texts().len());
        let texts = (0..count).map(|n| self.fill(&format!("{language}.toml/{key}/{n}"), values));
        let mut texts = texts.collect::<Result<Vec<_>, _>>()?;
        texts.retain(|text| !text.is_empty());
        Ok(texts)
    }

    /// All texts below `prefix`, by the rest of their keys.
    pub(super) fn group(
        &self,
        language: &str,
        prefix: &str,
        values: &Value,
    ) -> Result<serde_json::Value, Error> {
        let mut group = Map::new();
        if let Some(catalog) = self.catalogs.get(language) {
            for name in catalog.below(prefix) {
                let text = self.text(language, &format!("{prefix}{name}"), values)?;
                group.insert(name.to_owned(), json!(text));
            }
        }
        Ok(group.into())
    }

    pub(super) fn layout(&self, file: &str, values: &serde_json::Value) -> Result<String, Error> {
        self.fill(file, &Value::from(Serde(values)))
    }

    fn fill(&self, name: &str, values: &Value) -> Result<String, Error> {
        let filled = self.environment.get_template(name)?.render(values)?;
        Ok(filled.trim().to_owned())
    }

    fn entry(&self, language: &str, key: &str) -> Option<&Entry> {
        self.catalogs.get(language)?.0.get(key)
    }

    /// Where in which file something went wrong when a template was filled in.
    pub(super) fn fault(&self, error: &Error) -> Fault {
        let name = error.name().unwrap_or_default();
        let line = error.line();
        let mut parts = name.splitn(3, '/');
        let file = parts.next().unwrap_or_default();
        let key = parts.next().unwrap_or_default();
        let n = parts.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let language = file.trim_end_matches(".toml");
        let text = self.entry(language, key).and_then(|e| e.texts().get(n));
        let (line, problem) = match text {
            Some(text) => (
                Some(text.line + line.unwrap_or(1) - 1),
                format!("`{key}`: {}", what(error)),
            ),
            None => (line, what(error)),
        };
        Fault {
            file: file.to_owned(),
            line,
            problem,
        }
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|name| match name {
        "layout.html" | "page.html" => AutoEscape::Html,
        _ => AutoEscape::None,
    });
    environment.set_formatter(put);
    environment.add_filter("wrap", wrap);
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    environment.set_syntax(syntax.expect("the usual delimiters are valid"));
    environment
}

fn what(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{} ({detail})", error.kind()),
        None => error.kind().to_string(),
    }
}

/// The files of the operator. Names that begin with a dot are passed over: folders that Kubernetes
/// mounts hold such, and so do those that people browse.
fn read_folder(folder: &Path) -> Result<BTreeMap<String, String>, Fault> {
    let unreadable = |file: &str, error: &io::Error| Fault {
        file: file.to_owned(),
        line: None,
        problem: format!("cannot be read: {error}"),
    };
    let mut files = BTreeMap::new();
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    for entry in entries.map_err(|error| unreadable("the folder", &error))? {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if !is_known(&name) {
            let layouts: BTreeSet<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            let problem =
                format!("is none of {layouts:?} and no language such as fr.toml or pt-br.toml");
            return Err(Fault {
                file: name,
                line: None,
                problem,
            });
        }
        let text = fs::read_to_string(entry.path()).map_err(|error| unreadable(&name, &error))?;
        files.insert(name, text);
    }
    Ok(files)
}

fn is_known(name: &str) -> bool {
    let built_in = BUILT_IN.iter().any(|(known, _)| *known == name);
    built_in || name.strip_suffix(".toml").is_some_and(is_tag)
}
