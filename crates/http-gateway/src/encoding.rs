//! Content codings: what a client accepts, what we prefer (RFC 9110, 8.4 and 12.5.3).
//!
//! Pure, and without a word about files: whoever has a representation in several codings asks here which to send.

/// A content coding this program can produce or pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Coding {
    /// No coding.
    Identity = 0,
    /// `gzip`, and `x-gzip` (RFC 9110, 8.4.1.3).
    Gzip = 1,
    /// `zstd` (RFC 8878).
    Zstd = 2,
    /// `br` (RFC 7932).
    Brotli = 3,
}

impl Coding {
    /// Every coding but identity, the densest first: of two that the client likes equally, the first is sent.
    pub const BY_PREFERENCE: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// The same, the cheapest first: for what is compressed once for each request (docs/decisions/0017).
    pub const BY_COST: [Self; 3] = [Self::Zstd, Self::Gzip, Self::Brotli];

    /// The token in Accept-Encoding and Content-Encoding.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
        }
    }

    fn from_token(token: &[u8]) -> Option<Self> {
        // RFC 9110, 8.4.1: content codings are case-insensitive.
        [Self::Identity, Self::Gzip, Self::Zstd, Self::Brotli]
            .into_iter()
            .find(|coding| token.eq_ignore_ascii_case(coding.token().as_bytes()))
            .or_else(|| token.eq_ignore_ascii_case(b"x-gzip").then_some(Self::Gzip))
    }
}

/// Codings that are to be had. Identity always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CodingSet(u8);

impl CodingSet {
    /// Nothing but identity.
    pub const IDENTITY: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self(0b1110);

    /// With this one too.
    #[must_use]
    pub const fn with(self, coding: Coding) -> Self {
        Self(self.0 | 1 << coding as u8)
    }

    /// Without this one.
    #[must_use]
    pub const fn without(self, coding: Coding) -> Self {
        Self(self.0 & !(1 << coding as u8))
    }

    /// Is it there?
    pub const fn contains(self, coding: Coding) -> bool {
        matches!(coding, Coding::Identity) || self.0 & 1 << coding as u8 != 0
    }
}

/// A weight in thousandths (RFC 9110, 12.4.2: at most three decimals).
type Weight = u16;

/// What a request says it accepts. The default is a request without the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    named: [Option<Weight>; 4],
    others: Option<Weight>,
}

impl Accepted {
    /// From the values of every Accept-Encoding field. Members that cannot be read are passed over.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut accepted = Self::default();
        for member in values.into_iter().flat_map(|value| value.split(|&b| b == b',')) {
            let mut parts = member.split(|&b| b == b';');
            let token = parts.next().unwrap_or_default().trim_ascii();
            let Some(weight) = parts.try_fold(1000, |_, parameter| weight(parameter)) else { continue };
            if token == b"*" {
                accepted.others = Some(weight);
            } else if let Some(coding) = Coding::from_token(token)
                && let Some(place) = accepted.named.get_mut(coding as usize)
            {
                *place = Some(weight);
            }
        }
        accepted
    }

    /// RFC 9110, 12.5.3: an unlisted coding is acceptable only through `*`.
    fn weight(&self, coding: Coding) -> Weight {
        self.named.get(coding as usize).copied().flatten().or(self.others).unwrap_or(0)
    }

    /// The coding to send. Identity when nothing else is welcome, also when the client would refuse identity: the
    /// section allows 406 there, but no client is known to be better served by it.
    pub fn choose(&self, available: CodingSet) -> Coding {
        self.choose_by(Coding::BY_PREFERENCE, available)
    }

    /// The same with another order among those that the client likes equally.
    pub fn choose_by(&self, preference: [Coding; 3], available: CodingSet) -> Coding {
        // Identity that is not spoken of is acceptable, and wanted less than anything that is.
        let identity = self.weight(Coding::Identity);
        let mut best = (Coding::Identity, identity);
        for coding in preference {
            let weight = self.weight(coding);
            let wins = weight > best.1 || (weight == best.1 && best.0 == Coding::Identity);
            if available.contains(coding) && weight > 0 && wins {
                best = (coding, weight);
            }
        }
        best.0
    }
}

/// `q=0.8` → 800; `None` when it is not a weight.
fn weight(parameter: &[u8]) -> Option<Weight> {
    let parameter = parameter.trim_ascii();
    let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let (whole, decimals) = match value {
        [whole] | [whole, b'.'] => (*whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (*whole, decimals),
        _ => return None,
    };
    let mut weight: Weight = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    let mut step = 100;
    for digit in decimals {
        weight += Weight::from(digit.is_ascii_digit().then(|| digit - b'0')?) * step;
        step /= 10;
    }
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(accept: Option<&str>, available: &str, chosen: &str) {
        let available = available
            .split_whitespace()
            .filter_map(|token| Coding::from_token(token.as_bytes()))
            .fold(CodingSet::IDENTITY, CodingSet::with);
        let got = Accepted::parse(accept.map(str::as_bytes)).choose(available);
        assert_eq!(got.token(), chosen, "{accept:?}");
    }

    #[test]
    fn negotiation() {
        check(None, "br gzip", "identity");
        check(Some(""), "br gzip", "identity");
        check(Some("gzip, deflate, br, zstd"), "br zstd gzip", "br");
        check(Some("gzip, deflate, br, zstd"), "zstd gzip", "zstd");
        check(Some("gzip, deflate, br"), "zstd gzip", "gzip");
        check(Some("gzip"), "br", "identity");
        check(Some("GZIP"), "gzip", "gzip");
        check(Some("x-gzip"), "gzip", "gzip");
        check(Some("gzip;q=1.0, br;q=0.5"), "br gzip", "gzip");
        check(Some("gzip;q=0.5 , br; q=0.8"), "br gzip", "br");
        check(Some("br;q=0, gzip"), "br gzip", "gzip");
        check(Some("br;q=0"), "br", "identity");
        check(Some("*"), "gzip", "gzip");
        check(Some("*;q=0.1, br;q=0"), "br gzip", "gzip");
        check(Some("identity;q=1, *;q=0"), "br gzip", "identity");
        check(Some("identity, gzip;q=0.5"), "gzip", "identity");
        check(Some("identity;q=0.5, gzip;q=0.5"), "gzip", "gzip");
        check(Some("identity;q=0"), "", "identity");
        check(Some("gzip;q=2, br"), "br gzip", "br");
        check(Some("gzip;q=0.1234, br;q=0.001"), "br gzip", "br");
        check(Some("gzip;level=9"), "gzip", "identity");
        check(Some(",, gzip ,"), "gzip", "gzip");
    }

    proptest! {
        #[test]
        fn never_panics_and_keeps_to_what_there_is(value in prop::collection::vec(any::<u8>(), 0..64), set in 0u8..8) {
            let available = CodingSet(set << 1);
            let chosen = Accepted::parse([value.as_slice()]).choose(available);
            prop_assert!(available.contains(chosen));
        }
    }
}
