//! Protos written in a test, compiled as `contract` compiles the real ones.

use protox::{
    Compiler, Error,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver},
};
use std::path::Path;

const NAME: &str = "test.proto";

struct Source(String);

impl FileResolver for Source {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        match name {
            NAME => File::from_source(name, &self.0),
            _ => Err(Error::file_not_found(name)),
        }
    }
}

/// A file of package `test.v1` with rules, as an encoded `FileDescriptorSet`.
pub(crate) fn compile(definitions: &str) -> Vec<u8> {
    let third_party = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../third_party");
    let mut files = ChainFileResolver::new();
    files.add(Source(format!(
        r#"syntax = "proto3"; package test.v1; import "buf/validate/validate.proto"; {definitions}"#
    )));
    files.add(IncludeFileResolver::new(third_party));
    files.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(files);
    compiler.include_imports(true).open_file(NAME).unwrap_or_else(|error| panic!("{error:?}"));
    compiler.encode_file_descriptor_set()
}
