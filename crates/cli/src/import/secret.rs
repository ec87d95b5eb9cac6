//! What is printed goes into repositories and terminals: values that look like secrets are left out of it.

/// Names of variables and flags whose values nobody should read.
const NAMES: [&str; 9] =
    ["password", "passwd", "secret", "token", "api-key", "apikey", "api_key", "credential", "private-key"];

/// Words that announce a secret as the next one.
const ANNOUNCE: [&str; 4] = ["authorization:", "bearer", "basic", "x-api-key:"];

/// What stands in the place of a secret.
const MARK: &str = "…";

/// `text`, a piece of a command line or of a configuration, without the values of variables (`SECRET_KEY=…`, as in a
/// shell), of flags with a telling name (`--password …`), and without the user and password of URLs.
pub(super) fn hidden(text: &str) -> String {
    let mut shown = String::new();
    let mut next_is_secret = false;
    for piece in text.split_inclusive(' ') {
        let word = piece.trim_end_matches(' ');
        let plain = word.trim_matches(['"', '\'']);
        if next_is_secret && !word.is_empty() {
            shown.push_str(MARK);
            // After `Authorization:` come the scheme and the secret.
            next_is_secret = announces(plain);
        } else if !assignment(word, &mut shown) {
            shown.push_str(&without_user(word));
            next_is_secret = announces(plain) || plain.starts_with('-') && is_telling(plain);
        }
        shown.push_str(&piece[word.len()..]);
    }
    shown
}

fn announces(word: &str) -> bool {
    ANNOUNCE.contains(&word.to_ascii_lowercase().as_str())
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
