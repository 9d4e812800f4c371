//! A store whose calls a test lets happen one after the other, each with the outcome that the test chooses.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use sessions::{
    Created, DynUserIndex, Record, Replaced, Store, StoreError, StoreKey, UserIndex,
    testing::ManualClock,
};
use tokio::sync::oneshot;

use super::{Goes, Index, USER};

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: StoreKey,
    pub(super) record: Record,
    /// By what its process had been answered when it wrote this: what stands for the key, and for the record,
    /// whose random numbers are other ones in each run.
    pub(super) created_by: u64,
    pub(super) written_by: u64,
}

#[derive(Debug)]
pub(super) struct Waiting {
    /// What stands for the call.
    pub(super) id: u64,
    /// It has been carried out, and its answer is on its way.
    pub(super) is_answer: bool,
    pub(super) go: oneshot::Sender<Goes>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    /// The calls that wait for their turn, in the order in which they came.
    pub(super) waiting: Vec<Waiting>,
    pub(super) is_free: bool,
    /// By process: what it has been answered.
    pub(super) answered: Vec<u64>,
    /// How many sessions the user had, at each moment at which that has changed.
    pub(super) history: Vec<(SystemTime, usize)>,
}

impl Table {
    fn find(&self, key: &StoreKey) -> Option<&Row> {
        self.rows.iter().find(|row| row.key == *key)
    }

    pub(super) fn of_user(&self, user: &str) -> Vec<Row> {
        let is_theirs = |row: &&Row| row.record.user.as_deref() == Some(user);
        self.rows.iter().filter(is_theirs).cloned().collect()
    }

    fn delete(&mut self, key: &StoreKey) -> bool {
        let before = self.rows.len();
        self.rows.retain(|row| row.key != *key);
        self.rows.len() < before
    }
}

pub(super) fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A store each of whose calls waits for its turn.
#[derive(Clone, Debug)]
pub(super) struct Scripted {
    pub(super) table: Arc<Mutex<Table>>,
    pub(super) clock: ManualClock,
    pub(super) index: Index,
    pub(super) process: usize,
    /// Other calls may happen before an answer arrives.
    pub(super) is_slow: bool,
}

impl Scripted {
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    /// `call` gets the table, and what stands for what it writes; it gives the answer, and what stands for that.
    async fn call<R: Send, H: Hash>(
        &self,
        name: &'static str,
        key: Option<&StoreKey>,
        call: impl FnOnce(&mut Table, u64) -> (R, H) + Send,
    ) -> Result<R, StoreError> {
        let (go, goes) = oneshot::channel();
        {
            let mut table = self.table();
            if table.is_free {
                return Ok(call(&mut table, 0).0);
            }
            let row = key.and_then(|key| table.find(key));
            let id = hash((self.process, name, row.map(|row| row.created_by)));
            table.waiting.push(Waiting { id, is_answer: false, go });
        }
        let error = || StoreError::new("scripted", name, "it fails");
        let goes = goes.await.map_err(|_| error())?;
        let (answer, arrives) = {
            let mut table = self.table();
            let id = key.and_then(|key| table.find(key)).map(|row| row.created_by);
            let writer = hash((self.process, table.answered[self.process], name, id));
            let answer = (goes != Goes::Refused).then(|| call(&mut table, writer));
            let live = table.of_user(&name_of(USER)).len();
            table.history.push((self.clock.now(), live));
            let answer = answer.filter(|_| goes == Goes::Well);
            let shape = answer.as_ref().map(|answer| hash(&answer.1));
            table.answered[self.process] = hash((writer, shape));
            let (go, arrives) = oneshot::channel();
            if self.is_slow {
                table.waiting.push(Waiting { id: writer, is_answer: true, go });
            }
            (answer.map(|answer| answer.0), arrives)
        };
        if self.is_slow {
            let _ = arrives.await;
        }
        answer.ok_or_else(error)
    }
}

pub(super) fn name_of(user: u64) -> String {
    format!("Data:{user}")
}

impl Store for Scripted {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.call("load", Some(key), |table, _| {
            let row = table.find(key);
            (row.map(|row| row.record.clone()), row.map(|row| row.written_by))
        })
        .await
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        self.call("create", Some(key), |table, writer| {
            if table.find(key).is_some() {
                return (Created::Exists, 0);
            }
            let (key, record) = (*key, record.clone());
            table.rows.push(Row { key, record, created_by: writer, written_by: writer });
            (Created::Done, 1)
        })
        .await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        self.call("replace", Some(key), |table, writer| {
            match table.rows.iter_mut().find(|row| row.key == *key) {
                None => (Replaced::Missing, 0),
                Some(row) if row.record.version != based_on => (Replaced::Changed, 1),
                Some(row) => {
                    (row.record, row.written_by) = (record.clone(), writer);
                    (Replaced::Done, 2)
                }
            }
        })
        .await
    }

    async fn touch(&self, _: &StoreKey, _: SystemTime) -> Result<(), StoreError> {
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let delete = |table: &mut Table, _| {
            let was_there = table.delete(key);
            (was_there, was_there)
        };
        self.call("delete", Some(key), delete).await
    }

    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        Some(self)
    }
}

impl UserIndex for Scripted {
    async fn sessions_of(&self, user: &str) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let list = |table: &mut Table, _| {
            let rows = table.of_user(user);
            let ids: Vec<_> = rows.iter().map(|row| row.written_by).collect();
            (rows, ids)
        };
        let listed = self.call("sessions_of", None, list).await?;
        if self.index == Index::OneStep {
            return Ok(listed.into_iter().map(|row| (row.key, row.record)).collect());
        }
        let mut keys: Vec<StoreKey> = listed.into_iter().map(|row| row.key).collect();
        loop {
            let mut found = Vec::new();
            for key in &keys {
                let record = self.load(key).await?;
                let theirs = record.filter(|it| it.user.as_deref() == Some(user));
                found.extend(theirs.map(|it| (*key, it)));
            }
            if found.len() == keys.len() {
                return Ok(found);
            }
            // As the documentation of the trait demands.
            let now: Vec<_> =
                self.call("sessions_of", None, list).await?.into_iter().map(|it| it.key).collect();
            if now.iter().all(|key| keys.contains(key)) {
                return Ok(found);
            }
            keys = now;
        }
    }

    async fn delete_sessions_of(
        &self,
        user: &str,
        except: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        if self.index == Index::TwoSteps {
            let mut deleted = 0;
            for (key, _) in self.sessions_of(user).await? {
                deleted += u64::from(Some(&key) != except && self.delete(&key).await?);
            }
            return Ok(deleted);
        }
        self.call("delete_sessions_of", None, |table, _| {
            let before = table.rows.len();
            table
                .rows
                .retain(|row| Some(&row.key) == except || row.record.user.as_deref() != Some(user));
            let deleted = (before - table.rows.len()) as u64;
            (deleted, deleted)
        })
        .await
    }
}
