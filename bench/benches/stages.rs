//! Times each stage of a call. `make bench` runs it with short settings; `cargo bench -p millgate-bench --bench stages`
//! with criterion's own.

use criterion::Criterion;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime needs a few descriptors");
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let mut criterion = Criterion::default().configure_from_args();
    for mut stage in millgate_bench::stages::all(&runtime, folder.path()) {
        criterion.bench_function(stage.name, |bencher| bencher.iter(&mut stage.run));
    }
    criterion.final_summary();
}
