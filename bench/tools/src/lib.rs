//! What the binaries share: messages of HTTP/1.1, a server that answers by a function, and arguments.

pub mod arguments;
pub mod message;
pub mod server;
