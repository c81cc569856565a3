//! The program `millgate`: arguments → one command → exit code. What a command does is in `commands`, what the server
//! roles are made of is in `roles`.
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod env_vars;
mod failure;
mod programs;
mod roles;
mod settings;
mod source;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    args::{Cli, Command},
    failure::Failure,
};

fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let done = match &command {
        Command::Supervise { run_dir } => return millgate_supervisor::supervise(run_dir),
        Command::BuildStep => return millgate_supervisor::build_step(),
        Command::Serve(serve) => roles::serve(&serve.role),
        Command::Gateway(role) => roles::gateway(role),
        Command::Control(role) => roles::control(role),
        Command::Run(args) => commands::run::run(args),
        Command::Deploy(args) => commands::deploy::deploy(&global, args),
        Command::Call(args) => commands::call::call(&global, &args.model, &args.request),
        Command::Test(args) => commands::call::test(&global, &args.model),
        Command::List => commands::list::list(&global),
        Command::Show(args) => commands::show::show(&global, &args.model),
        Command::Logs(args) => commands::logs::logs(&global, args),
        Command::Builds(args) => commands::builds::builds(&global, args),
        Command::Restart(args) => commands::restart::restart(&global, &args.model),
        Command::Rollback(args) => commands::rollback::rollback(&global, args),
        Command::Scale(args) => commands::scale::scale(&global, args),
        Command::Stop(args) => commands::stop::stop(&global, &args.model),
        Command::Delete(args) => commands::delete::delete(&global, &args.model),
        Command::Runtimes { command } => commands::runtimes::runtimes(&global, command.as_ref()),
        Command::Profiles { command } => commands::profiles::profiles(&global, command.as_ref()),
        Command::Environment(args) => commands::environment::environment(&global, args),
        Command::Backup(args) => commands::backup::back_up(&global, args),
        Command::Restore(args) => commands::backup::restore(&global, args),
        Command::Key(args) => commands::key::key(&global, args),
        Command::User(args) => commands::user::user(&global, args),
        Command::Team(args) => commands::team::team(&global, args),
        Command::AccessKey(args) => commands::access_key::access_key(&global, args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("error: {failure}");
    ExitCode::from(failure.code as u8)
}
