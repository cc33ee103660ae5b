//! What one client sees of a shop of separate processes.

use crate::Doors;
use std::{fs, path::PathBuf};
use tonic::transport::Channel;

/// A fleet as one sees it who always meets the same replica of each service.
#[derive(Debug)]
pub struct View {
    pub(crate) channels: [Channel; 4],
    pub(crate) logs: Vec<PathBuf>,
}

impl Doors for View {
    fn channels(&self) -> &[Channel; 4] {
        &self.channels
    }

    fn log(&self) -> String {
        logs(self.logs.iter())
    }
}

/// What processes have said, each under its name.
pub(crate) fn logs<'a>(files: impl Iterator<Item = &'a PathBuf>) -> String {
    let read = |path: &PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        format!("== {name}\n{}", fs::read_to_string(path).unwrap_or_default())
    };
    files.map(read).collect()
}
