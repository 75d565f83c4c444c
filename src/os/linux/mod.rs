//! What only Linux has, arranged as in [`std::os::linux`].

pub mod net;
