//! Every path that a source file mentions, spelled out from the crate's root or from another crate's.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, File, ImplItem, Item, Meta, Token, TraitItem, UseTree};

/// A path that a source file mentions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mention {
    /// Its line number, from 1.
    pub(crate) line: usize,
    /// `crate::wire::frame`, `std::fs::read`; a macro `name!` or `std::name!`; a method `.name`.
    pub(crate) path: String,
}

/// The paths that the file of `module` (its path from the crate's root) mentions outside its tests.
pub(crate) fn mentions(module: &[&str], file: &File) -> Vec<Mention> {
    let mut reader = Reader {
        scope: module.iter().map(|&name| name.to_owned()).collect(),
        names: BTreeMap::new(),
        children: BTreeSet::new(),
        raw: Vec::new(),
    };
    reader.visit_file(file);
    reader.resolved()
}

/// The names of the modules that a source declares in files of their own, tests aside.
pub(crate) fn declared(file: &File) -> Vec<String> {
    let declared = file.items.iter().filter_map(|item| match item {
        Item::Mod(item) if item.content.is_none() && !is_for_tests(&item.attrs) => Some(&item.ident),
        _ => None,
    });
    declared.map(|name| name.unraw().to_string()).collect()
}

/// Whether a `#[cfg(…)]` among the attributes is true in tests only.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<Meta>().is_ok_and(|predicate| implies_test(&predicate))
    })
}

/// Whether the predicate of a `cfg` is never true outside of tests.
fn implies_test(predicate: &Meta) -> bool {
    let Meta::List(list) = predicate else { return predicate.path().is_ident("test") };
    let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).unwrap_or_default();
    match predicate.path() {
        path if path.is_ident("all") => parts.iter().any(implies_test),
        path if path.is_ident("any") => !parts.is_empty() && parts.iter().all(implies_test),
        _ => false,
    }
}

struct Reader {
    /// The module that the reader is in.
    scope: Vec<String>,
    /// The paths that `use` gives names to. One table serves the whole file: a false alarm is better than a missed path.
    names: BTreeMap<String, Vec<String>>,
    /// Modules that the file declares.
    children: BTreeSet<Vec<String>>,
    raw: Vec<(usize, Vec<String>)>,
}

impl Visit<'_> for Reader {
    fn visit_item(&mut self, item: &Item) {
        let attributes = match item {
            Item::Const(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::ExternCrate(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Macro(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            Item::Type(item) => &item.attrs,
            Item::Union(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &ImplItem) {
        if !matches!(item, ImplItem::Fn(item) if is_for_tests(&item.attrs)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &TraitItem) {
        if !matches!(item, TraitItem::Fn(item) if is_for_tests(&item.attrs)) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &syn::Field) {
        if !is_for_tests(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_field_value(&mut self, field: &syn::FieldValue) {
        if !is_for_tests(&field.attrs) {
            visit::visit_field_value(self, field);
        }
    }

    fn visit_item_mod(&mut self, item: &syn::ItemMod) {
        self.scope.push(item.ident.unraw().to_string());
        self.children.insert(self.scope.clone());
        visit::visit_item_mod(self, item);
        self.scope.pop();
    }

    fn visit_item_extern_crate(&mut self, item: &syn::ItemExternCrate) {
        let name = item.ident.unraw().to_string();
        let root = if name == "self" { "crate".to_owned() } else { format!("::{name}") };
        let alias = item.rename.as_ref().map_or(name, |(_, alias)| alias.unraw().to_string());
        self.names.insert(alias, vec![root.clone()]);
        self.raw.push((line(item.ident.span()), vec![root]));
    }

    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        let prefix = if item.leading_colon.is_some() { vec!["::".to_owned()] } else { Vec::new() };
        self.use_tree(prefix, &item.tree);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let mut parts: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.unraw().to_string()).collect();
        // A lone name is local, or a `use` mentions its path.
        if parts.len() > 1 {
            if path.leading_colon.is_some() {
                parts[0].insert_str(0, "::");
            }
            self.mention(path.segments[0].ident.span(), parts);
        }
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &syn::ExprMethodCall) {
        self.raw.push((line(call.method.span()), vec![format!(".{}", call.method.unraw())]));
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, invoked: &syn::Macro) {
        let mut parts: Vec<String> =
            invoked.path.segments.iter().map(|segment| segment.ident.unraw().to_string()).collect();
        if let Some(last) = parts.last_mut() {
            last.push('!');
        }
        self.mention(invoked.path.segments[0].ident.span(), parts);
        self.tokens(&invoked.tokens);
    }

    fn visit_meta_list(&mut self, list: &syn::MetaList) {
        self.tokens(&list.tokens);
    }
}

impl Reader {
    fn mention(&mut self, span: Span, path: Vec<String>) {
        let path = self.rooted(path);
        self.raw.push((line(span), path));
    }

    /// One branch of a `use`, whose beginning is `prefix`.
    fn use_tree(&mut self, mut prefix: Vec<String>, tree: &UseTree) {
        let (name, alias) = match tree {
            UseTree::Path(path) => {
                extend(&mut prefix, &path.ident);
                return self.use_tree(prefix, &path.tree);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.use_tree(prefix.clone(), tree));
            }
            UseTree::Glob(glob) => {
                prefix.push("*".to_owned());
                return self.mention(glob.star_token.spans[0], prefix);
            }
            UseTree::Name(name) => (&name.ident, None),
            UseTree::Rename(rename) => (&rename.ident, Some(&rename.rename)),
        };
        // `{self}` at the end of a path stands for the path itself.
        if prefix.is_empty() || name != "self" {
            extend(&mut prefix, name);
        }
        let alias = alias.map(|alias| alias.unraw().to_string()).or_else(|| prefix.last().cloned());
        let path = self.rooted(prefix);
        self.names.extend(alias.map(|alias| (alias, path.clone())));
        self.raw.push((line(name.span()), path));
    }

    /// The inside of a macro or an attribute. Its syntax is the macro's own, so the reader searches the tokens for paths.
    fn tokens(&mut self, stream: &TokenStream) {
        let tokens: Vec<TokenTree> = stream.clone().into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            let start = at;
            let leading = is_path_separator(&tokens, at);
            at += if leading { 2 } else { 0 };
            let Some(TokenTree::Ident(first)) = tokens.get(at) else {
                if let TokenTree::Group(group) = &tokens[start] {
                    self.tokens(&group.stream());
                }
                at = start + 1;
                continue;
            };
            let (first, span) = (first.unraw().to_string(), first.span());
            let path = vec![if leading { format!("::{first}") } else { first }];
            at += 1;
            let after_dot = start.checked_sub(1).is_some_and(|before| is_punct(&tokens, before, '.'));
            if after_dot {
                if matches!(tokens.get(at), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis)
                {
                    self.raw.push((line(span), vec![format!(".{}", path[0])]));
                }
                continue;
            }
            at = self.path_in_tokens(span, path, &tokens, at);
        }
    }

    /// Reads the rest of a path that begins with `path` and continues at `at`. Returns the position after it.
    fn path_in_tokens(
        &mut self,
        span: Span,
        mut path: Vec<String>,
        tokens: &[TokenTree],
        mut at: usize,
    ) -> usize {
        while is_path_separator(tokens, at) {
            match tokens.get(at + 2) {
                Some(TokenTree::Ident(name)) => path.push(name.unraw().to_string()),
                Some(TokenTree::Punct(punct)) if punct.as_char() == '*' => path.push("*".to_owned()),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.branches_in_tokens(span, &path, &group.stream());
                    return at + 3;
                }
                _ => break,
            }
            at += 3;
        }
        let is_macro = is_punct(tokens, at, '!') && matches!(tokens.get(at + 1), Some(TokenTree::Group(_)));
        if let Some(last) = path.last_mut().filter(|_| is_macro) {
            last.push('!');
        }
        if path.len() > 1 || is_macro {
            self.mention(span, path);
        }
        at
    }

    /// `{a, b::c}` after a path.
    fn branches_in_tokens(&mut self, span: Span, prefix: &[String], branches: &TokenStream) {
        let tokens: Vec<TokenTree> = branches.clone().into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            if let TokenTree::Ident(name) = &tokens[at] {
                let path = [prefix, &[name.unraw().to_string()]].concat();
                at = self.path_in_tokens(span, path, &tokens, at + 1);
            } else {
                at += 1;
            }
        }
    }

    /// Replaces `self` and `super` at the beginning of a path.
    fn rooted(&self, path: Vec<String>) -> Vec<String> {
        let supers = path.iter().take_while(|part| *part == "super" || *part == "self").count();
        if supers == 0 {
            return path;
        }
        let up = path[..supers].iter().filter(|part| *part == "super").count();
        let scope = &self.scope[..self.scope.len().saturating_sub(up)];
        [&["crate".to_owned()], scope, &path[supers..]].concat()
    }

    fn resolved(self) -> Vec<Mention> {
        let spelled = |(line, path): &(usize, Vec<String>)| Mention {
            line: *line,
            path: self.spell_out(path).join("::"),
        };
        let mut mentions: Vec<Mention> = self.raw.iter().map(spelled).collect();
        mentions.dedup();
        mentions
    }

    /// Replaces names that `use` gave by the paths that they stand for, and the crate's own name by `crate`.
    fn spell_out(&self, path: &[String]) -> Vec<String> {
        let mut path = path.to_vec();
        // A name may stand for another name. The bound ends cycles of names.
        for _ in 0..8 {
            let first = path[0].clone();
            if let Some(krate) = first.strip_prefix("::") {
                path[0] = krate.to_owned();
                break;
            }
            if let Some(child) = self.children.iter().find(|child| child.last() == Some(&first)) {
                path = [&["crate".to_owned()], &child[..], &path[1..]].concat();
                break;
            }
            match self.names.get(&first) {
                Some(full) if full[0] != first => path = [&full[..], &path[1..]].concat(),
                _ => break,
            }
        }
        if path[0] == "elver" {
            path[0] = "crate".to_owned();
        }
        path
    }
}

/// Adds a name to a path. A leading `::` joins the name after it.
fn extend(path: &mut Vec<String>, name: &proc_macro2::Ident) {
    let name = name.unraw().to_string();
    match path.last_mut() {
        Some(last) if last == "::" => last.push_str(&name),
        _ => path.push(name),
    }
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens, at, ':') && is_punct(tokens, at + 1, ':')
}

fn is_punct(tokens: &[TokenTree], at: usize, expected: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == expected)
}

fn line(span: Span) -> usize {
    span.start().line
}
