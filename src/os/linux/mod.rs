//! What only Linux has, arranged as in [`std::os::linux`].
#![forbid(unsafe_code)]

pub mod fs;
pub mod net;
