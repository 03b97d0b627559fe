//! Every path that a source file mentions, spelled out from the crate's root or from another crate's.

#[path = "lexer.rs"]
mod lexer;

use lexer::{Token, tokens};
use std::collections::{BTreeMap, BTreeSet};

/// Something that a source mentions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mention {
    /// The line that it is on, from 1.
    pub(crate) line: usize,
    /// `crate::wire::frame`, `std::fs::read`; a macro `name!` or `std::name!`; a method `.name`.
    pub(crate) path: String,
}

/// What the file of `module` (its path from the crate's root) mentions outside its tests.
pub(crate) fn mentions(module: &[&str], source: &str) -> Vec<Mention> {
    let tokens = tokens(source);
    let mut reader = Reader {
        tokens: &tokens,
        position: 0,
        scope: module.iter().map(|&name| name.to_owned()).collect(),
        braces: Vec::new(),
        raw: Vec::new(),
        names: BTreeMap::new(),
        children: BTreeSet::new(),
    };
    while reader.position < tokens.len() {
        reader.step();
    }
    reader.resolved()
}

/// The names of the modules that a source declares in files of their own, tests aside.
pub(crate) fn declared(source: &str) -> Vec<String> {
    let tokens = tokens(source);
    tokens
        .windows(3)
        .filter(|window| window[0].text == "mod" && window[1].is_word() && window[2].text == ";")
        .map(|window| window[1].text.clone())
        .collect()
}

struct Reader<'a> {
    tokens: &'a [Token],
    position: usize,
    /// The module that the reader is in.
    scope: Vec<String>,
    /// For every open brace, whether it is that of a module.
    braces: Vec<bool>,
    raw: Vec<(usize, Vec<String>)>,
    /// What `use` gives a name to. One table for the whole file: rather a false alarm than a hole.
    names: BTreeMap<String, Vec<String>>,
    /// Modules that the file declares.
    children: BTreeSet<Vec<String>>,
}

impl Reader<'_> {
    fn text(&self, ahead: usize) -> &str {
        self.tokens.get(self.position + ahead).map_or("", |token| token.text.as_str())
    }

    fn before(&self) -> &str {
        self.position.checked_sub(1).map_or("", |position| self.tokens[position].text.as_str())
    }

    fn is_word(&self, ahead: usize) -> bool {
        self.tokens.get(self.position + ahead).is_some_and(Token::is_word)
    }

    fn line(&self) -> usize {
        self.tokens.get(self.position).map_or(0, |token| token.line)
    }

    fn step(&mut self) {
        match self.text(0) {
            "{" => self.open(false),
            "}" => {
                if self.braces.pop() == Some(true) {
                    self.scope.pop();
                }
                self.position += 1;
            }
            "mod" if self.is_word(1) => {
                let name = self.text(1).to_owned();
                self.children.insert([&self.scope[..], std::slice::from_ref(&name)].concat());
                self.position += 2;
                if self.text(0) == "{" {
                    self.scope.push(name);
                    self.open(true);
                }
            }
            "use" if self.text(1) != "<" => {
                self.position += 1;
                self.use_tree(Vec::new());
            }
            "extern" if self.text(1) == "crate" => self.extern_crate(),
            "." if self.is_word(1) && self.text(2) == "(" => {
                let method = vec![format!(".{}", self.text(1))];
                self.raw.push((self.line(), method));
                self.position += 2;
            }
            "::" if self.before() != ">" => self.path(),
            _ if self.is_word(0) && self.before() != "." => self.path(),
            _ => self.position += 1,
        }
    }

    fn open(&mut self, module: bool) {
        self.braces.push(module);
        self.position += 1;
    }

    fn extern_crate(&mut self) {
        let line = self.line();
        let name = self.text(2).to_owned();
        self.position += 3;
        let root = if name == "self" { "crate".to_owned() } else { format!("::{name}") };
        let alias = self.alias().unwrap_or(name);
        self.names.insert(alias, vec![root.clone()]);
        self.raw.push((line, vec![root]));
    }

    /// `as name`, when it is there.
    fn alias(&mut self) -> Option<String> {
        if self.text(0) != "as" {
            return None;
        }
        let name = self.text(1).to_owned();
        self.position += 2;
        Some(name)
    }

    /// One branch of a `use`, whose beginning is `prefix`.
    fn use_tree(&mut self, prefix: Vec<String>) {
        let line = self.line();
        let mut path = prefix;
        loop {
            match self.text(0) {
                "::" => {
                    self.position += 1;
                    if path.is_empty() && self.is_word(0) {
                        path.push(format!("::{}", self.text(0)));
                        self.position += 1;
                    }
                }
                "{" => {
                    self.position += 1;
                    while !matches!(self.text(0), "}" | "" | ";") {
                        self.use_tree(path.clone());
                        if self.text(0) == "," {
                            self.position += 1;
                        }
                    }
                    self.position += 1;
                    return;
                }
                "*" => {
                    path.push("*".to_owned());
                    self.position += 1;
                }
                // `$crate`.
                "$" => self.position += 1,
                "self" if !path.is_empty() => self.position += 1,
                _ if self.is_word(0) && self.text(0) != "as" => {
                    path.push(self.text(0).to_owned());
                    self.position += 1;
                }
                "as" | "," | "}" | ";" | "" => break,
                // Nothing that a `use` may have: a macro's pattern, perhaps.
                _ => self.position += 1,
            }
        }
        let name = self.alias().or_else(|| path.last().cloned());
        let path = self.rooted(path);
        self.names.extend(name.map(|name| (name, path.clone())));
        self.raw.push((line, path));
    }

    /// A path in an expression, a type or a pattern; or a macro.
    fn path(&mut self) {
        let line = self.line();
        let mut path = Vec::new();
        if self.text(0) == "::" {
            self.position += 1;
            path.push(format!("::{}", self.text(0)));
        } else {
            path.push(self.text(0).to_owned());
        }
        self.position += 1;
        while self.text(0) == "::" && self.is_word(1) {
            path.push(self.text(1).to_owned());
            self.position += 2;
        }
        let is_macro = self.text(0) == "!" && matches!(self.text(1), "(" | "[" | "{");
        if let Some(last) = path.last_mut().filter(|_| is_macro) {
            last.push('!');
        }
        if path.len() > 1 || is_macro || path[0].starts_with("::") {
            self.raw.push((line, self.rooted(path)));
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

    /// Replaces names that `use` gave by what they stand for, and the crate's own name by `crate`.
    fn spell_out(&self, path: &[String]) -> Vec<String> {
        let mut path = path.to_vec();
        // Names may stand for names; a bound takes care of those that stand for themselves.
        for _ in 0..8 {
            let first = path[0].clone();
            if let Some(krate) = first.strip_prefix("::") {
                path[0] = krate.to_owned();
                break;
            }
            if self.children.iter().any(|child| child.last() == Some(&first)) {
                let child = self.children.iter().find(|child| child.last() == Some(&first));
                let child = child.expect("one was just found");
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
