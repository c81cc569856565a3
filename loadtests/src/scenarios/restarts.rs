//! The server itself is killed, again and again.

use std::time::{Duration, Instant};

use super::ECHO;
use crate::{
    figures::{Figures, ms, quantile},
    http::{Connection, request},
    server::Server,
};

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let mut server = Server::start();
    let model = server.deploy("echo", ECHO, &["--replicas", "2"]);
    let pids = server.replica_pids(&model);
    let call = request(&model.host, "/model", &model.api_key, &model.body(r#"{"n":1}"#));
    let begun = Instant::now();
    let (mut kills, mut back) = (0_u64, Vec::new());
    while begun.elapsed() < time {
        let killed = Instant::now();
        server.kill_and_start();
        kills += 1;
        loop {
            if let Ok(mut connection) = Connection::open(&model.host).await
                && let Ok(answer) = connection.exchange(&call).await
                && answer.status == 200
            {
                break;
            }
            assert!(killed.elapsed() < Duration::from_secs(60), "no answer after a restart");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        back.push(killed.elapsed());
        tokio::time::sleep(Duration::from_secs(5).saturating_sub(killed.elapsed())).await;
    }
    back.sort_unstable();
    figures.show("kills", kills);
    figures.must_be("replicas that are the same processes", server.replica_pids(&model) == pids, true);
    figures.show("from kill to the first answer, median", ms(quantile(&back, 0.5)));
    figures.show("from kill to the first answer, worst", ms(quantile(&back, 1.0)));
    figures
}
