#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millgate_gateway::oracles::snapshot(bytes));
