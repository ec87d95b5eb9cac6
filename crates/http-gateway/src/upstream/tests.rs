//! Against servers that do as they should, and against every lie.

mod balance;
mod bodies;
mod connections;
mod drained;
mod health;
mod http2;
mod lies;
mod names;
mod sticky;
mod straight;
mod tls;
mod tunnels;
mod via;
