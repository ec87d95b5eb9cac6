//! Request heads: see `quintet_fuzz::head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quintet_fuzz::head(data));
