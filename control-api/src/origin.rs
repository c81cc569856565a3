//! Where the files of a new project come from: a template, another project, or a git repository. All of them are there,
//! or the project is not made. Git runs as build scripts do: in the sandbox, with their way out and no other; it takes
//! `https` and `http` only, so that no path of this host and no key of its user is in reach, and is given a password by
//! its environment, where no process list and no message shows it.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use millgate_contract::spec::{BuildStepSpec, Confinement, Network, Resources};

use crate::{
    app::App,
    builder::{
        blocking,
        script::{all_processors, named_paths},
        snapshot::leaves,
        step::{self, StepRun},
    },
    config::BuildNetwork,
    egress::rules::Rules,
    fault::{Fault, Outcome},
    launch::spec::{HOME, build_uid},
    names,
    rows::Project,
};

/// A clone may take as long.
const GIT_TIMEOUT_MS: u64 = 300_000;
const GIT_MEMORY_BYTES: u64 = 2 << 30;
const GIT_PROCESSES_MAX: u32 = 256;
const URL_BYTES_MAX: usize = 2_000;
const REF_BYTES_MAX: usize = 250;
/// Bytes of git's words in a message.
const WORDS_BYTES_MAX: usize = 1_000;

/// Fetches one commit and what it holds, submodules included, and nothing of its history.
const CLONE: &str = r#"
set -e
git init -q tree
cd tree
git fetch -q --depth 1 --no-tags --no-recurse-submodules origin "$1"
git checkout -q --detach FETCH_HEAD
if [ -f .gitmodules ]; then
    git submodule update -q --init --recursive --depth 1
fi
"#;

/// A repository, and what of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    /// Without user and password.
    url: String,
    /// The value of `Authorization`.
    authorization: Option<String>,
    /// A branch, a tag or a commit.
    reference: String,
}

impl Repository {
    /// Reads the fields `git_url` and `git_ref`.
    pub(crate) fn read(url: &str, reference: &str) -> Outcome<Self> {
        let wrong =
            |rule: &str| Err(Fault::Invalid(format!("field `git_url` is {:?}: {rule}", without_login(url))));
        let Some((scheme, rest)) = url.split_once("://").filter(|(s, _)| matches!(*s, "https" | "http"))
        else {
            return wrong("it must begin with `https://` or `http://`; no other way is open to git here");
        };
        let (place, _) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, host) = place.rsplit_once('@').map_or((None, place), |(login, host)| (Some(login), host));
        let is_printable = url.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !is_printable || url.len() > URL_BYTES_MAX {
            return wrong(
                "it must be the URL of a repository, without blanks, as in `https://host/team/code.git`",
            );
        }
        let is_ref = |c: char| c.is_alphanumeric() || "/._-+@#=".contains(c);
        if reference.starts_with('-')
            || reference.contains("..")
            || reference.len() > REF_BYTES_MAX
            || !reference.chars().all(is_ref)
        {
            return Err(Fault::Invalid(format!(
                "field `git_ref` is {reference:?}: it must be the name of a branch or a tag, or a commit"
            )));
        }
        let login = login.map(crate::egress::upstream::decoded);
        Ok(Self {
            url: format!("{scheme}://{}", &rest[place.len() - host.len()..]),
            authorization: login.map(|login| format!("Basic {}", STANDARD.encode(login))),
            reference: if reference.is_empty() { "HEAD".to_owned() } else { reference.to_owned() },
        })
    }
}

fn without_login(url: &str) -> String {
    let short: String = url.chars().take(200).collect();
    match short.split_once("://") {
        Some((scheme, rest)) => {
            format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
        }
        None => short.rsplit_once('@').map_or(short.clone(), |(_, host)| host.to_owned()),
    }
}

/// A folder of files on their way to a project; gone with all in it unless they were moved.
pub(crate) struct Gathered(PathBuf);

impl Gathered {
    async fn new(app: &App) -> Outcome<Self> {
        let folder = app.dir.uploads().join(names::uuid());
        tokio::fs::create_dir(&folder).await?;
        Ok(Self(folder))
    }

    fn tree(&self) -> PathBuf {
        self.0.join("tree")
    }

    /// Makes them the files of a project that has none.
    pub(crate) async fn become_files_of(self, app: &App, project: &Project) -> Outcome<()> {
        Ok(tokio::fs::rename(self.tree(), app.dir.project(project.id.as_str())).await?)
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// These files.
pub(crate) async fn of_template(app: &App, files: &[(&str, &str)]) -> Outcome<Gathered> {
    let gathered = Gathered::new(app).await?;
    tokio::fs::create_dir(gathered.tree()).await?;
    for (path, text) in files {
        tokio::fs::write(gathered.tree().join(path), text).await?;
    }
    Ok(gathered)
}

/// The files of another project, as they are now.
pub(crate) async fn of_project(app: &App, parent: &Project) -> Outcome<Gathered> {
    let gathered = Gathered::new(app).await?;
    let (from, to) = (app.dir.project(parent.id.as_str()), gathered.tree());
    let lock = app.project_lock(&parent.id);
    let _guard = lock.read().await;
    blocking(move || if from.is_dir() { copy(&from, &to) } else { fs::create_dir(&to) }).await??;
    Ok(gathered)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// The files of a repository.
pub(crate) async fn of_repository(app: &App, repository: &Repository) -> Outcome<Gathered> {
    let config = &app.config;
    if config.build_network == BuildNetwork::None {
        return Err(Fault::Invalid(
            "field `git_url` is given: this server lets neither builds nor git out (`network` of `[builds]`)"
                .to_owned(),
        ));
    }
    let gathered = Gathered::new(app).await?;
    let uid = build_uid(i64::from(rand_number()));
    if nix::unistd::geteuid().is_root() {
        lchown(&gathered.0, Some(uid), Some(uid))?;
    }
    let spec = git_spec(app, repository, &gathered.0, uid);
    let step = StepRun {
        program: &config.millgate_program,
        spec: &spec,
        rules: Rules::of(config),
        tell: |line: &str| tracing::debug!(line, "git"),
    };
    let ended = step::run(step).await.map_err(Fault::internal)?;
    if let Some(failure) = ended.failure(&spec) {
        let words: String = ended.last.join("; ").chars().take(WORDS_BYTES_MAX).collect();
        return Err(Fault::Invalid(format!(
            "field `git_url` is {:?}: git {failure}: {words}; check address, `git_ref` {:?}, and that it may be read",
            repository.url, repository.reference
        )));
    }
    let tree = gathered.tree();
    blocking(move || adopt(&tree, &tree)).await??;
    Ok(gathered)
}

fn rand_number() -> u32 {
    u32::from_str_radix(&names::uuid()[..7], 16).unwrap_or(0)
}

fn git_spec(app: &App, repository: &Repository, folder: &Path, uid: u32) -> BuildStepSpec {
    let config = &app.config;
    let mut readable = named_paths(&config.build_environment);
    readable.extend(["/etc/ssl", "/etc/pki"].map(PathBuf::from).into_iter().filter(|path| path.exists()));
    let mut settings = vec![
        ("remote.origin.url".to_owned(), repository.url.clone()),
        ("core.hooksPath".to_owned(), "/dev/null".to_owned()),
        ("transfer.fsckObjects".to_owned(), "true".to_owned()),
        ("advice.detachedHead".to_owned(), "false".to_owned()),
        ("init.defaultBranch".to_owned(), "main".to_owned()),
    ];
    if let Some(authorization) = &repository.authorization {
        // For this host, where parts of it may be; no other one gets it.
        let host = repository.url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let name = format!("http.{host}/.extraHeader");
        settings.push((name, format!("Authorization: {authorization}")));
    }
    let mut environment: BTreeMap<String, String> = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("HOME", HOME),
        ("LANG", "C.UTF-8"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ALLOW_PROTOCOL", "https:http"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_ASKPASS", "/bin/false"),
        ("GIT_LFS_SKIP_SMUDGE", "1"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    environment.extend(config.build_environment.iter().filter(|(name, _)| name.starts_with("SSL_")).map(own));
    environment.insert("GIT_CONFIG_COUNT".to_owned(), settings.len().to_string());
    for (at, (name, value)) in settings.into_iter().enumerate() {
        environment.insert(format!("GIT_CONFIG_KEY_{at}"), name);
        environment.insert(format!("GIT_CONFIG_VALUE_{at}"), value);
    }
    let shell = ["/bin/sh", "-c", CLONE, "git", &repository.reference];
    BuildStepSpec {
        command: shell.map(str::to_owned).into(),
        root: folder.to_owned(),
        writable: Vec::new(),
        environment,
        confinement: Confinement::Available {
            uid,
            readable,
            home: HOME.into(),
            network: Network::None,
            is_required: config.require_isolation,
        },
        resources: Resources {
            cpu_millicores: all_processors(),
            memory_bytes: GIT_MEMORY_BYTES,
            processes_max: GIT_PROCESSES_MAX,
        },
        timeout_ms: GIT_TIMEOUT_MS,
        disk_bytes: Some(config.archive_bytes_max),
        outlet: Rules::of(config).outlet(),
    }
}

fn own((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

/// Makes what git wrote ours: no `.git`, no link that leaves, the server's owner and plain modes.
fn adopt(tree: &Path, path: &Path) -> Outcome<()> {
    let kind = fs::symlink_metadata(path)?;
    let relative = path.strip_prefix(tree).expect("found below it");
    if path.file_name().is_some_and(|name| name == ".git") {
        if kind.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
        return Ok(());
    }
    if nix::unistd::geteuid().is_root() {
        lchown(path, Some(0), Some(0))?;
    }
    if kind.is_symlink() {
        let link = fs::read_link(path)?;
        if leaves(relative, &link) {
            return Err(Fault::Invalid(format!(
                "the repository holds a link `{}` to `{}`, which is outside of it",
                relative.display(),
                link.display()
            )));
        }
        return Ok(());
    }
    let is_program = kind.is_dir() || kind.permissions().mode() & 0o100 != 0;
    fs::set_permissions(path, fs::Permissions::from_mode(if is_program { 0o755 } else { 0o644 }))?;
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            adopt(tree, &entry?.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_repositories_that_are_reached_by_http_are_taken_and_no_password_is_repeated() {
        let good = Repository::read("https://me:p%40ss@git.example.org/team/code.git", "v1.2/x").unwrap();
        assert_eq!(good.url, "https://git.example.org/team/code.git");
        assert_eq!(good.authorization.as_deref(), Some("Basic bWU6cEBzcw=="));
        for url in [
            "/var/lib/millgate",
            "file:///etc",
            "ssh://git@example.org/x",
            "git@example.org:x.git",
            "git://example.org/x",
            "ext::sh -c id",
            "https://",
            "https://me:secret@",
            "https://example.org/a b",
            "https://example.org/\n",
            "--upload-pack=id",
        ] {
            let Err(Fault::Invalid(said)) = Repository::read(url, "") else { panic!("{url} is taken") };
            assert!(said.starts_with("field `git_url` is ") && !said.contains("secret"), "{said}");
        }
        for reference in ["--upload-pack=id", "a b", "a..b", "a:b", "a\0", "$(id)", "*"] {
            let Err(Fault::Invalid(said)) = Repository::read("https://example.org/x", reference) else {
                panic!("{reference} is taken")
            };
            assert!(said.starts_with("field `git_ref` is "), "{said}");
        }
    }

    #[test]
    fn what_git_wrote_becomes_plain_files_and_a_link_that_leaves_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at(".git/hooks")).unwrap();
        fs::create_dir_all(at("sub")).unwrap();
        fs::write(at("sub/.git"), "gitdir: ../.git/modules/sub").unwrap();
        fs::write(at("sub/a.py"), "").unwrap();
        symlink("sub/a.py", at("inside")).unwrap();
        adopt(dir.path(), dir.path()).unwrap();
        assert!(!at(".git").exists() && !at("sub/.git").exists() && at("sub/a.py").is_file());
        symlink("/etc/passwd", at("outside")).unwrap();
        assert!(matches!(adopt(dir.path(), dir.path()), Err(Fault::Invalid(_))));
    }
}
