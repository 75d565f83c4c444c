//! A function's parts, and the function that runs the same block on a fiber.

use crate::{Kind, Mistake};
use proc_macro::{Delimiter, Group, Ident, Punct, Spacing, Span, TokenStream, TokenTree};

/// A function without parameters, taken apart.
pub(crate) struct Function {
    /// Attributes, visibility and qualifiers: all before `fn`.
    before: Vec<TokenTree>,
    fn_token: Ident,
    name: Ident,
    parameters: Group,
    /// The return type, if there is one, without the arrow.
    returns: Vec<TokenTree>,
    body: Group,
}

fn is_punct(token: &TokenTree, c: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == c)
}

fn is_ident(token: &TokenTree, name: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident.to_string() == name)
}

fn puncts(text: &str, at: Span) -> Vec<TokenTree> {
    let last = text.len() - 1;
    let spacing = |place| if place == last { Spacing::Alone } else { Spacing::Joint };
    text.char_indices()
        .map(|(place, c)| {
            let mut punct = Punct::new(c, spacing(place));
            punct.set_span(at);
            punct.into()
        })
        .collect()
}

impl Function {
    /// Takes a function apart. The name comes back with a mistake if it was found.
    pub(crate) fn parse(kind: Kind, item: TokenStream) -> Result<Self, (Mistake, Option<Ident>)> {
        let attribute = kind.name();
        let no_function = |at: Span| {
            let text = format!("#[{attribute}] belongs on a function: `fn name() {{ ... }}`");
            (Mistake::new(at, text), None)
        };
        let mut tokens = item.into_iter();
        let mut before = Vec::new();
        let fn_token = loop {
            match tokens.next() {
                Some(TokenTree::Ident(ident)) if ident.to_string() == "fn" => break ident,
                Some(token) => before.push(token),
                None => {
                    let at = before.first().map_or_else(Span::call_site, TokenTree::span);
                    return Err(no_function(at));
                }
            }
        };
        let Some(TokenTree::Ident(name)) = tokens.next() else {
            return Err(no_function(fn_token.span()));
        };
        let wrong = |at: Span, text: String| (Mistake::new(at, text), Some(name.clone()));
        if let Some(token) = before.iter().find(|token| is_ident(token, "async")) {
            return Err(wrong(
                token.span(),
                format!(
                    "#[{attribute}] runs a plain function as a fiber, which waits by suspending: \
                     remove `async`"
                ),
            ));
        }
        if kind == Kind::Test
            && let Some(token) = find_attribute(&before, "test")
        {
            return Err(wrong(
                token.span(),
                format!("#[{attribute}] makes the function a test already: remove #[test]"),
            ));
        }
        let parameters = match tokens.next() {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => group,
            other => {
                let at = other.map_or(name.span(), |token| token.span());
                return Err(wrong(at, format!("a function with #[{attribute}] is not generic")));
            }
        };
        if let Some(token) = parameters.stream().into_iter().next() {
            return Err(wrong(
                token.span(),
                format!("a function with #[{attribute}] has no parameters: nobody would pass any"),
            ));
        }
        let mut rest: Vec<TokenTree> = tokens.collect();
        let body = match rest.pop() {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => group,
            other => {
                let at = other.map_or(name.span(), |token| token.span());
                return Err(wrong(at, format!("a function with #[{attribute}] needs a body")));
            }
        };
        if let Some(token) = rest.iter().find(|token| is_ident(token, "where")) {
            return Err(wrong(
                token.span(),
                format!("a function with #[{attribute}] is not generic"),
            ));
        }
        let returns = if rest.is_empty() { rest } else { rest.split_off(2) };
        Ok(Self { before, fn_token, name, parameters, returns, body })
    }

    pub(crate) fn name(&self) -> &Ident {
        &self.name
    }

    /// The function that builds a runtime and runs the block on it.
    pub(crate) fn run_on(self, kind: Kind, builder: TokenStream) -> TokenStream {
        let (inner, block) = split_inner_attributes(&self.body);
        let build = call("::ramie::RuntimeBuilder::build", builder);
        let mut tokens = TokenStream::new();
        if kind == Kind::Test {
            tokens.extend(parse("#[::core::prelude::v1::test]"));
        }
        tokens.extend(inner);
        tokens.extend(self.before);
        tokens.extend::<[TokenTree; 3]>([
            self.fn_token.into(),
            self.name.into(),
            self.parameters.into(),
        ]);
        if !self.returns.is_empty() {
            tokens.extend(puncts("->", self.body.span_open()));
            tokens.extend(self.returns.iter().cloned());
        }

        let mut closure: TokenStream = puncts("||", Span::mixed_site()).into_iter().collect();
        // `?` in the block has to know what it converts to. A closure cannot say `impl Trait`, but
        // then the block says the type.
        if self.returns.first().is_some_and(|first| !is_ident(first, "impl")) {
            closure.extend(puncts("->", self.body.span_open()));
            closure.extend(self.returns);
        }
        closure.extend([TokenTree::Group(block)]);

        let mut run = parse("&runtime,");
        run.extend(closure);
        let mut arms = parse("::core::result::Result::Ok(runtime) =>");
        arms.extend(call("::ramie::Runtime::run", run));
        arms.extend(parse(match kind {
            Kind::Main => {
                ", ::core::result::Result::Err(error) => {
                    ::std::eprintln!(\"cannot start the runtime: {}\", error);
                    ::std::process::exit(1)
                }"
            }
            Kind::Test => {
                ", ::core::result::Result::Err(error) => {
                    ::core::panic!(\"cannot start the runtime: {}\", error)
                }"
            }
        }));
        let mut body = parse("match");
        body.extend(build);
        body.extend([TokenTree::Group(Group::new(Delimiter::Brace, arms))]);
        let mut body = Group::new(Delimiter::Brace, body);
        body.set_span(self.body.span().resolved_at(Span::mixed_site()));
        tokens.extend([TokenTree::Group(body)]);
        tokens
    }
}

/// Parses our own text. Its names cannot be seen by the user's block, nor the other way round.
fn parse(text: &str) -> TokenStream {
    fn hygienic(tokens: TokenStream) -> TokenStream {
        tokens
            .into_iter()
            .map(|token| {
                let mut token = match token {
                    TokenTree::Group(group) => {
                        Group::new(group.delimiter(), hygienic(group.stream())).into()
                    }
                    other => other,
                };
                token.set_span(Span::mixed_site());
                token
            })
            .collect()
    }
    hygienic(text.parse().expect("our own tokens are right"))
}

fn call(function: &str, arguments: TokenStream) -> TokenStream {
    let mut tokens = parse(function);
    tokens.extend([TokenTree::Group(Group::new(Delimiter::Parenthesis, arguments))]);
    tokens
}

/// The name of an attribute `#[name]` or `#[name(...)]` among the tokens before a function.
fn find_attribute(before: &[TokenTree], name: &str) -> Option<TokenTree> {
    before.windows(2).find_map(|pair| match pair {
        [hash, TokenTree::Group(group)] if is_punct(hash, '#') => {
            let first = group.stream().into_iter().next()?;
            is_ident(&first, name).then_some(first)
        }
        _ => None,
    })
}

/// Takes `#![...]` out of a block, which could not keep them as a closure's, and turns them into
/// attributes of the function.
fn split_inner_attributes(body: &Group) -> (TokenStream, Group) {
    let mut attributes = TokenStream::new();
    let mut tokens: Vec<TokenTree> = body.stream().into_iter().collect();
    while tokens.len() >= 3 && is_punct(&tokens[0], '#') && is_punct(&tokens[1], '!') {
        let rest = tokens.split_off(3);
        tokens.remove(1);
        attributes.extend(tokens);
        tokens = rest;
    }
    let mut block = Group::new(Delimiter::Brace, tokens.into_iter().collect());
    block.set_span(body.span());
    (attributes, block)
}
