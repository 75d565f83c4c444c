//! Coming from somewhere else, and what to rely on.
//!
//! | page | for whom |
//! |---|---|
//! | [`from_std`] | you have a program that uses threads |
//! | [`from_go`] | you think in goroutines |
//! | [`from_tokio`] | you have async code |
//! | [`soundness`] | you want to know what is guaranteed, and why |
//!
//! What a request to end does to each call is a table in [`cancel`](crate::cancel); what each
//! kernel lacks, and what is done instead, is in the README.
#![forbid(unsafe_code)]

#[doc = include_str!("from_std.md")]
pub mod from_std {}

#[doc = include_str!("from_go.md")]
pub mod from_go {}

#[doc = include_str!("from_tokio.md")]
pub mod from_tokio {}

#[doc = include_str!("soundness.md")]
pub mod soundness {}
