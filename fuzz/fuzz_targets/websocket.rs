//! A WebSocket client's bytes: see `quintet_fuzz::websocket`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quintet_fuzz::websocket(data));
