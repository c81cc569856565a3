//! What the process takes of its host, under the names that Prometheus' own libraries give: read from `/proc/self` when
//! the page is asked for. A figure that cannot be read is left out.

use std::fs;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// What one clock tick of `/proc` is on every architecture Linux runs us on (`USER_HZ`).
const TICKS_PER_S: f64 = 100.0;

/// The figures of this process.
#[derive(Debug)]
pub(super) struct Process;

/// What `/proc/self/stat` and its neighbours say.
#[derive(Debug, Default, PartialEq)]
struct Figures {
    cpu_s: Option<f64>,
    start_s: Option<f64>,
    threads: Option<u64>,
    virtual_bytes: Option<u64>,
    resident_bytes: Option<u64>,
    descriptors: Option<u64>,
    descriptors_max: Option<u64>,
}

impl Figures {
    fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let booted_s = first_number(&text("/proc/stat"), "btime");
        Self {
            descriptors: fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as u64),
            descriptors_max: first_number(&text("/proc/self/limits"), "Max open files"),
            resident_bytes: first_number(&text("/proc/self/status"), "VmRSS:").map(|kib| kib * 1024),
            ..Self::of_stat(&text("/proc/self/stat"), booted_s)
        }
    }

    /// The fields of `proc_pid_stat(5)`, counted behind the name, which may hold anything.
    fn of_stat(stat: &str, booted_s: Option<u64>) -> Self {
        let fields: Vec<u64> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
            .unwrap_or_default();
        // The first of them is field 3.
        let field = |number: usize| fields.get(number - 3).copied();
        let seconds = |ticks: u64| ticks as f64 / TICKS_PER_S;
        Self {
            cpu_s: field(14).zip(field(15)).map(|(user, system)| seconds(user + system)),
            threads: field(20),
            start_s: field(22).zip(booted_s).map(|(started, booted_s)| booted_s as f64 + seconds(started)),
            virtual_bytes: field(23),
            ..Self::default()
        }
    }
}

/// The first number of the line that begins so.
fn first_number(text: &str, begin: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(begin))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let figures = Figures::read();
        if let Some(cpu_s) = figures.cpu_s {
            let cpu = ConstCounter::new(cpu_s);
            let told = "Processor time, user and system.";
            cpu.encode(encoder.encode_descriptor("cpu", told, Some(&Unit::Seconds), cpu.metric_type())?)?;
        }
        if let Some(start_s) = figures.start_s {
            let start = ConstGauge::new(start_s);
            let told = "When the process started, in Unix time.";
            let unit = Some(&Unit::Seconds);
            start.encode(encoder.encode_descriptor("start_time", told, unit, start.metric_type())?)?;
        }
        let bytes = Some(&Unit::Bytes);
        let gauges = [
            ("resident_memory", "Memory that is resident.", bytes, figures.resident_bytes),
            ("virtual_memory", "Memory that is mapped.", bytes, figures.virtual_bytes),
            ("open_fds", "Descriptors that are open.", None, figures.descriptors),
            ("max_fds", "Descriptors that may be open.", None, figures.descriptors_max),
            ("threads", "Threads.", None, figures.threads),
        ];
        for (name, told, unit, figure) in gauges {
            let Some(figure) = figure else { continue };
            let gauge = ConstGauge::new(i64::try_from(figure).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, told, unit, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_process_are_found_behind_whatever_its_name_is() {
        let stat = "42 (a ) (b) S 1 42 42 0 -1 4194560 900 0 0 0 250 150 0 0 20 0 7 0 1000 8192000 300 0";
        let figures = Figures::of_stat(stat, Some(1_700_000_000));
        assert_eq!(
            figures,
            Figures {
                cpu_s: Some(4.0),
                threads: Some(7),
                start_s: Some(1_700_000_010.0),
                virtual_bytes: Some(8_192_000),
                ..Figures::default()
            }
        );
        assert_eq!(Figures::of_stat("nothing", None), Figures::default());
    }

    #[test]
    fn this_process_has_every_figure() {
        let own = Figures::read();
        assert!(own.resident_bytes.is_some_and(|bytes| bytes > 1024 * 1024));
        assert!(own.descriptors.is_some_and(|open| open >= 3));
        assert!(own.descriptors_max > own.descriptors);
        assert!(own.cpu_s.is_some() && own.start_s.is_some_and(|at| at > 1_600_000_000.0));
        assert!(own.threads.is_some_and(|threads| threads >= 1) && own.virtual_bytes > own.resident_bytes);
    }
}
