//! The attribute macros of `ramie`, `#[ramie::main]` and `#[ramie::test]`; their documentation is
//! where users meet them, at `ramie`'s root.
//!
//! Both do the same to a function: its block becomes a closure that a runtime runs as its main
//! fiber. Nothing is renamed and the block keeps its spans, so errors in it point where they
//! should.
//!
//! ```text
//! #[ramie::main(workers = 2)]                fn main() -> Result<(), E> {
//! fn main() -> Result<(), E> {                   match RuntimeBuilder::build(
//!     body                            ──►            Runtime::builder().workers(2)) {
//! }                                                  Ok(runtime) => Runtime::run(&runtime,
//!                                                        || -> Result<(), E> { body }),
//!                                                    Err(error) => report(error),
//!                                                }
//!                                            }
//! ```
//!
//! Written with `proc_macro` alone: what has to be understood of a function is where its parts
//! begin, and that takes no parser.

mod function;
mod settings;

use function::Function;
use proc_macro::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};

/// See `ramie::main`.
#[proc_macro_attribute]
pub fn main(args: TokenStream, item: TokenStream) -> TokenStream {
    expand(Kind::Main, args, item)
}

/// See `ramie::test`.
#[proc_macro_attribute]
pub fn test(args: TokenStream, item: TokenStream) -> TokenStream {
    expand(Kind::Test, args, item)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Main,
    Test,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Main => "ramie::main",
            Kind::Test => "ramie::test",
        }
    }
}

/// A mistake in the user's code, and where.
struct Mistake {
    text: String,
    at: Span,
}

impl Mistake {
    fn new(at: Span, text: impl Into<String>) -> Self {
        Self { text: text.into(), at }
    }

    /// A `compile_error!` that points at the mistake.
    fn report(&self) -> TokenStream {
        let text = TokenTree::Literal(proc_macro::Literal::string(&self.text));
        let call: TokenStream = "::core::compile_error!{}".parse().expect("tokens");
        call.into_iter()
            .map(|token| match token {
                TokenTree::Group(_) => {
                    TokenTree::Group(Group::new(Delimiter::Brace, text.clone().into()))
                }
                other => other,
            })
            .map(|mut token| {
                token.set_span(self.at);
                token
            })
            .collect()
    }
}

fn expand(kind: Kind, args: TokenStream, item: TokenStream) -> TokenStream {
    let function = match Function::parse(kind, item) {
        Ok(function) => function,
        Err((mistake, name)) => return with_stub(kind, &mistake, name),
    };
    match settings::builder(kind, args) {
        Ok(builder) => function.run_on(kind, builder),
        Err(mistake) => with_stub(kind, &mistake, Some(function.name().clone())),
    }
}

/// The report of a mistake, with an empty function in place of the user's: without one, the
/// compiler would complain that `main` is missing, too.
fn with_stub(kind: Kind, mistake: &Mistake, name: Option<Ident>) -> TokenStream {
    let mut tokens = mistake.report();
    if let (Kind::Main, Some(name)) = (kind, name) {
        let stub: TokenStream = "fn name() {}".parse().expect("tokens");
        tokens.extend(stub.into_iter().map(|token| match token {
            TokenTree::Ident(ident) if ident.to_string() == "name" => {
                TokenTree::Ident(name.clone())
            }
            other => other,
        }));
    }
    tokens
}
