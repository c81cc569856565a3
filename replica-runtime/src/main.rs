//! `millgate-replica template`, `millgate-replica spawned <slot> <replica id>` and `millgate-replica spawned-spare
//! <replica id>` are started by a supervisor only;
//! `millgate-replica info` says which Python this program was built for.

use std::process::ExitCode;

use millgate_replica_runtime::{birth, info, replica, template};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("info") {
        info::print();
        return ExitCode::SUCCESS;
    }
    birth::close_others();
    birth::end_on_panic();
    birth::be_punctual();
    birth::be_patient();
    let result = match birth::Role::from_arguments(std::env::args().skip(1)) {
        Ok(birth::Role::Template) => template::run(),
        Ok(birth::Role::Spawned { slot, replica }) => replica::run_spawned(Some(slot), replica),
        Ok(birth::Role::SpawnedSpare { replica }) => replica::run_spawned(None, replica),
        Err(usage) => Err(usage),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millgate-replica: {error}");
            ExitCode::FAILURE
        }
    }
}
