//! A connection to a cluster on which a session is read from its master.
//!
//! The application's connection may read from replicas. A replica is behind, so that a session which has just
//! begun would not be found; and while a slot is moved to another master, Redis's replicas say "there is
//! none" of what has been moved, where the master says who has it. Either would log a visitor out.

use std::collections::HashMap;

use redis::{
    Arg, Cmd, Pipeline, RedisFuture, Value,
    aio::ConnectionLike,
    cluster_async::ClusterConnection,
    cluster_routing::{
        MultiSlotArgPattern, MultipleNodeRoutingInfo, ResponsePolicy, Route, RoutingInfo,
        SingleNodeRoutingInfo, SlotAddr,
    },
};

pub(super) struct Masters(pub(super) ClusterConnection);

impl ConnectionLike for Masters {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match route(command) {
            Some(route) => Box::pin(self.0.route_command(command.clone(), route)),
            None => self.0.req_packed_command(command),
        }
    }

    /// In each of them is a script, which goes to the master and takes the others along.
    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.0.req_packed_commands(commands, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.0.get_db()
    }
}

/// Where what only reads is to go; nothing of other commands, which the client knows to be the master's.
fn route(command: &Cmd) -> Option<RoutingInfo> {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(word) => word,
        _ => &[],
    });
    let name = words.next()?;
    let master = |key: &[u8]| Route::with_key(key, SlotAddr::Master);
    match name {
        b"GET" | b"ZRANGE" => {
            let node = SingleNodeRoutingInfo::SpecificNode(master(words.next()?));
            Some(RoutingInfo::SingleNode(node))
        }
        b"MGET" => {
            let mut routes: HashMap<Route, Vec<usize>> = HashMap::new();
            for (index, key) in words.enumerate() {
                routes.entry(master(key)).or_default().push(index);
            }
            let routes = (routes.into_iter().collect(), MultiSlotArgPattern::KeysOnly);
            let nodes = MultipleNodeRoutingInfo::MultiSlot(routes);
            Some(RoutingInfo::MultiNode((nodes, Some(ResponsePolicy::CombineArrays))))
        }
        _ => None,
    }
}
