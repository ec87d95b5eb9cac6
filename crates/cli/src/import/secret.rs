//! What is printed goes into repositories and terminals: values that look like secrets are left out of it.

/// Pieces of names whose values nobody should read: of variables, flags and headers.
const NAMES: [&str; 10] =
    ["pass", "pwd", "secret", "token", "api-key", "apikey", "api_key", "credential", "private-key", "auth"];

/// Words that announce a secret as the next one.
const ANNOUNCE: [&str; 2] = ["bearer", "basic"];

/// Flags of curl and others behind which `user:password` stands.
const USERS: [&str; 2] = ["-u", "--user"];

/// What stands in the place of a secret.
const MARK: &str = "…";

/// `text`, a piece of a command line or of a configuration, without the values of variables (`SECRET_KEY=…`, as in a
/// shell), of flags with a telling name (`--password …`), and without the user and password of URLs.
pub(super) fn hidden(text: &str) -> String {
    let mut shown = String::new();
    let mut next_is_secret = false;
    let mut user_is_next = false;
    // Quotes hold words together: the one that is open, and the one behind which a secret ends.
    let (mut quote, mut secret): (Option<char>, Option<char>) = (None, None);
    for piece in text.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        let before = quote;
        quote = open(before, word);
        if secret.is_some() {
            secret = open(secret, word).filter(|_| before.is_none() || quote.is_some());
        } else {
            let plain = word.trim_matches(['"', '\'']);
            let follows = next_is_secret || user_is_next && word.contains(':');
            let hides = if follows && !word.is_empty() {
                shown.push_str(MARK);
                // After `Authorization:` come the scheme and the secret.
                next_is_secret = announces(plain);
                true
            } else {
                let hides = assignment(word, &mut shown);
                if !hides {
                    shown.push_str(&without_user(word));
                    next_is_secret = announces(plain) || plain.starts_with('-') && is_telling(plain);
                }
                hides
            };
            user_is_next = USERS.contains(&plain);
            if hides {
                secret = match before {
                    None => quote,
                    // Quotes within quotes: `sh -c 'TOKEN="a b" …'`.
                    Some(outer) => quote.and_then(|_| open(None, &word.replace(outer, ""))),
                };
            }
        }
        if secret.is_none() {
            shown.push_str(&piece[word.len()..]);
        }
    }
    shown
}

/// The quote that is open behind `word`, when `quote` was before it. A backslash at its end takes the next word in, too.
fn open(quote: Option<char>, word: &str) -> Option<char> {
    let mut quote = quote.filter(|quote| *quote != '\\');
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (None, '\\') if chars.next().is_none() => return Some('\\'),
            (Some('"'), '\\') => drop(chars.next()),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    quote
}

/// `Bearer …`, `Authorization: …`, `X-Api-Key: …`.
fn announces(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let is_header = word.ends_with(':') && (is_telling(&word) || word.contains("key"));
    is_header || ANNOUNCE.contains(&word.as_str())
}

fn is_telling(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|telling| name.contains(telling))
}

/// `NAME=value` of a shell, and `--password=value`; the settings module is no secret.
fn assignment(word: &str, shown: &mut String) -> bool {
    let Some((name, value)) = word.split_once('=') else { return false };
    let bare = name.trim_start_matches(['"', '\'', '-']);
    let is_variable = bare.len() > 1
        && bare.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    let secret = is_variable && bare != "DJANGO_SETTINGS_MODULE" || is_telling(bare);
    if secret && !value.is_empty() {
        shown.extend([name, "=", MARK]);
    }
    secret && !value.is_empty()
}

/// `redis://:password@host` and the like, wherever they stand in the word.
fn without_user(word: &str) -> String {
    let mut shown = String::new();
    let mut rest = word;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        // A password may hold whatever ends an address elsewhere: the last @ before the next address counts.
        let end = after.find("://").unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(user) => {
                shown.push_str(MARK);
                &after[user..]
            }
            None => after,
        };
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::hidden;

    #[test]
    fn secrets_are_hidden_and_the_rest_stays() {
        for (text, shown) in [
            ("celery -A shop worker -l info", "celery -A shop worker -l info"),
            ("celery -b redis://:pw@cache:6379/0 -A shop", "celery -b redis://…@cache:6379/0 -A shop"),
            ("a=amqp://u:p/w@mq,https://x.example/y@z", "a=amqp://…@mq,https://…@z"),
            ("SECRET_KEY=x1 PORT=80 python manage.py", "SECRET_KEY=… PORT=… python manage.py"),
            ("tool --db-password x2 --token=x3 -v", "tool --db-password … --token=… -v"),
            ("curl -H 'Authorization: Bearer x4' http://a/", "curl -H 'Authorization: … … http://a/"),
            ("SECRET_KEY='x5 x6' python manage.py", "SECRET_KEY=… python manage.py"),
            ("env \"API=x7 x8\" python beat.py", "env \"API=… python beat.py"),
            ("sh -c 'DB=\"x1 x2\" true' b", "sh -c 'DB=… b"),
            ("sh -c 'true; DB=\"x1 x2\" b' c", "sh -c 'true; DB=… b' c"),
            ("DB=x1\\ x2 b", "DB=… b"),
            ("tool\t--password\tx1\t-v", "tool\t--password\t…\t-v"),
            ("tool --password 'x1 \"x2' --user me -v", "tool --password … --user me -v"),
            ("celery flower --basic_auth=me:x1 --pwd x2", "celery flower --basic_auth=… --pwd …"),
            ("curl -u me:x1 -H \"X-Api-Key: x2\" -v", "curl -u … -H \"X-Api-Key: … -v"),
            ("route = ^/x addheader:X-Key: x9", "route = ^/x addheader:X-Key: …"),
            ("DJANGO_SETTINGS_MODULE=shop.settings", "DJANGO_SETTINGS_MODULE=shop.settings"),
            ("minute=-5 python manage.py clearsessions", "minute=-5 python manage.py clearsessions"),
            ("/static=/srv/static", "/static=/srv/static"),
            ("%(h)s \"%(r)s\" %(s)s", "%(h)s \"%(r)s\" %(s)s"),
            ("", ""),
        ] {
            assert_eq!(hidden(text), shown);
        }
    }
}
