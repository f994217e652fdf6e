#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| walsender::fuzzing::verifier_file(data));
