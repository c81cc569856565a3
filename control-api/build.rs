//! Puts the Python SDK into the program, so that a build's environment gets the SDK of the server that built it
//! and nothing has to be found on the host. Walks the folder at compile time; no macro crate is needed for that.

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

fn main() {
    let sdk =
        PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../python-shim/src");
    println!("cargo::rerun-if-changed={}", sdk.display());
    let mut files = Vec::new();
    if sdk.is_dir() {
        collect(&sdk, &sdk, &mut files);
    }
    files.sort();
    let mut table = String::from("&[\n");
    for (name, path) in &files {
        println!("cargo::rerun-if-changed={}", path.display());
        let path = path.display().to_string();
        writeln!(table, "    ({name:?}, include_bytes!({path:?})),").expect("text can be written to");
    }
    table.push_str("]\n");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("sdk.rs");
    fs::write(out, table).expect("the output folder is writable");
}

fn collect(base: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).expect("the SDK can be read") {
        let path = entry.expect("the SDK can be read").path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "__pycache__" && !name.ends_with(".egg-info") {
                println!("cargo::rerun-if-changed={}", path.display());
                collect(base, &path, files);
            }
        } else if matches!(path.extension().and_then(|e| e.to_str()), Some("json" | "py" | "pyi" | "typed")) {
            let relative = path.strip_prefix(base).expect("found below it");
            let path = path.canonicalize().expect("it was just listed");
            files.push((relative.to_str().expect("the SDK's names are UTF-8").to_owned(), path));
        }
    }
}
