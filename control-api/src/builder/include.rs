//! What belongs to a source though `.gitignore` leaves it out: patterns of the form that `.gitignore` has, relative to the
//! project. Refuses what would silently mean nothing there.

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Patterns of one build.
const PATTERNS_MAX: usize = 100;
/// Bytes of one.
const PATTERN_BYTES_MAX: usize = 1_000;

/// Why patterns are not taken: what is wrong, and what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncludeError {
    /// Too many.
    #[error("there are {0} patterns: at most {PATTERNS_MAX} are taken, and `*` stands for much")]
    Many(usize),
    /// One that cannot be used.
    #[error("pattern {pattern:?} {rule}")]
    Pattern {
        /// Which, shortened.
        pattern: String,
        /// What one must be.
        rule: String,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub struct Include(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    text: String,
    matcher: Gitignore,
}

impl Include {
    /// Reads patterns.
    pub fn parse(patterns: &[String]) -> Result<Self, IncludeError> {
        if patterns.len() > PATTERNS_MAX {
            return Err(IncludeError::Many(patterns.len()));
        }
        patterns.iter().map(|text| Pattern::parse(text)).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Which of the patterns take a path, relative to the project, or a folder that it is in.
    pub(crate) fn matching(&self, path: &Path, is_folder: bool) -> impl Iterator<Item = usize> {
        let takes =
            move |pattern: &Pattern| pattern.matcher.matched_path_or_any_parents(path, is_folder).is_ignore();
        self.0.iter().enumerate().filter(move |(_, pattern)| takes(pattern)).map(|(at, _)| at)
    }

    pub(crate) fn text(&self, at: usize) -> &str {
        &self.0[at].text
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, IncludeError> {
        let wrong = |rule: &str| IncludeError::Pattern {
            pattern: text.chars().take(100).collect(),
            rule: rule.to_owned(),
        };
        if text.trim().is_empty() || text.len() > PATTERN_BYTES_MAX || text.contains(['\n', '\r', '\0']) {
            return Err(wrong("must be one line of 1 to 1000 bytes"));
        }
        if text.starts_with(['!', '#']) {
            return Err(wrong(
                "begins with what has a meaning of its own in `.gitignore`: put a `\\` before it",
            ));
        }
        if Path::new(text).components().any(|part| part == std::path::Component::ParentDir) {
            return Err(wrong("names what is outside the project: patterns are relative to it"));
        }
        let mut builder = GitignoreBuilder::new("");
        builder.add_line(None, text).map_err(|e| wrong(&format!("is not understood: {e}")))?;
        let matcher = builder.build().map_err(|e| wrong(&format!("is not understood: {e}")))?;
        if matcher.num_ignores() != 1 {
            return Err(wrong("names nothing"));
        }
        Ok(Self { text: text.to_owned(), matcher })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(pattern: &str, path: &str) -> bool {
        let include = Include::parse(&[pattern.to_owned()]).unwrap();
        include.matching(Path::new(path), false).next().is_some()
    }

    #[test]
    fn patterns_mean_what_they_mean_in_gitignore() {
        for (pattern, path, is_taken) in [
            ("m.pkl", "m.pkl", true),
            ("m.pkl", "deep/down/m.pkl", true),
            ("/m.pkl", "deep/m.pkl", false),
            ("models/m.pkl", "models/m.pkl", true),
            ("models/m.pkl", "x/models/m.pkl", false),
            ("models/", "models/a/b.bin", true),
            ("models/*.bin", "models/a/b.bin", false),
            ("models/**/*.bin", "models/a/b.bin", true),
            ("*.{bin,pkl}", "a.pkl", true),
            ("\\!odd", "!odd", true),
            ("a b", "a b", true),
        ] {
            assert_eq!(takes(pattern, path), is_taken, "{pattern} {path}");
        }
    }

    #[test]
    fn what_would_mean_nothing_is_refused_with_its_rule() {
        for pattern in ["", "  ", "!m.pkl", "# models", "../m.pkl", "a\nb", "a{b", &"x".repeat(1_001)] {
            let refused = Include::parse(&[pattern.to_owned()]).map(|i| i.len());
            assert!(matches!(refused, Err(IncludeError::Pattern { .. })), "{pattern:?}: {refused:?}");
        }
        assert_eq!(Include::parse(&vec!["a".to_owned(); 101]).unwrap_err(), IncludeError::Many(101));
    }
}
