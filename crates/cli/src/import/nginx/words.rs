//! nginx's texts in ours: variables as placeholders, expressions, paths as patterns.

use super::file::Directive;

/// nginx's variables that a placeholder stands for.
const VARIABLES: [(&str, &str); 9] = [
    ("query", "{query}"),
    ("request_uri", "{path}{query}"),
    ("document_uri", "{path}"),
    ("request_id", "{request_id}"),
    ("remote_addr", "{client}"),
    ("http_host", "{host}"),
    ("scheme", "{scheme}"),
    ("host", "{host}"),
    ("uri", "{path}"),
];

/// A query with its question mark, in nginx's words.
const QUERIES: [&str; 4] = ["$is_args$args", "$is_args$query_string", "?$args", "?$query_string"];

/// A text with placeholders; `None`: it has a variable that there is nothing for.
pub(super) fn template(text: &str) -> Option<String> {
    let text = QUERIES.iter().fold(text.to_owned(), |text, query| text.replace(query, "${query}"));
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some((before, behind)) = rest.split_once('$') {
        out.push_str(&escaped(before));
        let braced = behind.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let (name, after) = braced.unwrap_or_else(|| {
            let end = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            behind.split_at(end.unwrap_or(behind.len()))
        });
        let (_, placeholder) = VARIABLES.iter().find(|(known, _)| *known == name)?;
        out.push_str(placeholder);
        rest = after;
    }
    out.push_str(&escaped(rest));
    Some(out)
}

fn escaped(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// Does it name a variable?
pub(super) fn has_variable(text: &str) -> bool {
    text.match_indices('$')
        .any(|(at, _)| text[at + 1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '{'))
}

/// A path as a regular expression that finds it alone.
pub(super) fn quoted(path: &str) -> String {
    let special = |c: char| r"\.+*?()|[]{}^$".contains(c);
    path.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

/// How a location is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `=`.
    Exact,
    /// `^~`: no expression is asked.
    Firm,
    /// Without a modifier.
    Prefix,
    /// `~`, and `~*` in any case.
    Regex { any_case: bool },
    /// `@name`: from elsewhere only.
    Named,
}

/// A location's kind and path; `None`: it names none.
pub(super) fn kind(location: &Directive) -> Option<(Kind, &str)> {
    Some(match location.args.as_slice() {
        [path] if path.starts_with('@') => (Kind::Named, path.as_str()),
        [path] => match path.strip_prefix('=').or_else(|| path.strip_prefix('~')) {
            Some(rest) if path.starts_with('=') => (Kind::Exact, rest),
            Some(rest) => (Kind::Regex { any_case: rest.starts_with('*') }, rest.trim_start_matches('*')),
            None => (Kind::Prefix, path.as_str()),
        },
        [modifier, path] => match modifier.as_str() {
            "=" => (Kind::Exact, path.as_str()),
            "^~" => (Kind::Firm, path.as_str()),
            "~" => (Kind::Regex { any_case: false }, path.as_str()),
            "~*" => (Kind::Regex { any_case: true }, path.as_str()),
            _ => return None,
        },
        _ => return None,
    })
}

/// The `path` of a route for what a location takes; `None`: all.
pub(super) fn pattern(kind: Kind, path: &str) -> Option<String> {
    match kind {
        Kind::Exact => Some(path.to_owned()),
        Kind::Regex { any_case } => Some(format!("~{}{path}", if any_case { "(?i)" } else { "" })),
        Kind::Prefix | Kind::Firm if path == "/" => None,
        // `*` is a letter like any other to nginx.
        Kind::Prefix | Kind::Firm if path.contains('*') => Some(format!("~^{}", quoted(path))),
        Kind::Prefix | Kind::Firm => Some(format!("{path}*")),
        Kind::Named => None,
    }
}

/// The locations of a server in an order in which the first that matches is the one that nginx takes: the exact ones; what no expression is asked
/// for; the expressions in their order; the prefixes, the longest first. The general one (`/`) is not among them.
pub(super) fn ordered(server: &Directive) -> Vec<(&Directive, Kind, &str)> {
    let all = server.inside().iter().filter(|one| one.name == "location");
    let mut all: Vec<_> =
        all.filter_map(|location| kind(location).map(|(kind, path)| (location, kind, path))).collect();
    all.retain(|(_, kind, path)| {
        *kind != Kind::Named && !(*path == "/" && matches!(kind, Kind::Prefix | Kind::Firm))
    });
    let firm: Vec<String> = all
        .iter()
        .filter(|(_, kind, _)| *kind == Kind::Firm)
        .map(|(_, _, path)| (*path).to_owned())
        .collect();
    // A prefix below a firm one must come before that, and so before the expressions.
    let rank = |kind: Kind, path: &str| match kind {
        Kind::Exact => 0,
        Kind::Regex { .. } => 2,
        _ if firm.iter().any(|other| path.starts_with(other.as_str())) => 1,
        _ => 3,
    };
    // Stable: expressions keep their order.
    all.sort_by_key(|(_, kind, path)| {
        let longest =
            if matches!(kind, Kind::Regex { .. } | Kind::Exact) { 0 } else { usize::MAX - path.len() };
        (rank(*kind, path), longest)
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_placeholders() {
        for (text, expected) in [
            ("https://$host$request_uri", Some("https://{host}{path}{query}")),
            ("https://${host}${request_uri}", Some("https://{host}{path}{query}")),
            ("$scheme://new.example$uri$is_args$args", Some("{scheme}://new.example{path}{query}")),
            ("/new/?$args", Some("/new/{query}")),
            ("a{b}", Some("a{{b}}")),
            ("$hostile", None),
            ("$hostname", None),
            ("$1", None),
            ("$http_x_key", None),
            ("cost $", None),
        ] {
            assert_eq!(template(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_first_that_matches_is_the_one_that_nginx_takes() {
        let text = "server { location / {} location /a/ {} location ~ x {} location ^~ /b/ {} location /b/c/ {}\n\
                    location = /a/ {} location ~* y {} location /a/b/ {} location @n {} location =/q {} }";
        let parsed = super::super::file::parse(text, std::path::Path::new("/nowhere")).unwrap();
        let order: Vec<_> =
            ordered(&parsed[0]).iter().map(|(_, kind, path)| pattern(*kind, path).unwrap()).collect();
        assert_eq!(order, ["/a/", "/q", "/b/c/*", "/b/*", "~x", "~(?i)y", "/a/b/*", "/a/*"]);
    }

    #[test]
    fn quoted_paths_find_themselves() {
        assert_eq!(quoted("/a.b/(c)+"), r"/a\.b/\(c\)\+");
    }
}
