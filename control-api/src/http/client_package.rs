//! `GET /api/v2/python.tar.gz`: the Python client as a package that `pip install URL` takes. It is made of files that are
//! part of the program, the same bytes each time, and brings its own build backend, so that it installs with no index.

use std::sync::LazyLock;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};

use crate::sdk;

const BACKEND: &str = include_str!("../../../python-shim/packaging/cmlapi/backend.py");
const STUBS: &str = include_str!("../../../python-shim/packaging/cmlapi/stubs.py");
const PYPROJECT: &str = include_str!("../../../python-shim/packaging/cmlapi/pyproject.toml");
/// Bytes of one stored block of a deflate stream.
const BLOCK_BYTES_MAX: usize = 65_535;

static PACKAGE: LazyLock<Vec<u8>> = LazyLock::new(|| gzip(&archive()));

pub(crate) async fn show() -> Response {
    let mut response = Response::new(Body::from(PACKAGE.as_slice()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/gzip"));
    response
}

fn archive() -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let information = format!(
        "Metadata-Version: 2.1\nName: cmlapi\nVersion: {version}\nSummary: A client of Millgate's API v2\n\
         License: Apache-2.0\nRequires-Python: >=3.9\n"
    );
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "PKG-INFO", information.as_bytes());
    append(&mut archive, "backend.py", BACKEND.as_bytes());
    append(&mut archive, "stubs.py", STUBS.as_bytes());
    append(&mut archive, "pyproject.toml", PYPROJECT.as_bytes());
    for (path, content) in sdk::files().filter(|(path, _)| path.starts_with("cmlapi/")) {
        append(&mut archive, path, content);
    }
    archive.into_inner().expect("memory can be written to")
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    let path = format!("cmlapi-{}/{path}", env!("CARGO_PKG_VERSION"));
    archive.append_data(&mut header, path, content).expect("memory can be written to");
}

/// A gzip file (RFC 1952) of stored blocks (RFC 1951): some 100 kB, for which no compressor is worth its crates.
fn gzip(content: &[u8]) -> Vec<u8> {
    const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut file = HEAD.to_vec();
    let mut blocks = content.chunks(BLOCK_BYTES_MAX).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).expect("blocks are no longer");
        file.push(u8::from(blocks.peek().is_none()));
        file.extend(length.to_le_bytes());
        file.extend((!length).to_le_bytes());
        file.extend_from_slice(block);
    }
    file.extend(crc32(content).to_le_bytes());
    file.extend(u32::try_from(content.len()).expect("the package is small").to_le_bytes());
    file
}

fn crc32(content: &[u8]) -> u32 {
    let crc = content.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    });
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_gzip() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn python_reads_the_package_and_it_is_the_same_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("python.tar.gz");
        std::fs::write(&path, PACKAGE.as_slice()).unwrap();
        assert_eq!(*PACKAGE, gzip(&archive()));
        let script = "import sys, tarfile; print(*sorted(tarfile.open(sys.argv[1]).getnames()), sep='\\n')";
        let output = std::process::Command::new("python3").args(["-c", script]).arg(&path).output().unwrap();
        let names = String::from_utf8(output.stdout).unwrap();
        for name in ["PKG-INFO", "pyproject.toml", "cmlapi/__init__.py", "cmlapi/document.json"] {
            assert!(names.contains(&format!("/{name}\n")), "{names}");
        }
        assert!(!names.contains("cdsw"), "{names}");
    }
}
