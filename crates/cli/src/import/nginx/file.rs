//! The form of nginx.conf: words, quotes, blocks, comments, and files that are included.

use std::fs;
use std::path::Path;

/// Files that include each other in a circle end here; nobody nests deeper.
const DEPTH_MAX: usize = 8;

/// All files together; a configuration is a thousandth of it.
const DIRECTIVES_MAX: usize = 20_000;

/// `name args… ;` or `name args… { … }`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) args: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
    /// `line 12`, with the file's name when it was included.
    pub(super) place: String,
}

impl Directive {
    /// For notes: `line 12: listen 80`.
    pub(super) fn shown(&self) -> String {
        let args: String = self.args.iter().flat_map(|arg| [" ", arg]).collect();
        format!("{}: {}{args}", self.place, self.name)
    }

    /// The directives of its block.
    pub(super) fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// The first directive of that name in its block.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        self.inside().iter().find(|directive| directive.name == name)
    }
}

/// Reads a file's text; `Err` says what is wrong with its form.
pub(super) fn parse(text: &str, dir: &Path) -> Result<Vec<Directive>, String> {
    let mut count = 0;
    parse_file(text, dir, "", 0, &mut count)
}

fn parse_file(
    text: &str,
    dir: &Path,
    name: &str,
    depth: usize,
    count: &mut usize,
) -> Result<Vec<Directive>, String> {
    let mut tokens =
        tokens(text).map_err(|why| if name.is_empty() { why } else { format!("{name}: {why}") })?;
    tokens.reverse();
    let mut directives = block(&mut tokens, name, 0, count)?;
    if let Some((line, _)) = tokens.last() {
        return Err(format!("line {line}: a block is closed that was not opened"));
    }
    follow(&mut directives, dir, depth, count)?;
    Ok(directives)
}

/// Replaces `include` by what it includes, where the file is beside.
fn follow(
    directives: &mut Vec<Directive>,
    dir: &Path,
    depth: usize,
    count: &mut usize,
) -> Result<(), String> {
    let mut followed = Vec::new();
    for mut directive in std::mem::take(directives) {
        if let Some(inner) = &mut directive.block {
            follow(inner, dir, depth, count)?;
        }
        let files = if directive.name == "include" && depth < DEPTH_MAX {
            included(&directive, dir)
        } else {
            Vec::new()
        };
        if files.is_empty() {
            followed.push(directive);
            continue;
        }
        for (name, text) in files {
            followed.extend(parse_file(&text, dir, &name, depth + 1, count)?);
        }
    }
    *directives = followed;
    Ok(())
}

/// The files that an include names, as far as they lie beside; lists of parameters are none of our business.
fn included(directive: &Directive, dir: &Path) -> Vec<(String, String)> {
    let Some(named) = directive.args.first() else { return Vec::new() };
    let beside = named.strip_prefix("/etc/nginx/").unwrap_or(named);
    if is_parameters(beside) {
        return Vec::new();
    }
    let pattern = dir.join(beside);
    let Some(file_pattern) = pattern.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let parent = pattern.parent().unwrap_or(dir);
    let mut names: Vec<String> = if file_pattern.contains('*') {
        fs::read_dir(parent)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| ctl_config::pool::pattern_matches(file_pattern, name))
            .collect()
    } else {
        vec![file_pattern.to_owned()]
    };
    names.sort();
    let read = |name: String| {
        let path = parent.join(&name);
        let small =
            fs::metadata(&path).is_ok_and(|data| data.is_file() && data.len() <= super::super::BYTES_MAX);
        small.then(|| fs::read_to_string(&path).ok().map(|text| (name, text))).flatten()
    };
    names.into_iter().filter_map(read).collect()
}

/// Files that every nginx has: types and parameters.
pub(super) fn is_parameters(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file == "mime.types" || file.ends_with("_params") || file == "fastcgi.conf"
}

/// Lines and texts; `;`, `{` and `}` stand alone. A quoted word is never one of them.
type Tokens = Vec<(usize, Token)>;

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    End,
    Open,
    Close,
}

fn block(tokens: &mut Tokens, file: &str, level: usize, count: &mut usize) -> Result<Vec<Directive>, String> {
    /// Nobody nests deeper, and the stack has an end.
    const LEVEL_MAX: usize = 16;
    let mut directives = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut first_line = 0;
    while let Some((line, token)) = tokens.pop() {
        match token {
            Token::Word(word) => {
                if words.is_empty() {
                    first_line = line;
                }
                words.push(word);
            }
            Token::Close if words.is_empty() && level > 0 => return Ok(directives),
            Token::Close => {
                return Err(format!("line {line}: a }} that closes nothing, or a ; is missing before it"));
            }
            token => {
                *count += 1;
                if *count > DIRECTIVES_MAX || level >= LEVEL_MAX {
                    return Err(format!("line {line}: there is too much of it"));
                }
                if words.is_empty() {
                    // `;` alone is allowed.
                    if token == Token::End {
                        continue;
                    }
                    return Err(format!("line {line}: a block without a name"));
                }
                let name = words.remove(0);
                let place = if file.is_empty() {
                    format!("line {first_line}")
                } else {
                    format!("{file}:{first_line}")
                };
                let mut directive = Directive { name, args: std::mem::take(&mut words), block: None, place };
                if token == Token::Open {
                    directive.block = Some(block(tokens, file, level + 1, count)?);
                }
                directives.push(directive);
            }
        }
    }
    match words.first() {
        Some(word) => Err(format!("line {first_line}: after \"{word}\" the ; is missing")),
        None if level > 0 => Err("a block is not closed".into()),
        None => Ok(directives),
    }
}

fn tokens(text: &str) -> Result<Tokens, String> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                if let Some(next) = chars.next() {
                    word.get_or_insert_default().extend(['\\', next]);
                }
            }
            '"' | '\'' if word.is_none() => {
                tokens.push((line, Token::Word(quoted(&mut chars, c, &mut line)?)));
            }
            '#' if word.is_none() => while chars.next_if(|next| *next != '\n').is_some() {},
            // `${name}` is a variable, not a block.
            '{' if word.as_deref().is_some_and(|word| word.ends_with('$')) => {
                let text = word.get_or_insert_default();
                text.push('{');
                while let Some(next) = chars.next_if(|next| !next.is_whitespace()) {
                    text.push(next);
                    if next == '}' {
                        break;
                    }
                }
            }
            ';' | '{' | '}' => {
                tokens.extend(word.take().map(|word| (line, Token::Word(word))));
                let token = match c {
                    ';' => Token::End,
                    '{' => Token::Open,
                    _ => Token::Close,
                };
                tokens.push((line, token));
            }
            c if c.is_whitespace() => {
                tokens.extend(word.take().map(|word| (line, Token::Word(word))));
                line += usize::from(c == '\n');
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(|word| (line, Token::Word(word))));
    Ok(tokens)
}

fn quoted(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    quote: char,
    line: &mut usize,
) -> Result<String, String> {
    let start = *line;
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok(text),
            '\\' => text.extend(chars.next()),
            c => {
                *line += usize::from(c == '\n');
                text.push(c);
            }
        }
    }
    Err(format!("line {start}: a quote {quote} is not closed"))
}
