//! The embark operator. For now it prints the CustomResourceDefinition that it will reconcile.

pub mod args;
