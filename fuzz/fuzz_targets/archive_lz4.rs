#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| walsender::fuzzing::archive_lz4(data));
