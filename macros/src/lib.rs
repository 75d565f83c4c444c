//! The attribute macros of `ramie`: `#[ramie::main]` and `#[ramie::test]`.
use proc_macro::TokenStream;
/// main
#[proc_macro_attribute]
pub fn main(_args: TokenStream, item: TokenStream) -> TokenStream {
    item
}
/// test
#[proc_macro_attribute]
pub fn test(_args: TokenStream, item: TokenStream) -> TokenStream {
    item
}
