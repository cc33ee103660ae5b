//! The directory with the shop's data: one database file for each service, and a lock, because two processes that publish
//! from one outbox or decide about one queue would be two shops.

use anyhow::{Context as _, bail};
use journal::database::{self, Source};
use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

/// A directory that is ours as long as this value lives. The system lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes the directory, or this user's own when none is given; it is created if it does not exist.
    ///
    /// # Errors
    /// It cannot be created or written, or another process has it.
    pub(crate) fn take(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let own = || dirs::data_dir().map(|directory| directory.join("starcoffee"));
        let Some(path) = path.or_else(own) else {
            bail!("this user has no directory for data: say where it goes (--data-dir)");
        };
        let shown = path.display();
        fs::create_dir_all(&path)
            .with_context(|| format!("cannot create the directory {shown} (--data-dir)"))?;
        let lock = File::options().create(true).append(true).open(path.join("lock"));
        let lock = lock.with_context(|| format!("cannot write in {shown} (--data-dir)"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another `up` uses {shown} (--data-dir)"),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {shown} (--data-dir)"));
            }
        }
        // a name that tells where it is from everywhere
        let path = path.canonicalize().unwrap_or(path);
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the database `name` is.
    pub(crate) fn database(&self, name: &str) -> Source {
        let url = database::url(&self.path.join(format!("{name}.db")));
        Source { url, flag: "--data-dir", config: database::Config::default() }
    }

    /// A service's error at its start names the flag at fault; one that names none is about its data, and that is here.
    pub(crate) fn blamed(&self, error: anyhow::Error) -> anyhow::Error {
        if format!("{error:#}").contains("(--") {
            return error;
        }
        error.context(format!("cannot use the data in {} (--data-dir)", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn a_directory_is_taken_once_at_a_time() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("new").join("data");
        let first = DataDir::take(Some(path.clone())).expect("it is created");
        let error = DataDir::take(Some(path.clone())).expect_err("it is taken").to_string();
        assert_eq!(error, format!("another `up` uses {} (--data-dir)", path.display()));
        drop(first);
        DataDir::take(Some(path)).expect("it is free again");
    }

    #[test]
    fn what_cannot_be_a_directory_is_named_with_the_flag() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = DataDir::take(Some(file.path().to_owned())).expect_err("it is a file");
        let error = format!("{error:#}");
        assert!(error.contains(&file.path().display().to_string()), "{error}");
        assert!(error.contains("--data-dir"), "{error}");
    }

    #[test]
    fn an_error_that_names_no_flag_is_about_the_data() {
        let parent = tempfile::tempdir().expect("a directory");
        let data = DataDir::take(Some(parent.path().to_owned())).expect("it is free");
        let blamed = |error| format!("{:#}", data.blamed(error));
        let port = "cannot listen on 127.0.0.1:1 (--order-listen): in use";
        assert_eq!(blamed(anyhow!(port)), port);
        let malformed = blamed(anyhow!("order.db is malformed"));
        assert!(malformed.contains("(--data-dir): order.db is malformed"), "{malformed}");
    }
}
