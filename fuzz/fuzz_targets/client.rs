//! Forwarded headers: see `quintet_fuzz::client`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quintet_fuzz::client(data));
