//! The same op as a plain system call.
