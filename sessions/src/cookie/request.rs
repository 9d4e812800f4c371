//! How a layer's cookie is found among what a browser sends, and what it says.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use http::HeaderValue;

use crate::{
    cookie::{CookieConfig, SIGNED_LENGTH, VALUE_LENGTH, VerifiedCookie, seen::SeenCookies},
    identity::{
        current::CurrentKeys,
        id::{ID_LENGTH, SessionId},
        keys::TAG_LENGTH,
    },
};
#[cfg(feature = "private-cookie")]
use crate::{
    cookie::{
        PrivateContent,
        private::{self, Content, LARGEST_COOKIE},
    },
    identity::keys::Keys,
};

/// How many values of the name a request may come with. Each costs an HMAC for every key, or a
/// decryption.
const MOST_VALUES: usize = 16;
/// How many cookies with a good signature are looked up in the store, one after the other. A browser has
/// one for each domain and path that the layer has had: two, or four if both have changed.
const MOST_SIGNED: usize = 4;

impl CookieConfig {
    /// Whether there is a cookie of this name, of whatever value.
    pub(crate) fn is_among<'a>(
        &'a self,
        headers: impl IntoIterator<Item = &'a HeaderValue> + 'a,
    ) -> bool {
        self.values(headers).next().is_some()
    }

    /// Whether a `Cookie` header begins with a cookie of this name, of whatever value.
    pub(super) fn is_first_in(&self, header: &HeaderValue) -> bool {
        header.as_bytes().strip_prefix(self.name.as_bytes()).is_some_and(|it| it.starts_with(b"="))
    }

    /// The verified cookies of this name in a request's headers, in their order, and no more than a
    /// handful. Browsers send several when a subdomain or a longer path has set its own.
    pub(crate) fn verified<'a>(
        &'a self,
        keys: &'a CurrentKeys,
        seen: &'a SeenCookies,
        headers: impl IntoIterator<Item = &'a HeaderValue> + 'a,
    ) -> impl Iterator<Item = VerifiedCookie> + 'a {
        let verified = self
            .values(headers)
            .filter_map(|value| {
                let value = value.try_into().ok();
                if value.is_none() {
                    tracing::debug!("rejected a session cookie: it is malformed");
                }
                value
            })
            .filter_map(|value| seen.find(value).or_else(|| self.verify(keys, seen, value)));
        at_most(MOST_SIGNED, verified)
    }

    fn verify(
        &self,
        keys: &CurrentKeys,
        seen: &SeenCookies,
        value: &[u8; VALUE_LENGTH],
    ) -> Option<VerifiedCookie> {
        let (id, tag) = decode(value)?;
        // Before the keys: what others verify is not noted once these are replaced.
        let epoch = seen.epoch();
        let Some(key) = keys.read().verify(&self.name, &id, &tag) else {
            tracing::debug!("rejected a session cookie: its signature does not verify");
            return None;
        };
        let cookie = VerifiedCookie::new(SessionId::from_bytes(id), key > 0);
        seen.note(value, cookie, epoch);
        Some(cookie)
    }

    /// The values of the cookies of this name, the first of them if there are very many.
    pub(crate) fn values<'a>(
        &'a self,
        headers: impl IntoIterator<Item = &'a HeaderValue> + 'a,
    ) -> impl Iterator<Item = &'a [u8]> + 'a {
        let pairs = headers.into_iter().flat_map(|header| Pairs(header.as_bytes()));
        let values = pairs.filter_map(|pair| {
            let value = pair.strip_prefix(self.name.as_bytes())?;
            value.strip_prefix(b"=")
        });
        at_most(MOST_VALUES, values)
    }

    /// What the private cookies of this name hold, in their order.
    #[cfg(feature = "private-cookie")]
    fn opened<'a>(
        &'a self,
        keys: &'a Keys,
        headers: impl IntoIterator<Item = &'a HeaderValue> + 'a,
    ) -> impl Iterator<Item = (Content, bool)> + 'a {
        self.values(headers)
            .filter(|value| value.len() <= LARGEST_COOKIE)
            .filter_map(|value| BASE64.decode(value).ok())
            .filter_map(|sealed| {
                let opened = private::open(keys, &self.name, &sealed);
                if opened.is_none() {
                    tracing::debug!("rejected a session cookie: it does not decrypt");
                }
                opened
            })
    }

    /// The newest of the private cookies of this name. A browser sends several when the layer had
    /// another domain or path before, the old one mostly first.
    #[cfg(feature = "private-cookie")]
    pub(crate) fn newest<'a>(
        &'a self,
        keys: &'a Keys,
        headers: impl IntoIterator<Item = &'a HeaderValue> + 'a,
    ) -> Option<PrivateContent> {
        let mut is_alone = self.has_host_prefix() && !self.partitioned;
        let newest = self.opened(keys, headers).inspect(|(content, _)| {
            is_alone &= content.is_partitioned == self.partitioned;
        });
        let (content, by_old_key) = newest.max_by_key(|(content, _)| content.written_at)?;
        let session =
            content.session.map(|(id, record)| (VerifiedCookie::new(id, by_old_key), record));
        Some(PrivateContent { written_at: content.written_at, is_alone, session })
    }
}

/// The first `most` of one request's cookies. That there are more is logged, once.
fn at_most<C>(most: usize, mut cookies: impl Iterator<Item = C>) -> impl Iterator<Item = C> {
    let mut left = most;
    std::iter::from_fn(move || {
        let cookie = cookies.next()?;
        if left == 0 {
            tracing::debug!(most, "a request has too many session cookies: ignored the rest");
            return None;
        }
        left -= 1;
        Some(cookie)
    })
    .fuse()
}

/// What stands between the semicolons of a `Cookie` header, without the space around it.
struct Pairs<'a>(&'a [u8]);

impl<'a> Iterator for Pairs<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let (pair, rest) = self.0.split_at(first_semicolon(self.0));
        self.0 = rest.get(1..).unwrap_or_default();
        Some(pair.trim_ascii())
    }
}

/// Where it is, or the end. A block at a time, which the processor compares in one step.
fn first_semicolon(bytes: &[u8]) -> usize {
    let has_none = |block: &&[u8; 32]| !block.iter().fold(false, |any, byte| any | (*byte == b';'));
    let before = bytes.as_chunks().0.iter().take_while(has_none).count() * 32;
    let rest = &bytes[before..];
    before + rest.iter().position(|byte| *byte == b';').unwrap_or(rest.len())
}

/// Splits a cookie's value into id and signature.
fn decode(value: &[u8; VALUE_LENGTH]) -> Option<([u8; ID_LENGTH], [u8; TAG_LENGTH])> {
    let mut bytes = [0; SIGNED_LENGTH];
    if BASE64.decode_slice(value, &mut bytes) != Ok(SIGNED_LENGTH) {
        tracing::debug!("rejected a session cookie: it is malformed");
        return None;
    }
    let (id, tag) = bytes.split_first_chunk()?;
    Some((*id, tag.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::keys::Keys;

    fn found(config: &CookieConfig, keys: &Keys, headers: &[&[u8]]) -> Vec<VerifiedCookie> {
        let headers: Vec<HeaderValue> =
            headers.iter().map(|header| HeaderValue::from_bytes(header).unwrap()).collect();
        let keys = CurrentKeys::new(keys.clone());
        config.verified(&keys, &SeenCookies::new(), &headers).collect()
    }

    /// `name=value` as the browser sends it back.
    fn pair(config: &CookieConfig, keys: &Keys, id: &SessionId) -> String {
        config.signed(keys, id, None).to_str().unwrap().split(';').next().unwrap().to_string()
    }

    #[test]
    fn the_cookie_is_found_among_others_and_in_several_headers() {
        let (config, keys) = (CookieConfig::default(), Keys::generate());
        let ids = [(); 2].map(|()| SessionId::generate().unwrap());
        let [one, two] = ids.map(|id| pair(&config, &keys, &id));
        let first = format!("a=1; x__Host-id=no;{one} ;b");
        let found =
            found(&config, &keys, &[b"\xff\xfe=\x80; ;;=", first.as_bytes(), two.as_bytes()]);
        assert_eq!(found.iter().map(|cookie| cookie.id).collect::<Vec<_>>(), ids);
    }

    /// However many of them lie in one of the blocks that are looked at in one step.
    #[test]
    fn semicolons_end_a_pair_wherever_they_are() {
        for length in 0..200 {
            for other in [b';', b'a'] {
                let mut header = vec![other; length];
                assert_eq!(first_semicolon(&header), if other == b';' { 0 } else { length });
                header.push(b';');
                header.extend([b'a'; 40]);
                assert_eq!(first_semicolon(&header), if other == b';' { 0 } else { length });
            }
            let header =
                [&b";".repeat(length)[..], b"one", &b";".repeat(length + 1), b"two"].concat();
            let pairs: Vec<_> = Pairs(&header).filter(|pair| !pair.is_empty()).collect();
            assert_eq!(pairs, [b"one", b"two"], "{length}");
        }
    }

    #[test]
    fn what_does_not_verify_is_not_found() {
        let (config, keys) = (CookieConfig::default(), Keys::generate());
        let id = SessionId::generate().unwrap();
        let good = pair(&config, &keys, &id);
        let (name, value) = good.split_once('=').unwrap();
        let none = |header: &[u8]| assert_eq!(found(&config, &keys, &[header]), []);
        for end in 0..value.len() {
            none(format!("{name}={}", &value[..end]).as_bytes());
        }
        none(format!("{good}A").as_bytes());
        none(format!("{name}=\"{value}\"").as_bytes());
        none(format!("{name} ={value}").as_bytes());
        none(format!("{}={value}", name.to_lowercase()).as_bytes());
        none(&[name.as_bytes(), b"=", &[0xff; VALUE_LENGTH]].concat());
        none(&[name.as_bytes(), b"=", &[b'A'; 100_000]].concat());
        for at in 0..value.len() {
            let mut wrong = value.as_bytes().to_vec();
            wrong[at] = if wrong[at] == b'A' { b'B' } else { b'A' };
            none(&[name.as_bytes(), b"=", &wrong].concat());
        }
        let other_name = CookieConfig { name: "__Host-other".into(), ..config.clone() };
        none(pair(&other_name, &keys, &id).replace("__Host-other", name).as_bytes());
        none(pair(&config, &Keys::generate(), &id).as_bytes());
    }

    #[test]
    fn only_so_many_candidates_are_tried() {
        let (config, keys) = (CookieConfig::default(), Keys::generate());
        let good = pair(&config, &keys, &SessionId::generate().unwrap());
        for junk in [format!("__Host-id={};", "A".repeat(VALUE_LENGTH)), "__Host-id=;".into()] {
            let behind = |count: usize| {
                let header = junk.repeat(count) + &good;
                found(&config, &keys, &[header.as_bytes()]).len()
            };
            assert_eq!((behind(MOST_VALUES - 1), behind(MOST_VALUES)), (1, 0), "{junk}");
        }
        let signed = [(); MOST_VALUES].map(|()| SessionId::generate().unwrap());
        let header = signed.map(|id| pair(&config, &keys, &id)).join(";");
        let found = found(&config, &keys, &[header.as_bytes()]);
        assert!(found.iter().map(|cookie| &cookie.id).eq(&signed[..MOST_SIGNED]));
    }

    #[test]
    fn an_old_keys_cookie_is_told_apart() {
        let (config, old, new) = (CookieConfig::default(), Keys::generate(), Keys::generate());
        let cookie = pair(&config, &old, &SessionId::generate().unwrap());
        let ring = new.with_previous(old.clone());
        assert!(found(&config, &ring, &[cookie.as_bytes()])[0].by_old_key);
        assert!(!found(&config, &old, &[cookie.as_bytes()])[0].by_old_key);
    }
}
