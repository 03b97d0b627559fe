//! Text that comes from elsewhere, such as the name of a file in a set, made fit for a terminal and for a line of the log.

use std::borrow::Cow;

/// The text on one line. What would steer the terminal, end the line, or turn the order of what stands in it, is escaped: control
/// characters as in `\u{1b}`, and the controls of bidirectional text (Unicode Standard Annex #9, section 2).
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_hidden(character) {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
    }
    Cow::Owned(escaped)
}

fn is_hidden(character: char) -> bool {
    // U+2028 and U+2029 separate lines and paragraphs.
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_people_stays_as_it_is() {
        for text in ["", "a b\\c", "grün, 日本, עברית", "👩\u{200d}🚀"] {
            assert!(matches!(visible(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        for (text, escaped) in [
            ("\u{1b}[2Ja", "\\u{1b}[2Ja"),
            ("a\nelver: error", "a\\nelver: error"),
            ("\r\t\0\u{7f}", "\\r\\t\\u{0}\\u{7f}"),
            ("\u{9b}2J", "\\u{9b}2J"),
        ] {
            assert_eq!(visible(text), escaped);
        }
    }

    #[test]
    fn what_turns_the_order_of_text_is_escaped() {
        for control in ('\u{202a}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}')
            .chain(['\u{200e}', '\u{200f}', '\u{61c}'])
        {
            assert_eq!(
                visible(&format!("a{control}fdp.exe")),
                format!("a\\u{{{:x}}}fdp.exe", u32::from(control))
            );
        }
    }
}
