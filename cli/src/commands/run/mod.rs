//! `millgate run`: one function, here and now. A supervisor of its own without confinement, a gateway in this process
//! that sends every call to it, and a look at the folder: a change starts the new code beside the old, which goes on
//! serving until the new one is ready.

mod changes;
mod edition;

use std::{path::Path, sync::Arc, time::Duration};

use millgate_contract::{
    ids::{DeploymentId, ModelId, ProjectId},
    limits,
    route::{DeploymentRoute, ModelRoute, OnHangUp, ROUTE_FORMAT, RouteSnapshot, Target, Verification},
};
use millgate_gateway::{Gateway, GatewayConfig};
use tokio::sync::mpsc;

use self::edition::{Edition, Workshop};
use crate::{
    args::Run,
    failure::{Context, Failure},
    programs::Programs,
    roles::{bind, signals},
    source::Source,
};

/// Changes come in bursts: an editor writes a file in several steps.
const QUIET: Duration = Duration::from_millis(100);
/// A burst that does not end, as of a program that writes its log there, does not keep a change from being served.
const BURST_MAX: Duration = Duration::from_secs(2);

/// Runs it until Ctrl-C.
pub(crate) fn run(args: &Run) -> Result<(), Failure> {
    let source = Source::find(&args.target, args.project.as_deref())?;
    let programs = Programs::find()?.with_python_of_the_shell()?;
    let workshop = Workshop::open(programs, &source, args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(serve(args, &source, &workshop))
}

async fn serve(args: &Run, source: &Source, workshop: &Workshop) -> Result<(), Failure> {
    let listener = bind::listen(args.listen, "--listen").await?;
    let address = bind::address_of(&listener)?;
    let gateway = Arc::new(Gateway::new(GatewayConfig {
        name: format!("run-{}", std::process::id()),
        default_model: Some(model_id()),
        ..GatewayConfig::default()
    }));
    let stop = signals::watch()?;
    let mut changes = changes::watch(&source.folder)?;
    let Some(mut current) = workshop.start(1, &stop).await? else { return Ok(()) };
    gateway.apply(snapshot(&current, 1, args.replicas)).context("cannot route to the function")?;
    println!("millgate runs {}:{} at http://{address}", args.target.file.display(), args.target.function);
    eprintln!(
        "  curl http://{address}/model -d '{{\"request\": {{}}}}'\n  Ctrl-C ends it; a change of the code reloads it."
    );
    // A task of its own: callers are accepted while new code is started.
    let mut serving = tokio::spawn({
        let (gateway, stop) = (Arc::clone(&gateway), signals::stopped(stop.clone()));
        async move { gateway.serve(listener, millgate_gateway::no_fallback(), stop).await }
    });
    let mut generation = 1;
    let served = loop {
        tokio::select! {
            biased;
            served = &mut serving => break served,
            Some(()) = settled(&mut changes), if !*stop.borrow() => {
                generation += 1;
                match workshop.start(generation, &stop).await {
                    Ok(Some(next)) => {
                        gateway.apply(snapshot(&next, generation, args.replicas)).context("cannot route to the function")?;
                        eprintln!("millgate: reloaded");
                        std::mem::replace(&mut current, next).end().await;
                    }
                    Ok(None) => {}
                    Err(failure) => eprintln!("error: {failure}\n  the code before the change goes on serving"),
                }
            }
        }
    };
    current.end().await;
    served.context("the gateway ended")?.context("the gateway ended")
}

/// One change, when nothing has changed for a moment after it, or changes have come for [`BURST_MAX`].
async fn settled(changes: &mut mpsc::Receiver<()>) -> Option<()> {
    changes.recv().await?;
    let burst = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, changes.recv()).await {} };
    let _ = tokio::time::timeout(BURST_MAX, burst).await;
    Some(())
}

fn model_id() -> ModelId {
    ModelId::new("run")
}

fn snapshot(edition: &Edition, generation: u64, slots: u16) -> RouteSnapshot {
    let project = ProjectId::new("run");
    RouteSnapshot {
        format: ROUTE_FORMAT,
        generation,
        verification: Verification {
            issuer: "run".into(),
            api_keys: vec![],
            // There are no keys here; the gateway wants the form.
            access_key_digest_key: "00".repeat(32),
        },
        administrators: vec![],
        projects: vec![],
        models: vec![ModelRoute {
            model: model_id(),
            name: "run".into(),
            project,
            access_key_digest: "00".repeat(32),
            requires_api_key: false,
            request_timeout_ms: limits::REQUEST_TIMEOUT_MS_DEFAULT,
            on_hang_up: OnHangUp::Finish,
            rate: None,
            target: Target::Deployment(DeploymentRoute {
                deployment: deployment_id(generation),
                crn: "crn:cdp:ml:::workspace:dev/model-deployment".into(),
                build: edition.build.clone(),
                run_dir: edition.run_dir.clone(),
                slots,
            }),
        }],
        revoked: vec![],
    }
}

fn deployment_id(generation: u64) -> DeploymentId {
    DeploymentId::new(format!("run-{generation}"))
}

/// True for what changes without the code having changed.
fn is_noise(path: &Path) -> bool {
    path.components().any(|c| {
        matches!(
            c.as_os_str().to_str(),
            Some(".git" | "__pycache__" | ".venv" | ".pytest_cache" | ".ipynb_checkpoints")
        )
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// How long it takes until a change is told that is followed by this many more, one every 50 ms.
    async fn told_after(more: usize) -> Duration {
        let (sender, mut changes) = mpsc::channel(1);
        let writer = tokio::spawn(async move {
            for _ in 0..=more {
                let _ = sender.try_send(());
                tokio::time::sleep(QUIET / 2).await;
            }
            // An editor that stays open.
            std::future::pending::<()>().await;
        });
        let begun = Instant::now();
        assert_eq!(settled(&mut changes).await, Some(()));
        writer.abort();
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_changes_is_one_and_one_without_end_is_told_all_the_same() {
        assert_eq!(told_after(0).await, QUIET);
        assert_eq!(told_after(4).await, 3 * QUIET);
        assert_eq!(told_after(usize::MAX - 1).await, BURST_MAX);
    }
}
