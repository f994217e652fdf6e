#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| walsender::fuzzing::client_bytes(data));
