//! The node.
pub mod command;
