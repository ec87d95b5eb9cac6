//! A line of shell as a POSIX shell splits it, without expanding anything.

/// A piece of a line of shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    /// `&&`, `;`, `|`, `>`.
    Operator(String),
}

impl Token {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Word(text) | Self::Operator(text) => text,
        }
    }
}

/// The pieces of `line`. What the shell would fill in (`$NAME`, `$(command)`) stays one word as it is written.
pub(super) fn tokens(line: &str) -> std::result::Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(next) => word.get_or_insert_default().push(next),
            },
            '\'' | '"' => {
                let text = word.get_or_insert_default();
                quoted(&mut chars, c, text)?;
            }
            '$' if matches!(chars.peek(), Some('(' | '{')) => {
                let text = word.get_or_insert_default();
                text.push('$');
                bracketed(&mut chars, text)?;
            }
            '`' => {
                let text = word.get_or_insert_default();
                text.push('`');
                quoted(&mut chars, '`', text)?;
                text.push('`');
            }
            ';' | '|' | '&' | '<' | '>' | '\n' => {
                // In `2>&1` the number belongs to the operator.
                let number =
                    matches!(c, '<' | '>') && word.as_deref().is_some_and(|word| word.parse::<u8>().is_ok());
                let before = word.take();
                if !number {
                    tokens.extend(before.map(Token::Word));
                }
                let mut operator = String::from(c);
                while let Some(next) = chars.next_if(|next| matches!(next, '|' | '&' | '<' | '>')) {
                    operator.push(next);
                }
                tokens.push(Token::Operator(operator));
            }
            '#' if word.is_none() => while chars.next_if(|next| *next != '\n').is_some() {},
            c if c.is_whitespace() => tokens.extend(word.take().map(Token::Word)),
            c => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    Ok(tokens)
}

/// From the opening bracket to the one that closes it.
fn bracketed(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    word: &mut String,
) -> std::result::Result<(), String> {
    let mut depth = 0_u32;
    for c in chars {
        word.push(c);
        match c {
            '(' | '{' => depth += 1,
            ')' | '}' if depth > 1 => depth -= 1,
            ')' | '}' => return Ok(()),
            _ => {}
        }
    }
    Err("a $( or ${ is not closed".into())
}

fn quoted(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    quote: char,
    word: &mut String,
) -> std::result::Result<(), String> {
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match chars.next() {
                Some(next @ ('"' | '\\' | '$' | '`')) => word.push(next),
                Some('\n') | None => {}
                Some(next) => word.extend(['\\', next]),
            },
            c => word.push(c),
        }
    }
    Err(format!("a quote {quote} is not closed"))
}
