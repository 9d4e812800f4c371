//! A store of your own, whole: one file for each session, in a folder.
//!
//! Run it with `cargo run -p sessions-examples --bin custom_store`, reload the page, and look
//! into the folder that it names. The conformance suite of `sessions` says whether it is right:
//! `cargo test -p sessions-examples --bin custom_store`.
//!
//! It is for one process: between processes the files would need locks, too.
//!
//! ```text
//! cargo add axum sessions
//! cargo add tokio --features macros,net,rt-multi-thread
//! cargo add sessions --dev --features testing
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Router, routing::get};
use sessions::{
    Created, Keys, Record, Replaced, Session, SessionLayer, Store, StoreError, StoreKey,
};
use tokio::{net::TcpListener, task::spawn_blocking};

#[derive(Clone)]
struct FolderStore {
    /// Locked while a file is read and written: what `replace` compares must not change before it
    /// writes. One lock for all sessions is simple; a lock for each would be faster.
    folder: Arc<Mutex<PathBuf>>,
}

impl FolderStore {
    fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        Ok(Self { folder: Arc::new(Mutex::new(folder)) })
    }

    /// Does something to the file of one session, on a thread that may wait for the disk. If the
    /// future is dropped, the thread still finishes: nothing is ever done in part.
    async fn with_file<R: Send + 'static>(
        &self,
        operation: &'static str,
        key: &StoreKey,
        work: impl FnOnce(&Path) -> io::Result<R> + Send + 'static,
    ) -> Result<R, StoreError> {
        let (folder, name) = (self.folder.clone(), key.to_string());
        let task = spawn_blocking(move || {
            let folder = folder.lock().unwrap_or_else(PoisonError::into_inner);
            work(&folder.join(name))
        });
        let failed = |error: io::Error| StoreError::new("folder", operation, error);
        task.await.map_err(|error| failed(error.into()))?.map_err(failed)
    }
}

/// The live record in a file. What has expired counts as absent, and goes when it is met.
fn read(file: &Path) -> io::Result<Option<Record>> {
    let bytes = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "not a session");
    let record = decode(&bytes).ok_or_else(broken)?;
    if record.is_expired(SystemTime::now()) {
        fs::remove_file(file)?;
        return Ok(None);
    }
    Ok(Some(record))
}

/// Another file is written first and then takes the place of the old one, which is done at once or
/// not at all, also when the program ends in between. (Against a loss of power the new file would have to be
/// synced before it is renamed.)
fn write(file: &Path, record: &Record) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, encode(record))?;
    fs::rename(new, file)
}

/// Three numbers, the user (with a byte before it that says if there is one), the payload.
fn encode(record: &Record) -> Vec<u8> {
    let millis = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    };
    let user = record.user.as_deref().unwrap_or_default();
    let numbers = [record.version, millis(record.created_at), millis(record.expires_at)];
    let mut bytes: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
    bytes.push(record.user.is_some().into());
    bytes.extend((user.len() as u64).to_le_bytes());
    bytes.extend(user.as_bytes());
    bytes.extend(&*record.payload);
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<Record> {
    let mut number = || {
        let (number, rest) = bytes.split_first_chunk()?;
        bytes = rest;
        Some(u64::from_le_bytes(*number))
    };
    let (version, created, expires) = (number()?, number()?, number()?);
    let (has_user, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (user, payload) = rest.split_at_checked(length)?;
    let user = std::str::from_utf8(user).ok()?;
    let time = |millis| UNIX_EPOCH.checked_add(Duration::from_millis(millis));
    Some(
        Record::new(version, time(created)?, time(expires)?, payload)
            .with_user((*has_user == 1).then(|| user.into())),
    )
}

impl Store for FolderStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.with_file("load", key, read).await
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let record = record.clone();
        let create = move |file: &Path| match read(file)? {
            Some(_) => Ok(Created::Exists),
            None => write(file, &record).map(|()| Created::Done),
        };
        self.with_file("create", key, create).await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let record = record.clone();
        let replace = move |file: &Path| match read(file)? {
            None => Ok(Replaced::Missing),
            Some(found) if found.version != based_on => Ok(Replaced::Changed),
            Some(_) => write(file, &record).map(|()| Replaced::Done),
        };
        self.with_file("replace", key, replace).await
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        let touch = move |file: &Path| match read(file)? {
            Some(found) if found.expires_at < expires_at => {
                write(file, &found.with_expires_at(expires_at))
            }
            _ => Ok(()),
        };
        self.with_file("touch", key, touch).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let delete = |file: &Path| match read(file)? {
            Some(_) => fs::remove_file(file).map(|()| true),
            None => Ok(false),
        };
        self.with_file("delete", key, delete).await
    }
}

#[derive(Session)]
struct Visitor {
    visits: u32,
}

async fn index(session: Session<Visitor>) -> String {
    let mut s = session.write().await;
    *s.visits_mut() += 1;
    format!("{} visits", s.visits)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join("sessions-custom-store");
    let store = FolderStore::open(&folder)?;
    // In a real program `Keys::from_env`: with a generated key nobody comes back after a restart.
    let layer = SessionLayer::<Visitor>::new(store, Keys::generate());
    let port = std::env::args().nth(1).unwrap_or("3000".to_string());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("custom_store keeps its sessions in {}", folder.display());
    println!("and listens on http://{}", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/", get(index)).layer(layer)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_promises_of_a_store() {
        let name = format!("sessions-custom-store-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let store = FolderStore::open(&folder).unwrap();
        sessions::testing::conformance(store.clone()).await;

        let key = StoreKey::from_bytes([7; 32]);
        fs::write(folder.join(key.to_string()), "junk").unwrap();
        assert!(store.load(&key).await.is_err(), "what is no session is an error");
        fs::remove_dir_all(folder).unwrap();
    }
}
