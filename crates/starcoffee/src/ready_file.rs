//! A file that says where the services are, and that is there only while they serve: for scripts that start a shop on any
//! free ports and wait for it.

use anyhow::Context as _;
use serde::Serialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The file, or none if nobody wants one; it is removed when this value is dropped.
#[derive(Debug)]
pub(crate) struct ReadyFile(Option<PathBuf>);

impl ReadyFile {
    /// Takes this path; what an earlier process left there is removed.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn take(path: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = &path {
            remove(path).with_context(|| named("remove", path))?;
        }
        Ok(Self(path))
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(&self, content: &impl Serialize) -> anyhow::Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        let mut text = serde_json::to_string_pretty(content)?;
        text.push('\n');
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let new = path.with_file_name(name);
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
        if written.is_err() {
            // the error to tell is the first
            let _gone_or_not = fs::remove_file(&new);
        }
        written.with_context(|| named("write", path))
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_deref().map(remove) {
            tracing::warn!("cannot remove the ready file: {error}");
        }
    }
}

fn named(what: &str, path: &Path) -> String {
    format!("cannot {what} the file {} (--ready-file)", path.display())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_only_while_it_is_true() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ready.json");
        fs::write(&path, "{}").expect("an earlier process wrote it");
        let file = ReadyFile::take(Some(path.clone())).expect("it is removed");
        assert!(!path.exists());
        file.write(&["127.0.0.1:8081"]).expect("it is written");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "[\n  \"127.0.0.1:8081\"\n]\n");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_cannot_be_written_is_named_with_its_flag() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = ReadyFile::take(Some(directory.path().join("no/ready.json"))).expect("nothing");
        let error = format!("{:#}", file.write(&()).expect_err("there is no such directory"));
        assert!(error.contains("ready.json (--ready-file): "), "{error}");
    }
}
