//! The attribute macros of `ramie`: `#[ramie::main]` and `#[ramie::test]`.
