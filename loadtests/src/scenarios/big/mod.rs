//! A function as heavy as real ones: scikit-learn, a fitted forest, and arrays, 300 MB in all.

use crate::server::{Model, Server};

/// A prediction.
pub(super) const REQUEST: &str = "{}";
/// Answered at once.
pub(super) const PING: &str = r#"{"ping": true}"#;
/// It raises.
pub(super) const FAILING: &str = r#"{"fail": true}"#;

const FILES: [(&str, &str); 3] = [
    ("cdsw-build.sh", "pip install -q scikit-learn\npython fit.py\n"),
    ("fit.py", include_str!("fit.py")),
    ("model.py", include_str!("model.py")),
];

/// Installs its libraries, fits, and deploys it; a minute where nothing is cached. Needs a package index.
pub(super) fn deploy(server: &Server, name: &str, options: &[&str]) -> Model {
    let example = ["--example", REQUEST];
    server.deploy_files(name, &FILES, &[&example, options].concat())
}
