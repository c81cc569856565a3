//! What this host tells package installers: pip's configuration files, whose settings become variables of build scripts,
//! since the files themselves are not in a build's sandbox; and the index hosts that variables name, which builds reach
//! whatever their addresses are.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::config::HostPort;

/// Variables that name an index, a folder of wheels, or several of them.
const INDEXES: [&str; 8] = [
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_FIND_LINKS",
];

/// Where pip looks, the later file winning.
pub(crate) fn pip_files(home: Option<&Path>, named: Option<&Path>) -> Vec<PathBuf> {
    let of_home =
        home.into_iter().flat_map(|home| [home.join(".pip/pip.conf"), home.join(".config/pip/pip.conf")]);
    let of_host = ["/etc/xdg/pip/pip.conf", "/etc/pip.conf"].map(PathBuf::from);
    of_host.into_iter().chain(of_home).chain(named.map(Path::to_owned)).collect()
}

/// Adds what pip's files say and no variable does.
pub(crate) fn add_pip_files(variables: &mut BTreeMap<String, String>, files: &[PathBuf]) {
    let mut said = BTreeMap::new();
    for file in files {
        said.extend(settings(&fs::read_to_string(file).unwrap_or_default()));
    }
    for (name, value) in said {
        variables.entry(name).or_insert(value);
    }
}

/// `[global]` and `[install]` of a configuration file, as the variables that mean the same.
fn settings(text: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let (mut is_ours, mut last) = (false, None);
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            is_ours = matches!(section, "global" | "install");
            last = None;
        } else if line.starts_with([' ', '\t'])
            && let Some(name) = &last
        {
            // A value goes on.
            let value: &mut String = found.entry(String::clone(name)).or_default();
            value.push(' ');
            value.push_str(trimmed);
        } else if let Some((key, value)) = trimmed.split_once(['=', ':']).filter(|_| is_ours) {
            let name = format!("PIP_{}", key.trim().to_uppercase().replace('-', "_"));
            found.insert(name.clone(), value.trim().to_owned());
            last = Some(name);
        }
    }
    for value in found.values_mut() {
        *value = value.trim().to_owned();
    }
    found
}

/// The hosts of all indexes that variables name.
pub(crate) fn index_hosts(variables: &BTreeMap<String, String>) -> Vec<HostPort> {
    INDEXES
        .iter()
        .filter_map(|name| variables.get(*name))
        .flat_map(|value| value.split_whitespace())
        .filter_map(|word| {
            // Others are folders.
            let (scheme, rest) = word.split_once("://").filter(|(scheme, _)| *scheme != "file")?;
            let place = rest.split('/').next().unwrap_or_default();
            let place = place.rsplit('@').next().unwrap_or_default();
            let HostPort { host, port } = HostPort::parse(place)?;
            let port = port.or(match scheme {
                "https" => Some(443),
                "http" => Some(80),
                _ => None,
            });
            Some(HostPort { host, port })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_pip_becomes_variables() {
        let text = "# x\n[global]\nindex-url = https://u:p@index.example.org/simple/\nextra-index-url =\n    \
                    https://a.example.org/\n    http://b.example.org:8081/x\n[list]\nformat = json\n\
                    [install]\nfind-links: /opt/w\n";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pip.conf");
        fs::write(&file, text).unwrap();
        let mut variables = BTreeMap::from([("PIP_FIND_LINKS".to_owned(), "/mine".to_owned())]);
        add_pip_files(&mut variables, &[dir.path().join("none"), file]);
        assert_eq!(variables["PIP_FIND_LINKS"], "/mine");
        assert_eq!(variables["PIP_EXTRA_INDEX_URL"], "https://a.example.org/ http://b.example.org:8081/x");
        assert!(!variables.contains_key("PIP_FORMAT"));
        let hosts: Vec<String> = index_hosts(&variables).iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["index.example.org:443", "a.example.org:443", "b.example.org:8081"]);
    }
}
