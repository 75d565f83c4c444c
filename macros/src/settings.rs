//! The arguments of the attributes: each is a setter of `RuntimeBuilder` and its value.

use crate::{Kind, Mistake};
use proc_macro::{Delimiter, Group, Ident, Punct, Spacing, Span, TokenStream, TokenTree};

/// The setters that may be named.
const SETTERS: [&str; 8] = [
    "workers",
    "stack_size",
    "ring_entries",
    "blocking_threads",
    "spin",
    "shutdown_timeout",
    "wake",
    "thread_name",
];

/// Tokens of a `RuntimeBuilder` to which the arguments have been applied.
pub(crate) fn builder(kind: Kind, args: TokenStream) -> Result<TokenStream, Mistake> {
    let mut builder: TokenStream = "::ramie::Runtime::builder()".parse().expect("tokens");
    let mut seen: Vec<String> = Vec::new();
    let mut args = args.into_iter().peekable();
    while let Some(token) = args.next() {
        let TokenTree::Ident(name) = token else {
            return Err(Mistake::new(
                token.span(),
                format!("expected an argument such as `workers = 2`, found `{token}`"),
            ));
        };
        let text = name.to_string();
        if !SETTERS.contains(&text.as_str()) {
            let text = format!(
                "unknown argument `{text}` of #[{}]: there are {}",
                kind.name(),
                SETTERS.map(|setter| format!("`{setter}`")).join(", ")
            );
            return Err(Mistake::new(name.span(), text));
        }
        if seen.contains(&text) {
            return Err(Mistake::new(name.span(), format!("`{text}` is given twice")));
        }
        match args.next() {
            Some(TokenTree::Punct(punct)) if punct.as_char() == '=' => {}
            other => {
                let at = other.map_or(name.span(), |token| token.span());
                return Err(Mistake::new(at, format!("`{text}` needs a value: `{text} = ...`")));
            }
        }
        let is_comma =
            |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ',');
        let value: TokenStream =
            std::iter::from_fn(|| args.next_if(|token| !is_comma(token))).collect();
        if value.is_empty() {
            return Err(Mistake::new(
                name.span(),
                format!("`{text}` needs a value: `{text} = ...`"),
            ));
        }
        args.next(); // the comma
        builder.extend(setter(name, value));
        seen.push(text);
    }
    Ok(builder)
}

/// `.name(value)`, with the spans that an error in the value should be reported at.
fn setter(name: Ident, value: TokenStream) -> [TokenTree; 3] {
    let at = value.clone().into_iter().next().map_or(name.span(), |token| token.span());
    let mut dot = Punct::new('.', Spacing::Alone);
    dot.set_span(name.span());
    let mut argument = Group::new(Delimiter::Parenthesis, value);
    argument.set_span(at);
    // Resolved where the builder is, whatever the user's scope has.
    let name = Ident::new(&name.to_string(), name.span().resolved_at(Span::mixed_site()));
    [dot.into(), name.into(), argument.into()]
}
