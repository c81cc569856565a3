//! `millgate backup` and `millgate restore`: on the host of the server, without asking it.

use millgate_control_api::BackedUp;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use crate::{
    args::{Backup, Global, Restore},
    failure::{Context, Failure},
    settings::Location,
};

/// Writes the database into a file.
pub(crate) fn back_up(global: &Global, args: &Backup) -> Result<(), Failure> {
    let Location { data_dir, database_url } = Location::read(&args.place)?;
    let done = millgate_control_api::back_up(&data_dir, database_url, &args.file, args.with_keys);
    let done = runtime()?.block_on(done).context("not backed up")?;
    let keys = if done.has_keys {
        "and the keys"
    } else {
        "and no keys: `keys/` of the data directory is needed too"
    };
    say(global, done, &format!("{} rows are in `{}`, {keys}.", done.rows, args.file.display()));
    Ok(())
}

/// Fills a new data directory or database.
pub(crate) fn restore(global: &Global, args: &Restore) -> Result<(), Failure> {
    let Location { data_dir, database_url } = Location::read(&args.place)?;
    let done = millgate_control_api::restore(&data_dir, database_url, &args.file);
    let done = runtime()?.block_on(done).context("not restored")?;
    let keys = if done.has_keys {
        ""
    } else {
        " Put `keys/` of the old data directory into this one before the server starts, or no key is good any more."
    };
    say(global, done, &format!("{} rows are restored.{keys}", done.rows));
    Ok(())
}

fn say(global: &Global, done: BackedUp, text: &str) {
    if global.json {
        println!("{}", json!({ "rows": done.rows, "has_keys": done.has_keys }));
    } else {
        println!("{text}");
    }
}

fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread().enable_all().build().context("cannot start threads")
}
