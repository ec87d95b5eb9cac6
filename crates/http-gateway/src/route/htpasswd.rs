//! Users and passwords of `basic_auth`: the file that `htpasswd -B` writes, and what a client says (RFC 7617). Pure, and slow where it
//! compares: that is what bcrypt is for.

use std::collections::HashMap;
use std::str::FromStr as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::HashParts;

use crate::message::Headers;

/// Comparing takes 2 to the power of the cost: 50 ms at 10, which `htpasswd` users mostly have, and two seconds at 15. With more
/// nobody could sign in while others try to.
const COST_MAX: u32 = 15;

/// Credentials of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Without a colon.
    pub user: String,
    /// As it was sent.
    pub password: String,
}

impl Credentials {
    /// Those of a request; `None`: it has none, or several, or they cannot be read.
    pub fn of(headers: &Headers) -> Option<Self> {
        let mut fields = headers.all("authorization");
        let (value, None) = (fields.next()?, fields.next()) else { return None };
        let (scheme, rest) = value.split_at(memchr::memchr(b' ', value)?);
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(rest.trim_ascii()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Self { user: user.to_owned(), password: password.to_owned() })
    }
}

/// A file of users.
#[derive(Debug, Default)]
pub struct Users {
    hashes: HashMap<Box<str>, Box<str>>,
    /// The dearest of the hashes: a name that nobody has is compared with it, so that the time of an answer does not tell which names
    /// there are.
    dearest: Box<str>,
}

impl Users {
    /// Reads `name:$2y$…` lines; the error says which line is no good, without what stands in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut hashes, mut dearest) = (HashMap::new(), (0, ""));
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| format!("line {number}: {why}");
            let (user, hash) =
                line.split_once(':').ok_or_else(|| wrong("it is not of the form NAME:HASH"))?;
            let parts = HashParts::from_str(hash).map_err(|_| {
                wrong("the password is not hashed with bcrypt; make the line with: htpasswd -nB NAME")
            })?;
            if parts.get_cost() > COST_MAX {
                return Err(wrong(&format!("the cost of the hash is more than {COST_MAX}")));
            }
            dearest = dearest.max((parts.get_cost(), hash));
            if user.is_empty() || hashes.insert(user.into(), hash.into()).is_some() {
                return Err(wrong("the name is empty, or there twice"));
            }
        }
        if hashes.is_empty() {
            return Err("nobody is in it".to_owned());
        }
        Ok(Self { hashes, dearest: dearest.1.into() })
    }

    /// Whether these are a user's. Takes as long as bcrypt does, also for a name that nobody has.
    pub fn verify(&self, credentials: &Credentials) -> bool {
        let hash = self.hashes.get(credentials.user.as_str());
        let matches = bcrypt::verify(&credentials.password, hash.unwrap_or(&self.dearest));
        hash.is_some() && matches.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "secret"; cost 4 is the least that bcrypt has.
    fn line(user: &str) -> String {
        format!("{user}:{}\n", bcrypt::hash("secret", 4).unwrap())
    }

    fn says(user: &str, password: &str) -> Credentials {
        Credentials { user: user.into(), password: password.into() }
    }

    #[test]
    fn who_is_who() {
        let users = Users::parse(&format!("# staff\n\n{}{}", line("anna"), line("b b"))).unwrap();
        assert!(users.verify(&says("anna", "secret")) && users.verify(&says("b b", "secret")));
        for (user, password) in
            [("anna", "Secret"), ("anna", ""), ("", "secret"), ("carl", "secret"), ("# staff", "")]
        {
            assert!(!users.verify(&says(user, password)), "{user}:{password}");
        }
        // What apache's and other tools write.
        let other = line("anna").replace("$2b$", "$2y$");
        assert!(Users::parse(&other).unwrap().verify(&says("anna", "secret")));
    }

    #[test]
    fn files_that_are_no_good() {
        for (text, why) in [
            ("", "nobody"),
            ("# only a comment\n", "nobody"),
            ("anna\n", "line 1: it is not of the form"),
            ("a:$apr1$x$abcdefghijklmnopqrstuv\n", "line 1: the password is not hashed with bcrypt"),
            ("\na:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n", "line 2: the password"),
            ("a:secret\n", "line 1: the password"),
            (&line("").replace('\n', ""), "line 1: the name is empty"),
            (&(line("a") + &line("a")), "line 2: the name is empty, or there twice"),
            (&line("a").replace("$04$", "$31$"), "line 1: the cost"),
        ] {
            let wrong = Users::parse(text).map(drop).unwrap_err();
            assert!(wrong.starts_with(why), "{text}: {wrong}");
            assert!(!wrong.contains("secret"), "{wrong}");
        }
    }

    #[track_caller]
    fn check(fields: &[&str], expected: Option<(&str, &str)>) {
        let mut headers = Headers::default();
        for value in fields {
            headers.push(b"authorization", value.as_bytes());
        }
        let expected = expected.map(|(user, password)| says(user, password));
        assert_eq!(Credentials::of(&headers), expected, "{fields:?}");
    }

    #[test]
    fn what_clients_say() {
        let basic = |text: &str| format!("basic  {}", STANDARD.encode(text));
        check(&[&basic("anna:a:b")], Some(("anna", "a:b")));
        check(&[&basic("ännä:ß")], Some(("ännä", "ß")));
        check(&[&basic(":")], Some(("", "")));
        check(&[&basic("a:b"), &basic("a:b")], None);
        for bad in ["", "Basic", "Basic !", "Bearer YTpi", "Basic YQ==", "BasicYTpi", "Basic /w=="] {
            check(&[bad], None);
        }
    }
}
