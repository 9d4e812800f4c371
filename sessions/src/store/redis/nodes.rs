//! The nodes of a cluster, each on a connection of our own on which it tells what changes, for a near cache.
//!
//! The client's connection to a cluster hands on what nodes tell in a task of its own, so that an answer
//! would prove nothing about what was told before it. And a node answers for the slots alone that it is
//! the master of: who asks it learns from its refusal that it is so no more, and so does not take what a
//! demoted master hears by replication for all that was acknowledged.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult,
    ServerErrorKind, Value,
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
};

use tokio::time::Instant as TokioInstant;

use super::{
    connection::{Call, One, Work},
    managed::{Managed, Source},
    tracking::Tracking,
};
use crate::{
    identity::id::StoreKey,
    store::watch::{Feed, Watcher},
};

/// How many slots a cluster has.
const SLOTS: u16 = 16384;

/// How often it is asked anew which node has which slot, at most.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How often a call follows a node's word that another one has the slot.
const REDIRECTS: u32 = 3;

/// Where a node listens.
type Address = (String, u16);

pub(super) struct Nodes {
    /// How to connect, but for the address.
    info: ConnectionInfo,
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    watching: Option<(Watcher, String)>,
    /// Who has the slots up to which number.
    slots: Vec<(u16, Address)>,
    asked: Option<Instant>,
    nodes: HashMap<Address, Arc<Node>>,
}

struct Node {
    managed: Managed,
    /// A session that was asked of it last: for a question that only its master answers.
    last: Arc<Mutex<Option<StoreKey>>>,
}

impl Nodes {
    pub(super) fn new(info: ConnectionInfo, timeout: Duration) -> Self {
        Self { info, timeout, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has each node tell what changes, on connections that are made when they are needed.
    pub(super) fn track(&self, watcher: &Watcher, prefix: &str) {
        let mut state = self.state();
        state.watching = Some((watcher.clone(), prefix.to_string()));
        state.nodes.clear();
    }

    pub(super) fn are_tracked(&self) -> bool {
        self.state().watching.is_some()
    }

    /// Does `work` on the connection to the node that has the session. An error also if that node is not to
    /// be found or reached, or has the slot no more: then the client's connection to the cluster has to do it.
    pub(super) async fn query<R>(
        &self,
        key: &StoreKey,
        cluster: &ClusterConnection,
        work: &impl Work<R>,
        call: &mut Call<'_>,
    ) -> RedisResult<R> {
        let slot = slot_of(key);
        let mut redirected = 0;
        loop {
            let node = self.node(slot, cluster).await?;
            *node.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(*key);
            let answer = node.managed.query(work, call, TokioInstant::now()).await;
            let Err(error) = answer else { return answer };
            (call.feed, call.echo) = (None, None);
            let moved = error.kind() == ErrorKind::Server(ServerErrorKind::Moved);
            match error.redirect_node().filter(|_| moved && redirected < REDIRECTS) {
                Some((host, port)) => {
                    let address = (host.to_string(), port);
                    self.state().moved(slot, address);
                    redirected += 1;
                }
                None => {
                    self.state().slots.retain(|_| !error.is_io_error());
                    return Err(error);
                }
            }
        }
    }

    /// Asks the node of this feed for a sign of life; only the master of a slot answers.
    pub(super) async fn renew(&self, feed: &Feed, prefix: &str) -> RedisResult<()> {
        let nodes: Vec<_> = self.state().nodes.values().cloned().collect();
        let Some(node) = nodes.iter().find(|node| node.managed.has_feed(feed)) else {
            feed.end();
            return Ok(());
        };
        let Some(key) = *node.last.lock().unwrap_or_else(PoisonError::into_inner) else {
            return Ok(());
        };
        let mut ask = redis::cmd("PTTL");
        ask.arg(format!("{prefix}:{{{key}}}"));
        let mut call = Call::default();
        let answer: Value = node.managed.query(&One(&ask), &mut call, TokioInstant::now()).await?;
        drop(answer);
        Ok(())
    }

    async fn node(&self, slot: u16, cluster: &ClusterConnection) -> RedisResult<Arc<Node>> {
        if let Some(node) = self.known(slot)? {
            return Ok(node);
        }
        let is_asked = {
            let mut state = self.state();
            let is_recent = state.asked.is_some_and(|asked| asked.elapsed() < ASK_AGAIN);
            if !is_recent {
                state.asked = Some(Instant::now());
            }
            !is_recent
        };
        if is_asked {
            let answer: Value = ask_slots().query_async(&mut cluster.clone()).await?;
            self.state().slots = slots(&answer);
        }
        let words = "no node is known to have the slot";
        self.known(slot)?
            .ok_or_else(|| RedisError::from((ErrorKind::ClusterConnectionNotFound, words)))
    }

    fn known(&self, slot: u16) -> RedisResult<Option<Arc<Node>>> {
        let mut state = self.state();
        let at = state.slots.partition_point(|(last, _)| *last < slot);
        let Some((_, address)) = state.slots.get(at) else { return Ok(None) };
        if address.0.is_empty() {
            return Ok(None);
        }
        if let Some(node) = state.nodes.get(address) {
            return Ok(Some(node.clone()));
        }
        let address = address.clone();
        let last = Arc::default();
        let managed = Managed::new(Source::Address(self.client(&address)?), self.timeout);
        if let Some((watcher, prefix)) = &state.watching {
            managed.track(Tracking::new(watcher.clone(), prefix).near(&last));
        }
        let node = Arc::new(Node { managed, last });
        state.nodes.insert(address, node.clone());
        Ok(Some(node))
    }

    fn client(&self, (host, port): &Address) -> RedisResult<Client> {
        let (host, port) = (host.clone(), *port);
        let addr = match self.info.addr().clone() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure, tls_params }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        Client::open(self.info.clone().set_addr(addr))
    }
}

/// The nodes that have slots.
pub(super) async fn masters(cluster: &ClusterConnection) -> RedisResult<Vec<Address>> {
    let answer: Value = ask_slots().query_async(&mut cluster.clone()).await?;
    let mut masters: Vec<_> = slots(&answer).into_iter().map(|(_, address)| address).collect();
    masters.sort();
    masters.dedup();
    masters.retain(|(host, _)| !host.is_empty());
    Ok(masters)
}

/// Has one node answer.
pub(super) async fn ask(
    cluster: &ClusterConnection,
    (host, port): &Address,
    command: Cmd,
) -> RedisResult<Value> {
    let node = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
    cluster.clone().route_command(command, RoutingInfo::SingleNode(node)).await
}

fn ask_slots() -> Cmd {
    let mut ask = redis::cmd("CLUSTER");
    ask.arg("SLOTS");
    ask
}

impl State {
    /// Another node has this slot.
    fn moved(&mut self, slot: u16, address: Address) {
        let at = self.slots.partition_point(|(last, _)| *last < slot);
        let before = self.slots.get(at).map(|(_, address)| address.clone()).unwrap_or_default();
        let first = at.checked_sub(1).map_or(0, |at| self.slots[at].0 + 1);
        // The slots of the same node on both sides stay there.
        if first < slot {
            self.slots.insert(at, (slot - 1, before));
        }
        let at = self.slots.partition_point(|(last, _)| *last < slot);
        match self.slots.get_mut(at).filter(|(last, _)| *last == slot) {
            Some(known) => known.1 = address,
            None => self.slots.insert(at, (slot, address)),
        }
    }
}

/// The slot of a session's keys: the CRC16 (XMODEM) of what stands in the braces.
fn slot_of(key: &StoreKey) -> u16 {
    let crc = key.to_string().bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % SLOTS
}

/// Who has the slots up to which number, of the answer to `CLUSTER SLOTS`. A gap has an empty address.
fn slots(answer: &Value) -> Vec<(u16, Address)> {
    let Value::Array(ranges) = answer else { return Vec::new() };
    let mut found: Vec<(u16, u16, Address)> = ranges.iter().filter_map(range).collect();
    found.sort();
    let (mut slots, mut next) = (Vec::new(), 0);
    for (first, last, address) in found {
        if first > next {
            slots.push((first - 1, Address::default()));
        }
        slots.push((last, address));
        next = last + 1;
    }
    slots
}

fn range(range: &Value) -> Option<(u16, u16, Address)> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &parts[..] else {
        return None;
    };
    let [host, Value::Int(port), ..] = &master[..] else { return None };
    let host = match host {
        Value::BulkString(host) => String::from_utf8(host.clone()).ok()?,
        Value::SimpleString(host) => host.clone(),
        _ => return None,
    };
    let last = u16::try_from(*last).ok().filter(|last| *last < SLOTS)?;
    Some((u16::try_from(*first).ok()?, last, (host, u16::try_from(*port).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_servers() {
        // `CLUSTER KEYSLOT {0000…}` and `{0707…}`, of Redis 7.
        for (byte, slot) in [(0, 16090), (7, 11314)] {
            assert_eq!(slot_of(&StoreKey::from_bytes([byte; 32])), slot);
        }
    }

    #[test]
    fn a_slot_that_has_moved_moves_alone() {
        let address = |port| (String::from("h"), port);
        let mut state =
            State { slots: vec![(99, address(1)), (199, address(2))], ..State::default() };
        let at = |state: &State, slot| {
            let at = state.slots.partition_point(|(last, _)| *last < slot);
            state.slots.get(at).map_or(0, |(_, (_, port))| *port)
        };
        state.moved(50, address(2));
        state.moved(100, address(1));
        state.moved(0, address(3));
        state.moved(199, address(3));
        state.moved(300, address(4));
        let found = [0, 1, 49, 50, 51, 99, 100, 101, 198, 199, 200, 299, 300, 301];
        let found = found.map(|slot| at(&state, slot));
        assert_eq!(found, [3, 1, 1, 2, 1, 1, 1, 2, 2, 3, 0, 0, 4, 0]);
        assert!(state.slots.is_sorted());
    }

    #[test]
    fn what_the_cluster_says_is_understood() {
        let range = |first, last, port| {
            let master = vec![Value::BulkString(b"h".to_vec()), Value::Int(port)];
            Value::Array(vec![Value::Int(first), Value::Int(last), Value::Array(master)])
        };
        let answer = Value::Array(vec![range(100, 199, 2), range(0, 49, 1), Value::Nil]);
        let h = |port| (String::from("h"), port);
        assert_eq!(slots(&answer), [(49, h(1)), (99, Address::default()), (199, h(2))]);
        assert_eq!(slots(&Value::Nil), []);
    }
}
