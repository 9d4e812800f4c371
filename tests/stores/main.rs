//! The stores on real servers: what `Store` promises, what each adds to it, and what becomes of
//! both when a server is killed.

mod app;
mod cached_orders;
mod checks;
mod cut;
mod memcached;
mod migrating;
mod migrating_orders;
mod mirrored_orders;
mod near;
mod near_history;
mod near_postgres;
mod nginx;
mod one_record;
mod processes;
mod redis;
mod redis_faults;
mod sql;
mod sql_cuts;
mod sql_faults;
mod sql_settings;
mod sql_together;
mod wrappers;

/// Says what is under test, past the capture of the test harness.
fn under_test(store: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "store under test: {store}");
}
