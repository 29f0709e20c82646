//! Pagination tokens: opaque text that says after which item a page begins. They hold nothing secret and give no access
//! (a forged one names a place in the caller's own list), so they are encoded, not sealed.

use base::ApiError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Which listing a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    Collections,
    Faces,
    Processors,
    Unknown,
    Users,
    StoredFaces,
    StoredMatches,
    StoredPersons,
}

impl Listing {
    fn prefix(self) -> &'static str {
        match self {
            Listing::Collections => "1c",
            Listing::Faces => "1f",
            Listing::Processors => "1p",
            Listing::Unknown => "1n",
            Listing::Users => "1u",
            Listing::StoredFaces => "1d",
            Listing::StoredMatches => "1s",
            Listing::StoredPersons => "1i",
        }
    }

    /// The token for the page after `last`.
    pub(crate) fn token(self, last: &str) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}{last}", self.prefix()))
    }

    /// What [`Listing::token`] was given, read by `parse`.
    pub(crate) fn read<T>(
        self,
        token: Option<&str>,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(token) = token else {
            return Ok(None);
        };
        let decoded = URL_SAFE_NO_PAD.decode(token).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let last = text.and_then(|text| text.strip_prefix(self.prefix()).and_then(parse));
        last.map(Some).ok_or_else(|| {
            ApiError::client(
                "InvalidPaginationTokenException",
                "NextToken is not from this operation",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_by_its_own_listing_alone() {
        let longest = "n".repeat(128);
        let token = Listing::Processors.token(&longest);
        assert!(token.len() <= 255, "the model allows 255 characters");
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(Listing::Processors.read(Some(&token), text), Ok(Some(longest)));
        assert_eq!(Listing::Processors.read(None, text), Ok(None));
        for bad in ["", "!", "AAAA", &Listing::Faces.token("x")] {
            let refused = Listing::Processors.read(Some(bad), text).unwrap_err();
            assert_eq!(refused.code, "InvalidPaginationTokenException", "{bad}");
        }
    }
}
