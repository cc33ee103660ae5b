//! Compiles `proto/` without `protoc`: protox reads the files, tonic-prost-build writes the Rust.

#![allow(
    clippy::disallowed_methods,
    reason = "cargo tells a build script where things are through the environment"
)]

use std::{env, error::Error, fs, path::PathBuf};

const PACKAGES: [&str; 6] = ["type", "order", "payment", "make", "mypage", "ops"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let includes = [root.join("proto"), root.join("third_party")];
    let mut files = Vec::new();
    for package in PACKAGES {
        for entry in fs::read_dir(includes[0].join("starcoffee").join(package).join("v1"))? {
            files.push(entry?.path());
        }
    }
    // ErrorInfo and its kin travel in error details: without them in the set, reflection clients cannot show an error.
    files.extend(
        ["google/rpc/status.proto", "google/rpc/error_details.proto"]
            .map(|file| includes[1].join(file)),
    );
    files.sort();
    for include in &includes {
        println!("cargo::rerun-if-changed={}", include.display());
    }

    // Served by reflection, read by validation: protox's own encoding keeps the options that prost-types drops.
    let descriptors = protox::Compiler::new(&includes)?
        .include_imports(true)
        .open_files(&files)?
        .encode_file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("starcoffee.binpb"), descriptors)?;

    let mut set = protox::Compiler::new(&includes)?
        .include_imports(true)
        .include_source_info(true)
        .open_files(&files)?
        .file_descriptor_set();
    set.file.retain(|file| {
        file.package().starts_with("starcoffee.")
            || ["google.type", "google.protobuf"].contains(&file.package())
    });
    let mut config = prost_build::Config::new();
    config.enable_type_names().include_file("contract.rs").bytes(["."]);
    tonic_prost_build::configure().compile_fds_with_config(set, config)?;
    Ok(())
}
