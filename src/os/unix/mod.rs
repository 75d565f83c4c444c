//! What only Unix has, arranged as in [`std::os::unix`].
#![forbid(unsafe_code)]

pub mod fs;
pub mod net;
