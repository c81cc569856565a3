//! The files that a project made from a template begins with. The Iris model is the one of `examples`, so that what
//! users read there and what they get here cannot differ.

/// Path and text of each file of template `Python`.
const PYTHON: &[(&str, &str)] = &[
    ("analysis.py", include_str!("template/analysis.py")),
    ("cdsw-build.sh", include_str!("../../examples/iris/cdsw-build.sh")),
    ("entry.py", include_str!("template/entry.py")),
    ("fit.py", include_str!("../../examples/iris/fit.py")),
    ("pi.py", include_str!("template/pi.py")),
    ("predict.py", include_str!("../../examples/iris/predict.py")),
    ("requirements.txt", include_str!("../../examples/iris/requirements.txt")),
];

/// What a template's name stands for, whatever its case; `None` for one that is not known.
pub(crate) fn files(name: &str) -> Option<&'static [(&'static str, &'static str)]> {
    match name.to_lowercase().as_str() {
        "" | "blank" | "local" | "git" => Some(&[]),
        "python" => Some(PYTHON),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_known_by_its_name_in_any_case() {
        assert!(files("Python").unwrap().iter().any(|(path, _)| *path == "predict.py"));
        assert_eq!(files("Blank"), Some(&[][..]));
        assert_eq!(files("R"), None);
    }
}
