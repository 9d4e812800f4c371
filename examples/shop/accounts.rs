//! The customers' accounts. They are kept in this process alone and end with it; a shop of your own
//! has them in its database, and slows down a client that tries one password after another.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier},
};
use tokio::{sync::Semaphore, task::spawn_blocking};

pub(crate) const LONGEST_NAME: usize = 40;
pub(crate) const SHORTEST_PASSWORD: usize = 8;
pub(crate) const LONGEST_PASSWORD: usize = 100;

const MOST_ACCOUNTS: usize = 10_000;

/// How many passwords are hashed at a time: each of them takes 19 MiB.
const HASHES_AT_A_TIME: usize = 4;

/// Why something was refused, for the customer to read.
pub(crate) type Problem = &'static str;

const NAME: Problem = "Please choose a name of letters, digits, spaces, dots and dashes, with at most \
                       40 of them.";
const PASSWORD: Problem = "Please choose a password with at least 8 characters, and at most 100.";
const TAKEN: Problem = "Somebody has this name already. Please choose another.";
const FULL: Problem = "The shop takes no more accounts.";
const WRONG_PASSWORD: Problem = "That is not your present password.";
const BROKEN: Problem = "That did not work. Please try again.";

pub(crate) struct Accounts {
    /// By name in small letters: `Ada` and `ada` are the same customer.
    accounts: Mutex<HashMap<String, Account>>,
    /// What a password is compared with if there is no account: nothing fits it.
    nobody: String,
    turns: Arc<Semaphore>,
}

#[derive(Clone)]
struct Account {
    /// As the customer writes it.
    name: String,
    /// With its salt and the settings that it was made with.
    hash: String,
}

impl Accounts {
    pub(crate) fn new() -> Result<Self, argon2::password_hash::Error> {
        Ok(Self {
            accounts: Mutex::default(),
            nobody: hash("")?,
            turns: Arc::new(Semaphore::new(HASHES_AT_A_TIME)),
        })
    }

    /// Opens an account, and gives back its name.
    pub(crate) async fn sign_up(&self, name: &str, password: String) -> Result<String, Problem> {
        let name = name.trim().to_string();
        let may_stand = |c: char| c.is_alphanumeric() || " .-_".contains(c);
        if !(1..=LONGEST_NAME).contains(&name.chars().count()) || !name.chars().all(may_stand) {
            return Err(NAME);
        }
        let hash = self.hash(password).await?;
        let mut accounts = self.lock();
        let is_full = accounts.len() >= MOST_ACCOUNTS;
        match accounts.entry(name.to_lowercase()) {
            Entry::Occupied(_) => Err(TAKEN),
            Entry::Vacant(_) if is_full => Err(FULL),
            Entry::Vacant(place) => {
                place.insert(Account { name: name.clone(), hash });
                Ok(name)
            }
        }
    }

    /// The account's name, if there is one and this is its password. Takes as long if there is none,
    /// so that nobody learns from it who has an account.
    pub(crate) async fn check(&self, name: &str, password: String) -> Option<String> {
        let account = self.lock().get(&name.trim().to_lowercase()).cloned();
        let hash = account.as_ref().map_or(&self.nobody, |account| &account.hash).clone();
        let fits =
            self.in_turn(move || Argon2::default().verify_password(password.as_bytes(), &*hash));
        let fits = fits.await?.is_ok();
        account.filter(|_| fits).map(|account| account.name)
    }

    /// Puts a new password in the place of the old one.
    pub(crate) async fn change_password(
        &self,
        name: &str,
        old: String,
        new: String,
    ) -> Result<(), Problem> {
        self.check(name, old).await.ok_or(WRONG_PASSWORD)?;
        let hash = self.hash(new).await?;
        let mut accounts = self.lock();
        accounts.get_mut(&name.to_lowercase()).ok_or(BROKEN)?.hash = hash;
        Ok(())
    }

    async fn hash(&self, password: String) -> Result<String, Problem> {
        if !(SHORTEST_PASSWORD..=LONGEST_PASSWORD).contains(&password.chars().count()) {
            return Err(PASSWORD);
        }
        let hash = self.in_turn(move || hash(&password)).await.ok_or(BROKEN)?;
        hash.map_err(|error| {
            tracing::error!("a password was not hashed: {error}");
            BROKEN
        })
    }

    /// Does what takes long beside the requests, not in their way. It goes on, and keeps its turn, even
    /// if the client has hung up.
    async fn in_turn<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let turn = self.turns.clone().acquire_owned().await.ok()?;
        let result = spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        result.await.ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Argon2id, with the settings that OWASP's Password Storage Cheat Sheet recommends.
fn hash(password: &str) -> Result<String, argon2::password_hash::Error> {
    Ok(Argon2::default().hash_password(password.as_bytes())?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::new().expect("random numbers")
    }

    async fn sign_up(accounts: &Accounts, name: &str, password: &str) -> Result<String, Problem> {
        accounts.sign_up(name, password.to_string()).await
    }

    async fn check(accounts: &Accounts, name: &str, password: &str) -> Option<String> {
        accounts.check(name, password.to_string()).await
    }

    #[tokio::test]
    async fn an_account_opens_with_its_password_alone() {
        let accounts = accounts();
        assert_eq!(sign_up(&accounts, " Zoë ", "correct horse").await.unwrap(), "Zoë");
        assert_eq!(check(&accounts, "zoë", "correct horse").await.unwrap(), "Zoë");
        for (name, password) in [
            ("Zoë", "correct horsf"),
            ("Zoë", ""),
            ("Zoe", "correct horse"),
            ("nobody", ""),
            ("", ""),
        ] {
            assert_eq!(check(&accounts, name, password).await, None, "{name} {password}");
        }
        assert_eq!(sign_up(&accounts, "ZOË", "another one").await, Err(TAKEN));

        let change = async |old: &str, new: &str| {
            accounts.change_password("Zoë", old.to_string(), new.to_string()).await
        };
        assert_eq!(change("wrong horse", "battery staple").await, Err(WRONG_PASSWORD));
        assert_eq!(change("correct horse", "short").await, Err(PASSWORD));
        assert_eq!(change("correct horse", "battery staple").await, Ok(()));
        assert_eq!(check(&accounts, "Zoë", "correct horse").await, None);
        assert_eq!(check(&accounts, "Zoë", "battery staple").await.unwrap(), "Zoë");
    }

    #[tokio::test]
    async fn names_and_passwords_have_bounds() {
        let accounts = accounts();
        for name in ["", "  ", "a\nb", "<b>", &"a".repeat(41)] {
            assert_eq!(sign_up(&accounts, name, "correct horse").await, Err(NAME), "{name}");
        }
        for password in ["", "1234567", &"a".repeat(101)] {
            assert_eq!(sign_up(&accounts, "Ada", password).await, Err(PASSWORD));
        }
        let longest = (&*"ä".repeat(40), &*"ä".repeat(100));
        assert!(sign_up(&accounts, longest.0, longest.1).await.is_ok());
        assert!(check(&accounts, longest.0, longest.1).await.is_some());
    }
}
