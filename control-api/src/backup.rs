//! `millgate backup` and `millgate restore`: the database, and the keys where they are asked for. What is in folders of the
//! data directory (`projects`, `sources`, `builds`) is files already, which whoever keeps files keeps.

use std::{collections::BTreeMap, fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    data_dir::{DataDir, write_private},
    database::{Database, DatabaseUrl},
    store::{BackupError, Store, backup},
};

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackedUp {
    /// Of all tables.
    pub rows: u64,
    /// Whether the key files are in it.
    pub has_keys: bool,
}

/// Writes a backup of the server on this data directory, which may run meanwhile.
pub async fn back_up(
    data_dir: &Path,
    database_url: Option<DatabaseUrl>,
    file: &Path,
    with_keys: bool,
) -> Result<BackedUp, BackupError> {
    let file_of_it = data_dir.join(DataDir::DATABASE);
    let database = database_url.map_or(Database::Sqlite(file_of_it), Database::Postgres);
    if let Database::Sqlite(path) = &database {
        // It would be made by opening it.
        fs::metadata(path).map_err(|source| BackupError::File { path: path.clone(), source })?;
    }
    let keys = with_keys.then(|| read_keys(&data_dir.join(DataDir::KEYS))).transpose()?;
    let rows = backup::write(&database, keys, file).await?;
    Ok(BackedUp { rows, has_keys: with_keys })
}

/// Fills a new data directory, or a new database, from a backup. Refuses one that has anything in it.
pub async fn restore(
    data_dir: &Path,
    database_url: Option<DatabaseUrl>,
    file: &Path,
) -> Result<BackedUp, BackupError> {
    let input = backup::Input::open(file)?;
    let dir = DataDir::open(data_dir)?;
    let keys = input.head.keys.clone();
    if keys.is_some() && !read_keys(&dir.keys())?.is_empty() {
        return Err(BackupError::NotEmpty(dir.keys().display().to_string()));
    }
    let database = database_url.map_or_else(|| Database::Sqlite(dir.database()), Database::Postgres);
    let rows = Store::restore(&database, input).await?;
    for (name, text) in keys.iter().flatten() {
        write_key(&dir.keys(), name, text)?;
    }
    Ok(BackedUp { rows, has_keys: keys.is_some() })
}

fn read_keys(folder: &Path) -> Result<BTreeMap<String, String>, BackupError> {
    let failed = |source| BackupError::File { path: folder.to_owned(), source };
    let mut keys = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let bytes = fs::read(entry.path()).map_err(failed)?;
        keys.insert(entry.file_name().to_string_lossy().into_owned(), STANDARD.encode(bytes));
    }
    Ok(keys)
}

fn write_key(folder: &Path, name: &str, text: &str) -> Result<(), BackupError> {
    let damaged = || BackupError::Damaged { line: 1, reason: format!("`{name:?}` is no key file") };
    let is_name = Path::new(name).file_name().is_some_and(|file| file == name);
    let bytes = STANDARD.decode(text).ok().filter(|_| is_name).ok_or_else(damaged)?;
    let path = folder.join(name);
    write_private(&path, &bytes).map_err(|source| BackupError::File { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Rig};

    /// All of a backup but what it says of itself.
    fn rows(file: &Path) -> Vec<String> {
        fs::read_to_string(file).unwrap().lines().skip(1).map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn all_that_was_backed_up_is_restored_and_into_nothing_else() {
        let rig = Rig::new().await;
        let project = rig.project("a \"project\" \u{1f33e}").await;
        let model = rig.model(&project, "m").await;
        rig.build(&model, 2).await;
        rig.user("somebody").await;
        let file = rig.temp.path().join("backup.jsonl");
        let (dir, url) = (&rig.app.config.data_dir, rig.app.config.database_url.clone());
        let made = back_up(dir, url.clone(), &file, true).await.unwrap();
        assert!(made.has_keys && made.rows > 10, "{made:?}");
        assert!(matches!(restore(dir, url, &file).await, Err(BackupError::Open(_))), "a server has it");

        let other = tempfile::tempdir().unwrap();
        let (dir, url) = (other.path().join("data"), testing::database_url(other.path()).await);
        assert_eq!(restore(&dir, url.clone(), &file).await.unwrap(), made);
        let again = other.path().join("again.jsonl");
        back_up(&dir, url.clone(), &again, true).await.unwrap();
        assert_eq!(rows(&again)[..rows(&again).len() - 1], rows(&file)[..rows(&file).len() - 1]);
        assert_eq!(
            fs::read(dir.join("keys/digest-1.key")).unwrap(),
            fs::read(rig.app.dir.keys().join("digest-1.key")).unwrap()
        );
        assert!(matches!(restore(&dir, url, &file).await, Err(BackupError::NotEmpty(_))));
    }

    #[tokio::test]
    async fn a_changed_or_shortened_backup_leaves_nothing_behind() {
        let rig = Rig::new().await;
        rig.project("wheat").await;
        let file = rig.temp.path().join("backup.jsonl");
        back_up(&rig.app.config.data_dir, rig.app.config.database_url.clone(), &file, false).await.unwrap();
        let good = fs::read_to_string(&file).unwrap();
        let other = tempfile::tempdir().unwrap();
        let (dir, url) = (other.path().join("data"), testing::database_url(other.path()).await);
        let lines: Vec<&str> = good.lines().collect();
        let shortened = lines[..lines.len() - 1].join("\n") + "\n";
        let without_a_row = lines[..lines.len() - 2].join("\n") + "\n" + lines[lines.len() - 1] + "\n";
        for bad in [
            good.replace("wheat", "chaff"),
            shortened,
            without_a_row,
            "{}\n".to_owned(),
            good[..99].to_owned(),
        ] {
            fs::write(&file, bad).unwrap();
            let refused = restore(&dir, url.clone(), &file).await.unwrap_err();
            assert!(matches!(refused, BackupError::Damaged { .. }), "{refused}");
        }
        fs::write(&file, good).unwrap();
        assert!(!restore(&dir, url, &file).await.unwrap().has_keys);
    }
}
