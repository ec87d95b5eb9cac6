//! The `quintet` binary: nothing but the door to `cli`.

fn main() {}
