//! The invariants that the design promises, each with its number and the module that checks it.
//!
//! | | promise | checked by |
//! |---|---|---|
//! | 1 | an acknowledged piece is readable while fewer than a quorum of its holders are lost before replication completes, and fewer than `replicas` within one repair window after that | [`durability`], every 30 s |
//! | 2 | no unverified byte reaches a user or becomes servable | [`integrity`], every answer and every disk |
//! | 3 | at most 3 bytes out for one in to unvalidated addresses, including addresses that a third party named; every table under its bound; no node spins | [`bounded`], every datagram |
//! | 4 | no packet has two effects, across restarts and clock jumps | [`replay`] |
//! | 5 | a crash is known to the 20 nearest nodes within 60 s (p99); live nodes are evicted less than once in 10,000 node-days at 5 % loss | [`detection`] |
//! | 6 | a state reaches 99.9 % of live nodes in ⌈1.5·log2 N⌉ rounds at 10 % loss | [`convergence`] |
//! | 6 | after an outage the network is one again within a minute | [`unity`] |
//! | 7 | repair copies at most 1.3 times the necessary bytes, is quiet after churn stops, and copies nothing after a 60 s restart | [`repair`] |
//! | 8 | lookups succeed: 99.9 % with 30 % hostile nodes, 99 % against 40 ids around one key | [`lookup`] |
//! | 9 | every piece that a node counts is on its disk after every crash | [`store`]; the scenario `power-loss` tries crash points of real files |
//! | 10 | one party, with any number of identities, cannot erase, displace or starve the pieces, records or requests of others; a network of one party works like any other | [`fairness`] |

pub mod bounded;
pub mod convergence;
pub mod detection;
pub mod durability;
pub mod fairness;
pub mod integrity;
pub mod lookup;
pub mod repair;
pub mod replay;
pub mod store;
pub mod unity;
