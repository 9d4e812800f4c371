//! The layers of this process, so that two that would answer to each other's cookies are noticed when
//! the second is built. In decreasing order of harm, of two layers with a key and a cookie's name in
//! common:
//!
//! 1. Different types with one name: the cookie of one opens a session of the other. An error.
//! 2. Different types whose cookies a browser keeps in one place: each login with one logs the other
//!    one out. An error.
//! 3. One type, twice: each opens what the other began, as two processes do. A warning, because that
//!    may be what the application wants, and because a test of several processes does just that.
//!
//! With bound sessions (feature `device-bound`), also of two layers with a key in common:
//!
//! 4. One's session cookie has the name of the other's bound cookie. An error.
//! 5. Both tell browsers the same paths for their bindings: where both are in one application, the outer
//!    one answers for both. An error.
//!
//! And of two layers that have neither in common: different types with one name, both with users. Their
//! users are the same to a store. A warning, because nobody sees here whether they share one.
//!
//! Clones of a layer are one layer.

use std::{
    any::{TypeId, type_name},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::{
    cookie::CookieConfig,
    data::SessionData,
    error::BuildError,
    identity::keys::{Keys, Label},
};

static LAYERS: Mutex<Vec<Weak<Neighbour>>> = Mutex::new(Vec::new());

/// What other layers of the process have to know of one; gone when the layer is.
pub(crate) struct Neighbour {
    data: TypeId,
    data_path: &'static str,
    data_name: &'static str,
    cookie: CookieConfig,
    /// Changed under the lock of all layers alone.
    labels: Mutex<Vec<Label>>,
    has_users: bool,
    tenant: Option<Box<str>>,
    #[cfg(feature = "device-bound")]
    bound: Option<BoundNames>,
}

/// What a layer that binds sessions to devices takes for itself beside its session cookie.
#[cfg(feature = "device-bound")]
#[derive(Clone)]
pub(crate) struct BoundNames {
    /// The name of the bound cookie. Its path is that of the session cookie, and it has no domain.
    pub(crate) cookie: String,
    /// The path of the registration, as browsers see it. That of a refresh stands beside it.
    pub(crate) path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Strangers,
    SameUsers,
    SameName,
    SameCookie,
    SameType,
}

impl Neighbour {
    /// The layer for `T` with these settings, before the keys are made those of its type.
    pub(crate) fn new<T: SessionData>(cookie: &CookieConfig, keys: &Keys) -> Self {
        Self {
            data: TypeId::of::<T>(),
            data_path: type_name::<T>(),
            data_name: T::__NAME,
            cookie: cookie.clone(),
            labels: Mutex::new(keys.labels().collect()),
            has_users: T::FIELDS.iter().any(|field| field.user),
            tenant: keys.tenant().map(Into::into),
            #[cfg(feature = "device-bound")]
            bound: None,
        }
    }

    /// The layer with what it takes for itself to bind sessions to devices.
    #[cfg(feature = "device-bound")]
    pub(crate) fn with_bound(self, bound: Option<BoundNames>) -> Self {
        Self { bound, ..self }
    }

    /// Enters the layer, unless one is there that it must not stand beside.
    pub(crate) fn register(self) -> Result<Arc<Self>, BuildError> {
        // A thread that panics under this lock has changed nothing.
        let mut layers = LAYERS.lock().unwrap_or_else(PoisonError::into_inner);
        layers.retain(|layer| layer.strong_count() > 0);
        for other in layers.iter().filter_map(Weak::upgrade) {
            self.check_beside(&other)?;
            #[cfg(feature = "device-bound")]
            self.check_bound_beside(&other)?;
        }
        let layer = Arc::new(self);
        layers.push(Arc::downgrade(&layer));
        Ok(layer)
    }

    /// Notes other keys of the layer, unless one is there that it must not stand beside with those.
    pub(crate) fn replace_keys(&self, keys: &Keys) -> Result<(), BuildError> {
        let layers = LAYERS.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *self.labels(), keys.labels().collect());
        let is_another = |other: &Arc<Self>| !std::ptr::eq(&**other, self);
        let mut others = layers.iter().filter_map(Weak::upgrade).filter(is_another);
        let check = |other: &Self| {
            self.check_beside(other)?;
            #[cfg(feature = "device-bound")]
            self.check_bound_beside(other)?;
            Ok(())
        };
        others.try_for_each(|other| check(&other)).inspect_err(|_| {
            *self.labels() = before;
        })
    }

    fn labels(&self) -> MutexGuard<'_, Vec<Label>> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_beside(&self, other: &Self) -> Result<(), BuildError> {
        let Self { data_path, data_name, cookie, .. } = self;
        let (other_path, cookie) = (other.data_path, &cookie.name);
        match self.relation(other) {
            Relation::Strangers => Ok(()),
            Relation::SameUsers => {
                tracing::warn!(
                    "`{other_path}` and `{data_path}` are both called `{data_name}`: in a store that \
                     they share, the users of one are the users of the other, who see and end each \
                     other's sessions. Give one of the types another name, as in \
                     `#[session(name = \"other-{data_name}\")]`"
                );
                Ok(())
            }
            Relation::SameName => Err(BuildError::new(format!(
                "the layers of `{other_path}` and `{data_path}` have a key and the cookie `{cookie}` \
                 in common, and both types are called `{data_name}`: the cookie of one would open \
                 a session of the other. Give one of the types another name, as in \
                 `#[session(name = \"other-{data_name}\")]`"
            ))),
            Relation::SameCookie => Err(BuildError::new(format!(
                "the layers of `{other_path}` and `{data_path}` have a key and the cookie `{cookie}` \
                 in common: a browser keeps one cookie of that name, so that each would log the \
                 other's users out. Give one of the layers another name with `with_cookie_name`; or, \
                 if they never serve the same host, keys of its own with `Keys::for_tenant`"
            ))),
            Relation::SameType => {
                tracing::warn!(
                    data = data_path,
                    cookie = &**cookie,
                    "two layers of one type answer to each other's cookies: clone the layer instead \
                     of building it twice, or, if they serve two tenants, give each keys of its own \
                     with `Keys::for_tenant`"
                );
                Ok(())
            }
        }
    }

    fn has_a_key_of(&self, other: &Self) -> bool {
        // One after the other, also where the two are one.
        let labels = self.labels().clone();
        other.labels().iter().any(|label| labels.contains(label))
    }

    fn relation(&self, other: &Self) -> Relation {
        let (cookie, others) = (&self.cookie, &other.cookie);
        // A partitioned cookie and one that is not are two to a browser.
        let is_one_cookie = (&cookie.domain, &cookie.path, cookie.partitioned)
            == (&others.domain, &others.path, others.partitioned);
        let have_the_same_users = self.data != other.data
            && self.data_name == other.data_name
            && self.tenant == other.tenant
            && self.has_users
            && other.has_users;
        if !self.has_a_key_of(other) || cookie.name != others.name {
            if have_the_same_users { Relation::SameUsers } else { Relation::Strangers }
        } else if self.data == other.data {
            Relation::SameType
        } else if self.data_name == other.data_name {
            Relation::SameName
        } else if is_one_cookie {
            Relation::SameCookie
        } else {
            Relation::Strangers
        }
    }
}

#[cfg(feature = "device-bound")]
impl Neighbour {
    fn check_bound_beside(&self, other: &Self) -> Result<(), BuildError> {
        if !self.has_a_key_of(other) {
            return Ok(());
        }
        let name = self.taken_by(other).or_else(|| other.taken_by(self));
        if let Some(name) = name {
            let (one, two) = (other.data_path, self.data_path);
            return Err(BuildError::new(format!(
                "the layers of `{one}` and `{two}` have a key in common, and the session cookie of \
                 one has the name of the other's bound cookie, `{name}`: each would replace the \
                 other's cookie. Give one of the layers another name with `with_cookie_name`"
            )));
        }
        // Two layers of one type with one cookie answer for each other, as two processes do.
        let is_one_layer = self.data == other.data && self.cookie.name == other.cookie.name;
        match (&self.bound, &other.bound) {
            (Some(bound), Some(others)) if bound.path == others.path && !is_one_layer => {
                Err(BuildError::new(format!(
                    "the layers of `{}` and `{}` have a key in common, and `bind_to_device` of both \
                     tells browsers the path `{}`: in one application the outer layer would answer \
                     for both, and refuse what is the inner one's. Give one of them another path with \
                     `DeviceBinding::with_path`; or, if they never serve the same host, keys of its \
                     own with `Keys::for_tenant`",
                    other.data_path, self.data_path, bound.path
                )))
            }
            _ => Ok(()),
        }
    }

    /// The name of this layer's session cookie, if a browser keeps it where the other one's bound cookie
    /// is.
    fn taken_by(&self, other: &Self) -> Option<&str> {
        let Self { cookie, .. } = self;
        let bound = other.bound.as_ref()?;
        let is_one_cookie = cookie.name == bound.cookie
            && (cookie.domain.is_none(), cookie.partitioned, &cookie.path)
                == (true, other.cookie.partitioned, &other.cookie.path);
        is_one_cookie.then_some(&*cookie.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One;
    struct Two;

    fn layer<T: 'static>(
        name: &'static str,
        cookie: (&'static str, &'static str),
        keys: &Keys,
    ) -> Neighbour {
        let mut settings = CookieConfig::default();
        (settings.name, settings.path) = (cookie.0.into(), cookie.1.into());
        Neighbour {
            data: TypeId::of::<T>(),
            data_path: type_name::<T>(),
            data_name: name,
            cookie: settings,
            labels: Mutex::new(keys.labels().collect()),
            has_users: false,
            tenant: keys.tenant().map(Into::into),
            #[cfg(feature = "device-bound")]
            bound: None,
        }
    }

    #[cfg(feature = "device-bound")]
    #[test]
    fn what_a_bound_layer_takes_for_itself_is_no_other_layers() {
        let (keys, others) = (Keys::generate(), Keys::generate());
        let bound = |neighbour: Neighbour, path: &str| {
            let cookie = [&neighbour.cookie.name, "-device"].concat();
            neighbour.with_bound(Some(BoundNames { cookie, path: path.into() }))
        };
        let one = bound(layer::<One>("One", ("id", "/"), &keys), "/d/register");
        let mut with_domain = layer::<Two>("Two", ("id-device", "/"), &keys);
        with_domain.cookie.domain = Some("a.example".into());
        let table = [
            ("its cookie", layer::<Two>("Two", ("id-device", "/"), &keys), Some("bound cookie")),
            (
                "of its own type",
                layer::<One>("One", ("id-device", "/"), &keys),
                Some("bound cookie"),
            ),
            ("other keys", layer::<Two>("Two", ("id-device", "/"), &others), None),
            ("another path", layer::<Two>("Two", ("id-device", "/a"), &keys), None),
            ("a domain", with_domain, None),
            ("another cookie", layer::<Two>("Two", ("id2", "/"), &keys), None),
            (
                "its paths",
                bound(layer::<Two>("Two", ("id2", "/"), &keys), "/d/register"),
                Some("`DeviceBinding::with_path`"),
            ),
            (
                "its paths, of its own type",
                bound(layer::<One>("One", ("id2", "/"), &keys), "/d/register"),
                Some("`DeviceBinding::with_path`"),
            ),
            ("other paths", bound(layer::<Two>("Two", ("id2", "/"), &keys), "/e/register"), None),
            ("a tenant", bound(layer::<Two>("Two", ("id2", "/"), &others), "/d/register"), None),
            ("twice", bound(layer::<One>("One", ("id", "/"), &keys), "/d/register"), None),
        ];
        for (case, other, words) in table {
            for (first, second) in [(&one, &other), (&other, &one)] {
                let found = second.check_bound_beside(first).map_err(|error| error.to_string());
                match (words, found) {
                    (None, found) => assert_eq!(found, Ok(()), "{case}"),
                    (Some(words), found) => {
                        let message = found.expect_err(case);
                        assert!(message.contains(words), "{case}: {message}");
                    }
                }
            }
        }
    }

    #[test]
    fn types_of_one_name_have_the_same_users() {
        let keys = Keys::generate();
        let with_users = |neighbour| Neighbour { has_users: true, ..neighbour };
        let one = with_users(layer::<One>("Member", ("one", "/"), &keys));
        let others = Keys::generate();
        let table = [
            ("another cookie", layer::<Two>("Member", ("two", "/"), &keys), Relation::SameUsers),
            ("other keys", layer::<Two>("Member", ("one", "/"), &others), Relation::SameUsers),
            ("another name", layer::<Two>("Other", ("two", "/"), &keys), Relation::Strangers),
            ("one type", layer::<One>("Member", ("two", "/"), &keys), Relation::Strangers),
            (
                "a tenant",
                layer::<Two>("Member", ("two", "/"), &keys.for_tenant("a")),
                Relation::Strangers,
            ),
        ];
        for (case, other, relation) in table {
            let other = with_users(other);
            assert_eq!(other.relation(&one), relation, "{case}");
            assert_eq!(one.relation(&other), relation, "{case}, the other way round");
            let without = Neighbour { has_users: false, ..other };
            assert_eq!(one.relation(&without), Relation::Strangers, "{case}, no users");
        }
    }

    #[test]
    fn every_relation() {
        use Relation::{SameCookie, SameName, SameType, Strangers};
        let keys = Keys::generate();
        let ring = Keys::generate().with_previous(keys.clone());
        let one = layer::<One>("One", ("id", "/"), &keys);
        let mut partitioned = layer::<Two>("Two", ("id", "/"), &keys);
        partitioned.cookie.partitioned = true;
        let table = [
            ("the same again", layer::<One>("One", ("id", "/"), &keys), SameType),
            ("a key in common", layer::<One>("One", ("id", "/"), &ring), SameType),
            ("another path", layer::<One>("One", ("id", "/a"), &keys), SameType),
            ("another cookie", layer::<One>("One", ("id2", "/"), &keys), Strangers),
            ("other keys", layer::<One>("One", ("id", "/"), &Keys::generate()), Strangers),
            ("a tenant", layer::<One>("One", ("id", "/"), &keys.for_tenant("a")), Strangers),
            ("another type", layer::<Two>("Two", ("id", "/"), &keys), SameCookie),
            ("another type and path", layer::<Two>("Two", ("id", "/a"), &keys), Strangers),
            ("another type, partitioned", partitioned, Strangers),
            ("another type and cookie", layer::<Two>("Two", ("id2", "/"), &keys), Strangers),
            ("another type's name", layer::<Two>("One", ("id", "/"), &keys), SameName),
            ("another type's name and path", layer::<Two>("One", ("id", "/a"), &ring), SameName),
            ("another type's name and cookie", layer::<Two>("One", ("id2", "/"), &keys), Strangers),
        ];
        for (case, other, relation) in table {
            assert_eq!(other.relation(&one), relation, "{case}");
            assert_eq!(one.relation(&other), relation, "{case}, the other way round");
        }
    }

    #[test]
    fn a_layer_that_is_gone_is_nobodys_neighbour() {
        let keys = Keys::generate();
        let one = layer::<One>("One", ("id", "/"), &keys).register().unwrap();
        let refused = layer::<Two>("Two", ("id", "/"), &keys).register().err().unwrap().to_string();
        assert!(refused.contains("`with_cookie_name`"), "{refused}");
        let refused = layer::<Two>("One", ("id", "/"), &keys).register().err().unwrap().to_string();
        assert!(refused.contains("#[session(name = "), "{refused}");
        drop(one);
        layer::<Two>("Two", ("id", "/"), &keys).register().unwrap();
    }
}
