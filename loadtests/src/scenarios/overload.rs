//! Ten times too many calls.
//!
//! What that means: the peak is what eight callers get from four replicas of a 10 ms function, which is all there is.
//! Then ten times as many callers offer ten times that many calls per second for as long as the scenario goes on. The
//! line is as long as an operator makes it who wants an answer soon: four calls wait for each replica, 40 ms, and
//! every call beyond is told to come back. At the end the eight are alone again.

use std::time::Duration;

use super::TEN_MS;
use crate::{
    figures::{Figures, as_ms, ms},
    load::{Outcome, Plan, TENTH, load, load_apart},
    processes::OwnCpu,
    server::{Model, Server},
};

const CONFIGURATION: &str = "[admission]\nline_calls_max = 16\n";
const CALLERS: usize = 8;
const TIMES: usize = 10;
const SHARE_OF_PEAK_MIN: f64 = 90.0;
const RECOVERY_S_MAX: f64 = 2.0;
/// How long the peak, and the time after, are looked at.
const CALM: Duration = Duration::from_secs(5);
/// Less was offered than the scenario is about.
const OFFERED_MIN: f64 = 0.95 * TIMES as f64;

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start_with(CONFIGURATION);
    let model = server.deploy("slow", TEN_MS, &["--replicas", "4"]);
    let peak = load(&model, &Plan::numbered(CALLERS, CALM)).await;
    figures.show("peak, good answers/s", format!("{:.1}", peak.rate()));
    figures.must_be("other than 200 at the peak", peak.all() - peak.good(), 0);

    let own = OwnCpu::measure();
    let crowding = load_apart(&model, Plan::paced(CALLERS * TIMES, time, peak.rate() * TIMES as f64));
    let after = alone_after(&model, time).await;
    let crowd = crowding.await.expect("the callers do not panic");
    let own = own.text();

    let served: u64 = crowd.good_by_tenth.iter().take((time.as_millis() / TENTH.as_millis()) as usize).sum();
    let rate = served as f64 / time.as_secs_f64();
    figures.show("share of one core that the callers took", own);
    figures.show("answers", crowd.statuses());
    figures.aim_at_least(
        "offered ÷ peak",
        crowd.all() as f64 / time.as_secs_f64() / peak.rate(),
        OFFERED_MIN,
        "",
    );
    figures.show("good answers/s", format!("{rate:.1}"));
    figures.aim_at_least("good answers, of the peak", rate / peak.rate() * 100.0, SHARE_OF_PEAK_MIN, " %");
    figures.must_be("other than 200 and 429", crowd.all() - crowd.good() - crowd.status(429), 0);
    figures.must_be("some were told to come back", crowd.status(429) > 0, true);
    figures.must_be("crossed", crowd.crossed + after.crossed, 0);
    let [p50, p99] = crowd.quantiles([0.5, 0.99]);
    figures.show("good answers, p50, p99", format!("{}, {}", ms(p50), ms(p99)));
    let back = recovery(&after, peak.rate());
    figures.aim_at_most("back at the peak's rate after", as_ms(back) / 1e3, RECOVERY_S_MAX, " s");
    figures.show("answers after it", after.statuses());
    figures
}

/// The eight callers from the moment on at which the crowd has made its last call.
async fn alone_after(model: &Model, time: Duration) -> Outcome {
    tokio::time::sleep(time).await;
    load(model, &Plan::numbered(CALLERS, CALM)).await
}

/// The end of the first tenth of a second that is as good as the peak's.
fn recovery(after: &Outcome, peak_per_s: f64) -> Duration {
    let wanted = peak_per_s * TENTH.as_secs_f64() * SHARE_OF_PEAK_MIN / 100.0;
    let tenths = after.good_by_tenth.iter().position(|good| *good as f64 >= wanted);
    tenths.map_or(CALM, |tenths| TENTH * (tenths as u32 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_ends_with_the_first_good_tenth() {
        let mut after = Outcome::default();
        after.good_by_tenth = vec![0, 35, 36, 40];
        assert_eq!(recovery(&after, 400.0), Duration::from_millis(300));
        assert_eq!(recovery(&Outcome::default(), 400.0), CALM);
    }
}
