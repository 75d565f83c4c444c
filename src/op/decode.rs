//! From a kernel result to `io::Result`.
