//! Sealed tokens: XChaCha20-Poly1305 under the key ring, bound to a purpose and a context, with the expiry inside.
//! Session tokens, page tokens and playback tokens are made of them; whoever holds one can neither read nor change it.

use base::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::keyring::KeyRing;
use crate::limits::SEALED_CHARS_MAX;

/// First byte of every sealed token.
const VERSION: u8 = 1;
const HEAD: usize = 1 + 4;
const NONCE: usize = 24;

/// How a token is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Standard base64 with padding: NextToken patterns of the service models and security tokens.
    Base64,
    /// URL-safe base64 without padding.
    UrlSafe,
    /// URL-safe base64 without padding and a closing `~`: the session token of a playback URL.
    Playback,
}

/// Why a token was not opened, or not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is not a token of this form.
    #[error("the token is malformed")]
    Malformed,
    /// It was changed, made for something else, or sealed under a key that is gone.
    #[error("the token is not valid here")]
    Forged,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// The system gave no random bytes or the ring is empty; only sealing fails so.
    #[error("the token could not be sealed")]
    Unavailable,
}

fn associated(head: &[u8], purpose: &str, context: &str) -> Vec<u8> {
    let mut data = Vec::with_capacity(head.len() + purpose.len() + context.len() + 16);
    data.extend_from_slice(head);
    data.extend_from_slice(&(purpose.len() as u64).to_be_bytes());
    data.extend_from_slice(purpose.as_bytes());
    data.extend_from_slice(context.as_bytes());
    data
}

impl KeyRing {
    /// Seals bytes. They open only with the same `purpose` (a constant of the code, e.g. `page`) and `context` (what the
    /// token is bound to, e.g. an ARN), and not at or after `expires`.
    pub fn seal_bytes(
        &self,
        purpose: &str,
        context: &str,
        expires: Option<Timestamp>,
        plain: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let key = self.newest().ok_or(SealError::Unavailable)?;
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| SealError::Unavailable)?;
        let mut out = Vec::with_capacity(HEAD + NONCE + 8 + plain.len() + 16);
        out.push(VERSION);
        out.extend_from_slice(&key.id.to_be_bytes());
        let aad = associated(&out, purpose, context);
        let mut inner = expires.map_or(i64::MAX, Timestamp::millis).to_be_bytes().to_vec();
        inner.extend_from_slice(plain);
        let payload = Payload { msg: &inner, aad: &aad };
        let sealed = XChaCha20Poly1305::new(&key.bytes.into())
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| SealError::Unavailable)?;
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens what [`KeyRing::seal_bytes`] made.
    pub fn open_bytes(
        &self,
        purpose: &str,
        context: &str,
        now: Timestamp,
        sealed: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let (head, rest) = sealed.split_at_checked(HEAD).ok_or(SealError::Malformed)?;
        let (nonce, cipher) = rest.split_at_checked(NONCE).ok_or(SealError::Malformed)?;
        let (version, id) = head.split_first().ok_or(SealError::Malformed)?;
        let id = u32::from_be_bytes(id.try_into().map_err(|_| SealError::Malformed)?);
        if *version != VERSION {
            return Err(SealError::Malformed);
        }
        let key = self.by_id(id).ok_or(SealError::Forged)?;
        let aad = associated(head, purpose, context);
        let inner = XChaCha20Poly1305::new(&key.bytes.into())
            .decrypt(XNonce::from_slice(nonce), Payload { msg: cipher, aad: &aad })
            .map_err(|_| SealError::Forged)?;
        let (expires, plain) = inner.split_first_chunk::<8>().ok_or(SealError::Malformed)?;
        if now.millis() >= i64::from_be_bytes(*expires) {
            return Err(SealError::Expired);
        }
        Ok(plain.to_vec())
    }

    /// Seals bytes into text; see [`KeyRing::seal_bytes`].
    pub fn seal(
        &self,
        purpose: &str,
        context: &str,
        expires: Option<Timestamp>,
        plain: &[u8],
        form: Form,
    ) -> Result<String, SealError> {
        let sealed = self.seal_bytes(purpose, context, expires, plain)?;
        Ok(match form {
            Form::Base64 => STANDARD.encode(sealed),
            Form::UrlSafe => URL_SAFE_NO_PAD.encode(sealed),
            Form::Playback => URL_SAFE_NO_PAD.encode(sealed) + "~",
        })
    }

    /// Opens what [`KeyRing::seal`] made, of the same form.
    pub fn open(
        &self,
        purpose: &str,
        context: &str,
        now: Timestamp,
        text: &str,
        form: Form,
    ) -> Result<Vec<u8>, SealError> {
        if text.len() > SEALED_CHARS_MAX {
            return Err(SealError::Malformed);
        }
        let sealed = match form {
            Form::Base64 => STANDARD.decode(text),
            Form::UrlSafe => URL_SAFE_NO_PAD.decode(text),
            Form::Playback => URL_SAFE_NO_PAD.decode(text.strip_suffix('~').ok_or(SealError::Malformed)?),
        };
        self.open_bytes(purpose, context, now, &sealed.map_err(|_| SealError::Malformed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn a_token_opens_only_for_its_purpose_and_context_and_before_its_end() {
        let ring = KeyRing::ephemeral().unwrap();
        let end = Some(NOW.plus_millis(300_000));
        for form in [Form::Base64, Form::UrlSafe, Form::Playback] {
            let token = ring.seal("playback", "stream/a", end, b"range", form).unwrap();
            let open = |purpose, context, now| ring.open(purpose, context, now, &token, form);
            assert_eq!(open("playback", "stream/a", NOW).unwrap(), b"range");
            assert_eq!(open("playback", "stream/b", NOW), Err(SealError::Forged));
            assert_eq!(open("page", "stream/a", NOW), Err(SealError::Forged));
            assert_eq!(open("playbac", "kstream/a", NOW), Err(SealError::Forged));
            assert_eq!(
                open("playback", "stream/a", NOW.plus_millis(300_000)),
                Err(SealError::Expired)
            );
            assert_eq!(token.ends_with('~'), form == Form::Playback);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_token_is_refused() {
        let ring = KeyRing::ephemeral().unwrap();
        let sealed = ring.seal_bytes("page", "c", None, b"after=cam7").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(ring.open_bytes("page", "c", NOW, &changed).is_err(), "bit {bit}");
        }
        for cut in 0..sealed.len() {
            assert!(
                ring.open_bytes("page", "c", NOW, &sealed[..cut]).is_err(),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn rotation_keeps_old_tokens_and_forgetting_kills_them() {
        let ring = KeyRing::ephemeral().unwrap();
        let old = ring.seal("page", "c", None, b"x", Form::Base64).unwrap();
        ring.rotate().unwrap();
        let new = ring.seal("page", "c", None, b"y", Form::Base64).unwrap();
        assert_eq!(ring.open("page", "c", NOW, &old, Form::Base64).unwrap(), b"x");
        ring.forget_old().unwrap();
        assert_eq!(ring.open("page", "c", NOW, &old, Form::Base64), Err(SealError::Forged));
        assert_eq!(ring.open("page", "c", NOW, &new, Form::Base64).unwrap(), b"y");
    }
}
