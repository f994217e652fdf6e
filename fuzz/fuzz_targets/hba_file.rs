#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| walsender::fuzzing::hba_file(data));
