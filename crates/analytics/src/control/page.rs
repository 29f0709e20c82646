//! Page tokens: where a list goes on, in a form that says that it is not for reading.

use base::ApiError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::invalid;
use crate::limits::PAGE_DEFAULT;

/// A token for what is behind `after`.
pub fn seal(after: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("after {after}"))
}

/// What a token was made of.
pub fn open(token: Option<&str>) -> Result<Option<String>, ApiError> {
    let Some(token) = token else { return Ok(None) };
    let plain = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|plain| String::from_utf8(plain).ok());
    let after = plain.and_then(|plain| plain.strip_prefix("after ").map(str::to_owned));
    after.map(Some).ok_or_else(|| invalid("NextToken is not valid."))
}

/// How many entries a caller wants.
pub fn limit(given: Option<i32>) -> usize {
    given
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(PAGE_DEFAULT)
}

/// The newest entries, or those behind the one that a token names: at most so many, and the token of the next page. `key`
/// sorts the entries by age.
pub fn newest<T>(
    mut all: Vec<T>,
    key: impl Fn(&T) -> String,
    token: Option<&str>,
    given: Option<i32>,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    all.sort_by_key(|entry| std::cmp::Reverse(key(entry)));
    let after = open(token)?;
    let seen = |entry: &T| after.as_ref().is_some_and(|after| key(entry) >= *after);
    let mut rest = all.into_iter().skip_while(seen).peekable();
    let page: Vec<T> = rest.by_ref().take(limit(given)).collect();
    let next = rest.peek().and(page.last()).map(|last| seal(&key(last)));
    Ok((page, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_even_if_what_a_token_names_is_gone() {
        let page = |all: &[&'static str], token: Option<&str>| {
            newest(all.to_vec(), |e| (*e).to_owned(), token, Some(2)).unwrap()
        };
        let (first, token) = page(&["a", "b", "c"], None);
        assert_eq!(first, ["c", "b"]);
        assert_eq!(page(&["a", "b", "c"], token.as_deref()), (vec!["a"], None));
        assert_eq!(page(&["a", "c"], token.as_deref()), (vec!["a"], None));
        assert_eq!(open(Some("%")).unwrap_err().code, "InvalidArgumentException");
        assert_eq!(open(Some("YWJj")).unwrap_err().code, "InvalidArgumentException");
    }
}
