#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| walsender::fuzzing::sasl_messages(data));
