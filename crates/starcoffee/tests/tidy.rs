//! The house rules, as tests: the arrows between crates, sizes, openings, lints. Each failure says which file breaks which rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use toml::Table;

const SERVICES: [&str; 4] = ["order", "payment", "make", "mypage"];
/// Which of our crates each crate may use. `testbed` is only ever a dev-dependency.
const ARROWS: [(&str, &[&str]); 11] = [
    ("chassis", &[]),
    ("contract", &[]),
    ("journal", &["chassis"]),
    ("mesh", &["chassis"]),
    ("ops", &["chassis", "contract", "journal", "mesh"]),
    ("order", &["chassis", "contract", "journal", "mesh", "ops"]),
    ("payment", &["chassis", "contract", "journal", "mesh", "ops"]),
    ("make", &["chassis", "contract", "journal", "mesh", "ops"]),
    ("mypage", &["chassis", "contract", "journal", "mesh", "ops"]),
    ("testbed", &["chassis", "contract", "journal"]),
    (
        "starcoffee",
        &["chassis", "contract", "journal", "mesh", "order", "payment", "make", "mypage"],
    ),
];
/// Names that say nothing about what is in a file.
const FORBIDDEN: [&str; 9] = [
    "common",
    "handler",
    "handlers",
    "helpers",
    "interfaces",
    "manager",
    "models",
    "types",
    "utils",
];
const FILE_LINES: usize = 400;
const MAIN_LINES: usize = 40;

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the workspace is there")
}

fn manifest(path: &Path) -> Table {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Our crates by name, with their manifests.
fn crates() -> BTreeMap<String, Table> {
    let entries = fs::read_dir(root().join("crates")).expect("crates/ is there");
    entries
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.join("Cargo.toml").is_file())
        .map(|path| {
            let name = path.file_name().expect("a directory").to_string_lossy().into_owned();
            (name, manifest(&path.join("Cargo.toml")))
        })
        .collect()
}

/// All Rust files of ours, relative to the root.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("it can be read") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut found = Vec::new();
    walk(&root.join("crates"), &mut found);
    found.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("it is text");
        (path.strip_prefix(&root).expect("it is in the root").to_owned(), text)
    };
    found.into_iter().map(read).collect()
}

fn names(manifest: &Table, section: &str) -> BTreeSet<String> {
    let section = manifest.get(section).and_then(toml::Value::as_table);
    section.into_iter().flat_map(Table::keys).cloned().collect()
}

/// All that is broken, at once.
fn none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn crates_use_each_other_only_along_the_arrows() {
    let crates = crates();
    let listed: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(crates.keys().cloned().collect::<BTreeSet<_>>(), listed, "ARROWS lists every crate");
    let mut broken = Vec::new();
    for (name, allowed) in ARROWS {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for used in names(&crates[name], section).intersection(&listed) {
                let dev = section == "dev-dependencies" && used == "testbed";
                // `dev`: a crate's own tests may also stand on what it stands on
                if !allowed.contains(&used.as_str()) && !dev {
                    broken.push(format!("crates/{name}/Cargo.toml: {name} must not use {used}"));
                }
            }
        }
    }
    none(&broken);
}

#[test]
fn every_crate_takes_versions_and_lints_from_the_workspace() {
    let mut broken = Vec::new();
    for (name, manifest) in crates() {
        let inherits = |value: Option<&toml::Value>| {
            value.and_then(|value| value.get("workspace")).and_then(toml::Value::as_bool)
                == Some(true)
        };
        if !inherits(manifest.get("lints")) {
            broken.push(format!("crates/{name}/Cargo.toml: [lints] workspace = true is missing"));
        }
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let table = manifest.get(section).and_then(toml::Value::as_table);
            for (dependency, value) in table.into_iter().flatten() {
                if !inherits(Some(value)) {
                    broken.push(format!(
                        "crates/{name}/Cargo.toml: {dependency} has a version of its own"
                    ));
                }
            }
        }
    }
    none(&broken);
}

#[test]
fn nothing_asks_for_all_of_tokio() {
    let mut all = crates();
    let root = manifest(&root().join("Cargo.toml"));
    let workspace = root["workspace"].as_table().expect("a workspace").clone();
    all.insert("the workspace".to_owned(), workspace);
    for (name, manifest) in all {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let features = manifest
                .get(section)
                .and_then(|section| section.get("tokio"))
                .and_then(|tokio| tokio.get("features"))
                .and_then(toml::Value::as_array);
            let full = features.is_some_and(|features| {
                features.iter().any(|feature| feature.as_str() == Some("full"))
            });
            assert!(!full, "{name}: tokio's features are named one by one, not `full`");
        }
    }
}

#[test]
fn every_service_has_the_same_files() {
    let mut broken = Vec::new();
    for service in SERVICES {
        let mut files =
            vec!["src/lib.rs", "src/api.rs", "src/events.rs", "src/store.rs", "tests/it/main.rs"];
        files.extend(match service {
            "order" => vec!["src/order.rs"],
            "payment" => vec!["src/payment.rs", "src/provider.rs"],
            "make" => vec!["src/ticket.rs"],
            _ => vec![],
        });
        for file in files {
            let path = root().join("crates").join(service).join(file);
            // a file that grew may have become a directory
            if !path.is_file() && !path.with_extension("").join("mod.rs").is_file() {
                broken.push(format!("crates/{service}/{file} is missing"));
            }
        }
    }
    none(&broken);
}

#[test]
fn files_are_short_and_open_with_what_they_are_for() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let shown = path.display();
        if !text.starts_with("//!") {
            broken.push(format!("{shown}: does not open with `//!`"));
        }
        let test = path.components().any(|part| part.as_os_str() == "tests")
            || path.file_stem().is_some_and(|stem| stem == "tests");
        // tests stand at the foot
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = code.lines().count();
        if !test && lines > FILE_LINES {
            broken
                .push(format!("{shown}: {lines} lines without its tests, more than {FILE_LINES}"));
        }
        if path.ends_with("src/main.rs") && lines > MAIN_LINES {
            broken.push(format!(
                "{shown}: {lines} lines, more than {MAIN_LINES}: it is a table of contents"
            ));
        }
    }
    none(&broken);
}

#[test]
fn files_are_named_after_what_they_hold() {
    let mut broken = Vec::new();
    for (path, _) in sources() {
        for part in path.with_extension("").components() {
            if FORBIDDEN.iter().any(|name| part.as_os_str() == *name) {
                broken.push(format!("{}: the name says nothing", path.display()));
            }
        }
    }
    none(&broken);
}

#[test]
fn no_test_is_ignored() {
    // put together here, so that this file does not find itself
    let ignore = ["#[ig", "nore"].concat();
    let broken: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| text.contains(&ignore))
        .map(|(path, _)| format!("{}: has an ignored test", path.display()))
        .collect();
    none(&broken);
}

#[test]
fn what_knows_no_coffee_stays_so() {
    let words = ["coffee", "order", "payment", "ticket", "barista"];
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let shared = ["chassis", "journal", "mesh"]
            .iter()
            .any(|name| path.starts_with(Path::new("crates").join(name).join("src")));
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in (1..).zip(code.lines()).filter(|_| shared) {
            // prose may give examples; code may not depend on them. `order` is also an everyday word and a trait.
            let statement = line.split("//").next().unwrap_or_default();
            let names = statement.split(|letter: char| !letter.is_alphanumeric());
            for name in names.filter(|name| words.contains(&name.to_lowercase().as_str())) {
                if !name.eq_ignore_ascii_case("order") {
                    broken.push(format!("{}:{number}: knows of {name}", path.display()));
                }
            }
        }
    }
    none(&broken);
}

#[test]
fn the_fault_ledger_names_tests_that_exist() {
    let ledger = fs::read_to_string(root().join("docs/fault-ledger.md")).expect("it is there");
    let sources = sources();
    let is_test = |name: &str| {
        let called = format!("fn {name}(");
        sources.iter().any(|(_, text)| text.contains(&called))
    };
    // a test's name is a sentence: nothing else in the ledger has three words and no other letters
    let is_sentence = |name: &&str| {
        name.matches('_').count() > 2
            && name.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    let named: Vec<_> = ledger.split('`').filter(is_sentence).collect();
    assert!(named.len() > 100, "only {} tests are named", named.len());
    let broken = named.into_iter().filter(|name| !is_test(name));
    none(&broken.map(|name| format!("docs/fault-ledger.md: no test {name}")).collect::<Vec<_>>());
}
