//! What tracking metrics costs: the same sum with `track_metric` and without, in turns.

use std::time::Duration;

use super::{ADD, ADD_REQUEST};
use crate::{
    figures::{Figures, ms, quantile},
    load::{Outcome, Plan, load},
    server::Server,
};

const TRACKING: &str = "\
import cml.models_v1 as models
from cml.metrics_v1 import track_metric
@models.cml_model(metrics=True)
def predict(args):
    track_metric('a', args['a'])
    return args['a'] + args['b']
";
const CALLERS: usize = 4;
const ROUND: Duration = Duration::from_secs(3);
const SHARE_MIN: f64 = 90.0;

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    let plain = server.deploy("plain", ADD, &["--replicas", "2"]);
    let tracking = server.deploy("tracking", TRACKING, &["--replicas", "2"]);
    let mut models = [
        ("without", plain, Vec::new(), Outcome::default()),
        ("with", tracking, Vec::new(), Outcome::default()),
    ];
    let rounds = (time.as_millis() / (2 * ROUND.as_millis())).max(2);
    let plan = Plan::repeated(CALLERS, ROUND.min(time / 4), ADD_REQUEST);
    for _ in 0..rounds {
        for (_, model, rates, all) in &mut models {
            let outcome = load(model, &plan).await;
            rates.push(outcome.rate());
            all.add(outcome);
        }
    }
    let mut medians = Vec::new();
    for (name, _, mut rates, outcome) in models {
        rates.sort_by(f64::total_cmp);
        medians.push(quantile(&rates, 0.5));
        let [p50, p99] = outcome.quantiles([0.5, 0.99]);
        figures.show(
            format!("{name} track_metric: calls/s, median of {} rounds", rates.len()),
            format!(
                "{:.0} ({:.0} to {:.0})",
                quantile(&rates, 0.5),
                quantile(&rates, 0.0),
                quantile(&rates, 1.0)
            ),
        );
        figures.show(format!("{name} track_metric: p50, p99"), format!("{}, {}", ms(p50), ms(p99)));
        figures.must_be(format!("{name} track_metric: other than 200"), outcome.all() - outcome.good(), 0);
    }
    figures.aim_at_least("with ÷ without", medians[1] / medians[0] * 100.0, SHARE_MIN, " %");
    figures
}
