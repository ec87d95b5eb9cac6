//! PROXY protocol headers: see `quintet_fuzz::proxy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quintet_fuzz::proxy(data));
