//! Which tests there are, and which requirements each of them names.
//!
//! A test is a function with an attribute that makes it one, or a case of `for_each_store!`. It names a
//! requirement in its documentation: `ASVS 6.2.4`, or several with commas between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::table::Id;

/// Tests by their names, with the requirements that they name.
pub struct Named(BTreeMap<String, BTreeSet<Id>>);

impl Named {
    /// Those of this repository.
    pub fn read() -> Self {
        let mut all = BTreeMap::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        read_folder(&root.join("tests"), "", &mut all);
        read_folder(&root.join("src"), "src::", &mut all);
        assert!(all.len() > 500, "{} tests", all.len());
        Self(all)
    }

    /// One test.
    pub fn of(name: &str, ids: &[Id]) -> Self {
        let ids = ids.iter().copied().collect();
        Self(BTreeMap::from([(name.to_owned(), ids)]))
    }

    pub fn ids_of(&self, test: &str) -> Option<&BTreeSet<Id>> {
        self.0.get(test)
    }
}

fn read_folder(folder: &Path, module: &str, all: &mut BTreeMap<String, BTreeSet<Id>>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.expect("a plain name");
        if path.is_dir() {
            read_folder(&path, &format!("{module}{name}::"), all);
        } else if let Some(name) = name.strip_suffix(".rs") {
            let module = match name {
                "mod" | "main" | "lib" => module.to_owned(),
                name => format!("{module}{name}::"),
            };
            let text = fs::read_to_string(&path).expect("UTF-8");
            let tests = tests_in(&text).into_iter();
            all.extend(tests.map(|(name, ids)| (format!("{module}{name}"), ids)));
        }
    }
}

fn tests_in(text: &str) -> Vec<(String, BTreeSet<Id>)> {
    let cases = cases_in(text);
    let (mut about, mut is_test) = (String::new(), false);
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            about.push_str(text);
        } else if line.starts_with("#[") {
            is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
        } else {
            if let Some(name) = function(line).filter(|name| is_test || cases.contains(name)) {
                found.push((name.to_owned(), ids_in(&about)));
            }
            about.clear();
            is_test = false;
        }
    }
    found
}

/// The name of the function that begins in this line.
fn function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("async ").unwrap_or(line);
    let name = line.strip_prefix("fn ")?;
    name.split(['(', '<']).next()
}

fn cases_in(text: &str) -> BTreeSet<&str> {
    let lists = text.split("\nfor_each_store! {").skip(1);
    let names = lists.flat_map(|rest| rest.split('}').next().unwrap_or_default().split(','));
    names.map(str::trim).collect()
}

fn ids_in(about: &str) -> BTreeSet<Id> {
    let mut ids = BTreeSet::new();
    for listed in about.split("ASVS ").skip(1) {
        for piece in listed.split(", ") {
            let end = piece.find(|c: char| c != '.' && !c.is_ascii_digit());
            let (number, rest) = piece.split_at(end.unwrap_or(piece.len()));
            ids.extend(number.trim_end_matches('.').parse::<Id>());
            if !rest.is_empty() {
                break;
            }
        }
    }
    ids
}

#[test]
fn tests_and_the_requirements_that_they_name_are_found() {
    let text = "
for_each_store! {
    a_case,
}

/// ASVS 1.2.3, 1.2.4: two of them. RFC 1.9.9; ASVS 2.2.1.
///
/// NIST, ASVS 16.5.1
#[tokio::test(flavor = \"multi_thread\")]
async fn first() {
    /// ASVS 9.9.9.
}

/// ASVS 6.2.4.
async fn a_case(database: Database) {

fn helper() {}
    #[test]
    fn inner() {
";
    let found = tests_in(text);
    let shown: Vec<(&str, String)> = found
        .iter()
        .map(|(name, ids)| {
            let ids: Vec<String> = ids.iter().map(Id::to_string).collect();
            (name.as_str(), ids.join(" "))
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("first", "1.2.3 1.2.4 2.2.1 16.5.1".to_owned()),
            ("a_case", "6.2.4".to_owned()),
            ("inner", String::new()),
        ]
    );
}
