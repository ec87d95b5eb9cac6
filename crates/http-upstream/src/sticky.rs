//! The token by which a client comes back to its server.
//!
//! It is a code of the server's name under a secret: it says nothing to who does not have that, cannot be made by clients, and
//! is the same in every gateway that has the same secret, over restarts too. Nothing is remembered of clients.

use ring::hmac;

/// Half of a SHA-256: more than anybody guesses, and a short cookie.
const TOKEN_BYTES: usize = 16;

/// What tokens are made with.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// From random bytes that all gateways share.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// A server, as clients know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(u128);

impl Token {
    /// Of the server of this name in the upstream of that.
    pub fn new(secret: &Secret, upstream: &str, server: &str) -> Self {
        let mut context = hmac::Context::with_key(&secret.0);
        // The length keeps ("a", "bc") and ("ab", "c") apart.
        context.update(&(upstream.len() as u64).to_le_bytes());
        context.update(upstream.as_bytes());
        context.update(server.as_bytes());
        let tag = context.sign();
        let bytes = tag.as_ref().iter().take(TOKEN_BYTES);
        Self(bytes.fold(0, |token, &byte| token << 8 | u128::from(byte)))
    }

    /// What a client sent; `None`: no token. Whether there is such a server is seen when one is picked.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 2 * TOKEN_BYTES || !text.iter().all(hex) {
            return None;
        }
        u128::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok().map(Self)
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_servers_and_nobody_elses() {
        let secret = Secret::from_bytes(&[7; 32]);
        let token = Token::new(&secret, "api", "http://a:80");
        assert_eq!(Token::parse(token.to_string().as_bytes()), Some(token));
        assert_eq!(Token::new(&secret.clone(), "api", "http://a:80"), token);
        assert_ne!(Token::new(&secret, "api", "http://b:80"), token);
        assert_ne!(Token::new(&secret, "apih", "ttp://a:80"), token);
        assert_ne!(Token::new(&Secret::from_bytes(&[8; 32]), "api", "http://a:80"), token);
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[test]
    fn what_is_no_token() {
        let good = "0123456789abcdef0123456789abcdef";
        assert_eq!(Token::parse(good.as_bytes()).map(|token| token.to_string()), Some(good.to_owned()));
        for bad in ["", "0", "+123456789abcdef0123456789abcdef", "0123456789ABCDEF0123456789ABCDEF"] {
            assert_eq!(Token::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Token::parse(&[b"0".as_slice(), good.as_bytes()].concat()), None);
        assert_eq!(Token::parse(&[0xff; 32]), None);
    }
}
