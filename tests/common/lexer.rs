//! Rust source as a list of words and marks, without comments, literals, and what is only there for tests.

/// A word or a mark of the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    /// An identifier (raw ones without their `r#`), `::`, or a single character. Literals are `""`.
    pub(crate) text: String,
    /// The line that it is on, from 1.
    pub(crate) line: usize,
}

impl Token {
    /// Whether it is an identifier or a keyword.
    pub(crate) fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c == '_' || c.is_alphabetic())
    }
}

/// The tokens of `source` that are compiled outside tests.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: source.chars().collect(), position: 0, line: 1, tokens: Vec::new() };
    while lexer.step() {}
    without_tests(&lexer.tokens)
}

struct Lexer {
    chars: Vec<char>,
    position: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.position + ahead).copied().unwrap_or('\0')
    }

    fn advance(&mut self, count: usize) {
        let end = (self.position + count).min(self.chars.len());
        self.line += self.chars[self.position..end].iter().filter(|&&c| c == '\n').count();
        self.position = end;
    }

    fn push(&mut self, text: String) {
        self.tokens.push(Token { text, line: self.line });
    }

    fn step(&mut self) -> bool {
        if self.position == self.chars.len() {
            return false;
        }
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => self.skip_while(|c| c != '\n'),
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(),
            ('\'', _) => self.quote(),
            (':', ':') => {
                self.push("::".to_owned());
                self.advance(2);
            }
            (c, _) if c.is_whitespace() => self.advance(1),
            (c, _) if c == '_' || c.is_alphabetic() => self.word(),
            (c, _) if c.is_ascii_digit() => self.number(),
            (c, _) => {
                self.push(c.to_string());
                self.advance(1);
            }
        }
        true
    }

    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) {
        while self.position < self.chars.len() && wanted(self.peek(0)) {
            self.advance(1);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.position < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    self.advance(1);
                    continue;
                }
            }
            self.advance(2);
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.push("\"\"".to_owned());
        self.advance(1);
        while self.position < self.chars.len() && self.peek(0) != '"' {
            self.advance(if self.peek(0) == '\\' { 2 } else { 1 });
        }
        self.advance(1);
    }

    fn raw_string(&mut self, hashes: usize) {
        self.push("\"\"".to_owned());
        self.advance(hashes + 1);
        while self.position < self.chars.len() {
            let closes = self.peek(0) == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == '#');
            self.advance(if closes { hashes + 1 } else { 1 });
            if closes {
                return;
            }
        }
    }

    /// A character or a lifetime.
    fn quote(&mut self) {
        if self.peek(1) == '\\' {
            self.push("\"\"".to_owned());
            self.advance(3);
            self.skip_while(|c| c != '\'');
            self.advance(1);
        } else if self.peek(2) == '\'' {
            self.push("\"\"".to_owned());
            self.advance(3);
        } else {
            self.advance(1);
            self.skip_while(|c| c == '_' || c.is_alphanumeric());
        }
    }

    fn word(&mut self) {
        let from = self.position;
        let line = self.line;
        self.skip_while(|c| c == '_' || c.is_alphanumeric());
        let text: String = self.chars[from..self.position].iter().collect();
        let hashes = (0..).take_while(|&ahead| self.peek(ahead) == '#').count();
        match text.as_str() {
            "r" | "br" | "cr" if self.peek(hashes) == '"' => self.raw_string(hashes),
            "b" | "c" if self.peek(0) == '"' => self.string(),
            "b" if self.peek(0) == '\'' => self.quote(),
            "r" if hashes == 1 => self.advance(1),
            _ => self.tokens.push(Token { text, line }),
        }
    }

    fn number(&mut self) {
        self.push("\"\"".to_owned());
        self.skip_while(|c| c == '_' || c.is_alphanumeric());
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            self.advance(1);
            self.skip_while(|c| c == '_' || c.is_alphanumeric());
        }
    }
}

/// Drops every item, statement, field or arm under an attribute that is only fulfilled in tests.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut position = 0;
    while position < tokens.len() {
        match attribute(tokens, position) {
            Some(Attribute { inner: true, test_only: true, .. }) => return kept,
            Some(Attribute { inner: false, test_only: true, end }) => position = item_end(tokens, end),
            Some(Attribute { end, .. }) => {
                kept.extend_from_slice(&tokens[position..end]);
                position = end;
            }
            None => {
                kept.push(tokens[position].clone());
                position += 1;
            }
        }
    }
    kept
}

struct Attribute {
    /// `#![…]`: it is about what it stands in.
    inner: bool,
    test_only: bool,
    end: usize,
}

fn text(tokens: &[Token], position: usize) -> &str {
    tokens.get(position).map_or("", |token| token.text.as_str())
}

fn attribute(tokens: &[Token], position: usize) -> Option<Attribute> {
    if text(tokens, position) != "#" {
        return None;
    }
    let inner = text(tokens, position + 1) == "!";
    let open = position + 1 + usize::from(inner);
    if text(tokens, open) != "[" {
        return None;
    }
    let end = group_end(tokens, open);
    let test_only = match (text(tokens, open + 1), text(tokens, open + 2)) {
        ("cfg", "(") => requires_test(&tokens[open + 3..end.saturating_sub(2).max(open + 3)]),
        ("test", "]") => true,
        _ => false,
    };
    Some(Attribute { inner, test_only, end })
}

/// Whether a `cfg` predicate can only hold in tests: `test`, or `all(…)` with such a part.
fn requires_test(predicate: &[Token]) -> bool {
    match (text(predicate, 0), predicate.len()) {
        ("test", 1) => true,
        ("all", _) if text(predicate, 1) == "(" => {
            let inside = &predicate[2..predicate.len().saturating_sub(1).max(2)];
            let mut depth = 0;
            inside
                .split(|token| {
                    match token.text.as_str() {
                        "(" => depth += 1,
                        ")" => depth -= 1,
                        _ => {}
                    }
                    depth == 0 && token.text == ","
                })
                .any(requires_test)
        }
        _ => false,
    }
}

/// Just after the group that opens at `open`.
fn group_end(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (position, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return position + 1;
        }
    }
    tokens.len()
}

/// Just after the item, statement, field or arm that starts at `position`, further attributes included.
fn item_end(tokens: &[Token], mut position: usize) -> usize {
    while let Some(Attribute { inner: false, end, .. }) = attribute(tokens, position) {
        position = end;
    }
    const ITEMS: &[&str] = &[
        "async",
        "const",
        "enum",
        "extern",
        "fn",
        "impl",
        "let",
        "macro_rules",
        "mod",
        "pub",
        "static",
        "struct",
        "trait",
        "type",
        "union",
        "unsafe",
        "use",
    ];
    let is_item = ITEMS.contains(&text(tokens, position));
    while position < tokens.len() {
        match text(tokens, position) {
            ";" => return position + 1,
            "," if !is_item => return position + 1,
            // The end of what the field or the arm stands in.
            ")" | "]" | "}" => return position,
            "{" => return group_end(tokens, position),
            "(" | "[" => position = group_end(tokens, position),
            _ => position += 1,
        }
    }
    position
}
