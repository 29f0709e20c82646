#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::ingest_rules(data));
