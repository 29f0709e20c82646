//! Page tokens: JSON in base64 (the models' patterns allow `+`, `/` and `=`). They hold nothing that the caller did not
//! get already, and are checked like any input when they come back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A token for a place.
pub fn encode<T: Serialize>(place: &T) -> String {
    STANDARD.encode(serde_json::to_vec(place).unwrap_or_default())
}

/// The place of a token; `None` if it is none of ours.
pub fn decode<T: DeserializeOwned>(token: &str) -> Option<T> {
    serde_json::from_slice(&STANDARD.decode(token).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_plain_base64_and_anything_else_is_refused() {
        let token = encode(&("front", 7));
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)));
        assert_eq!(decode(&token), Some(("front".to_owned(), 7)));
        for bad in ["", "%%%", "bm90IGpzb24=", &encode(&7)] {
            assert_eq!(decode::<(String, i32)>(bad), None, "{bad}");
        }
    }
}
