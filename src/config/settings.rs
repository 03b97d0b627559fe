//! The settings of a node that one place gives. Each is declared once, as a flag; the file's keys, the variables and the readers
//! of values follow from the declaration.

use super::error::ConfigError;
use super::http_token;
use super::network_key;
use super::sections::Sections;
use super::units;
use super::values::{
    parse_address, parse_bool, parse_count, parse_group, parse_id_work, parse_network, parse_peer,
    parse_queue, parse_rate, parse_replicas, parse_socket_mode, parse_streams, parse_uploads,
};
use crate::id::IdWork;
use crate::limits::{Limits, Rates};
use crate::net::{self, ControlSocket, HttpConfig};
use crate::node::{BootstrapNode, InvalidConfig};
use clap::{ArgAction, Args, FromArgMatches};
use core::net::SocketAddr;
use std::error::Error;
use std::path::PathBuf;

/// Declares the settings, and how those of two places are combined.
macro_rules! settings {
    (
        $(#[$about:meta])*
        pub struct Settings {
            $( $(#[$flag:meta])* pub $key:ident: Option<$Value:ty>, )+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
        pub struct Settings {
            $( $(#[$flag])* pub $key: Option<$Value>, )+
            /// The settings that have no flags.
            #[arg(skip)]
            pub sections: Sections,
        }

        impl Settings {
            /// These settings, completed by those of `others`.
            pub fn or(self, others: Settings) -> Settings {
                Settings {
                    $( $key: self.$key.or(others.$key), )+
                    sections: self.sections.or(others.sections),
                }
            }

            /// The keys of the settings that differ from those of `others`.
            pub fn differing(&self, others: &Settings) -> Vec<String> {
                let mut keys = Vec::new();
                $( if self.$key != others.$key { keys.push(stringify!($key).to_owned()); } )+
                keys.extend(self.sections.differing(&others.sections));
                keys
            }
        }
    };
}

settings! {
/// The settings that one place gives; `None` is not given.
pub struct Settings {
    /// Address and port for UDP and TCP.
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address,
        help = "Address and port for UDP and TCP [env: ELVER_LISTEN] [default: [::]:3583, or 0.0.0.0:3583]")]
    pub listen: Option<SocketAddr>,
    /// The control socket, if it is not `control.sock` in the node's directory, where a link to it is made [env: ELVER_SOCKET]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The mode of the control socket: who can write to it commands the node, in everything. 660 is its user and its group [env: ELVER_SOCKET_MODE] [default: 600]
    #[arg(long, value_name = "OCTAL", value_parser = parse_socket_mode)]
    pub socket_mode: Option<u32>,
    /// The group of the control socket, by name or number: a group of the node's user [env: ELVER_SOCKET_GROUP] [default: the user's own]
    #[arg(long, value_name = "GROUP", value_parser = parse_group)]
    pub socket_group: Option<u32>,
    /// Serve files, state and metrics over HTTP at this address, such as 127.0.0.1:3584. Only this machine reaches a loopback
    /// address; any other needs --http-token-file [env: ELVER_HTTP] [default: no HTTP]
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    pub http: Option<SocketAddr>,
    /// A file of mode 600 with a secret of 16 to 256 characters. It allows changes over HTTP (Authorization: Bearer), and all requests
    /// where --http is not a loopback address [env: ELVER_HTTP_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub http_token_file: Option<PathBuf>,
    /// HTTP connections at a time, 17 KiB of memory each; more are turned away [env: ELVER_HTTP_CLIENTS] [default: 128]
    #[arg(long, value_name = "N", value_parser = parse_uploads)]
    pub http_clients: Option<usize>,
    /// A node to join the network through, such as node.example:3583, 192.0.2.7:3583 or [fe80::1%eth0]:3583; without a port it is 3583. May be given several times [env: ELVER_BOOTSTRAP, separated by commas]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_peer)]
    pub bootstrap: Option<Vec<BootstrapNode>>,
    /// Find the nodes of the same LAN by multicast to UDP port 3585; --no-lan does not [env: ELVER_LAN] [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = parse_bool)]
    pub lan: Option<bool>,
    /// Copies that the network keeps of each file put at this node [env: ELVER_REPLICAS] [default: 3]
    #[arg(long, value_name = "N", value_parser = parse_replicas)]
    pub replicas: Option<u8>,
    /// Bytes on disk for others' pieces and the cache, such as 512MiB [env: ELVER_QUOTA] [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub quota: Option<u64>,
    /// Take part without serving lookups: for nodes behind NAT or on battery [env: ELVER_LEAF]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = parse_bool)]
    pub leaf: Option<bool>,
    /// The network's name, which is no secret: nodes of different networks ignore each other, but any node that knows the name can join. `--network-key` keeps others out [env: ELVER_NETWORK] [default: elver]
    #[arg(long, value_name = "NAME", value_parser = parse_network)]
    pub network: Option<String>,
    /// The key file of a closed network, made by `elver network new`: only nodes with the key can join. It also says the network's name [env: ELVER_NETWORK_KEY]
    #[arg(long, value_name = "FILE")]
    pub network_key: Option<PathBuf>,
    /// Work that each identity of the network has to show, in bits: 0 to 40. All nodes of an open network agree on it, and it makes many identities cost something. `elver id --new --id-work N` finds an identity [env: ELVER_ID_WORK] [default: 0]
    #[arg(long, value_name = "N", value_parser = parse_id_work)]
    pub id_work: Option<IdWork>,
    /// How long the network keeps the copies, such as 30d or 12h [env: ELVER_TTL] [default: 365d]
    #[arg(long, value_name = "T", value_parser = units::parse_lifetime)]
    pub ttl: Option<u32>,
    /// Time within which everything on disk is read again to find rotten content, such as 30d; 0 is only on command [env: ELVER_SCRUB] [default: 30d]
    #[arg(long, value_name = "T", value_parser = units::parse_duration)]
    pub scrub: Option<u32>,
    /// Bytes that are left free on the disk, whatever the quota says, such as 1GiB [env: ELVER_KEEP_FREE] [default: 5 % of the disk, at least 64 MiB]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub keep_free: Option<u64>,
    /// Bytes of content a second to all peers together, such as 2MiB; 0 is any number [env: ELVER_UPLOAD_RATE] [default: 0]
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub upload_rate: Option<u64>,
    /// Bytes of content a second from all peers together; 0 is any number [env: ELVER_DOWNLOAD_RATE] [default: 0]
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub download_rate: Option<u64>,
    /// Bytes of content a second to one peer; 0 is any number [env: ELVER_PEER_UPLOAD_RATE] [default: 0]
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub peer_upload_rate: Option<u64>,
    /// Bytes of content a second from one peer; 0 is any number [env: ELVER_PEER_DOWNLOAD_RATE] [default: 0]
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub peer_download_rate: Option<u64>,
    /// TCP connections at a time, 33 to 4000 [env: ELVER_STREAMS] [default: 64]
    #[arg(long, value_name = "N", value_parser = parse_streams)]
    pub streams: Option<usize>,
    /// Peers that are sent content at a time [env: ELVER_UPLOADS] [default: 8]
    #[arg(long, value_name = "N", value_parser = parse_uploads)]
    pub uploads: Option<usize>,
    /// Downloads at a time; more wait for their turn [env: ELVER_DOWNLOADS] [default: 8]
    #[arg(long, value_name = "N", value_parser = parse_uploads)]
    pub downloads: Option<usize>,
    /// Files streamed to clients (get -o -, --range, HTTP) at a time; more wait. With --http the default is 32 [env: ELVER_READS] [default: 8]
    #[arg(long, value_name = "N", value_parser = parse_uploads)]
    pub reads: Option<usize>,
    /// Downloads, and files to be streamed, that may wait [env: ELVER_QUEUE] [default: 1024]
    #[arg(long, value_name = "N", value_parser = parse_queue)]
    pub queue: Option<usize>,
    /// Disk space for each file that is streamed: not of the quota, but never of what --keep-free leaves to the host. Room for three
    /// chunks (of 16 MiB at most) at least [env: ELVER_WINDOW] [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub window: Option<u64>,
    /// Clients of the control socket at a time; more wait [env: ELVER_CLIENTS] [default: 256]
    #[arg(long, value_name = "N", value_parser = parse_uploads)]
    pub clients: Option<usize>,
    /// Paths that are shared at a time, 420 bytes of memory each and 180 for each piece whose copies are looked after [env: ELVER_SHARES] [default: 100000]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub shares: Option<usize>,
    /// Values that are published at a time, up to 2 KB of memory each [env: ELVER_VALUES] [default: 4096]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub values: Option<usize>,
    /// Pieces kept for others at a time, 560 bytes of memory each [env: ELVER_PIECES] [default: as many as fill the quota]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub pieces: Option<usize>,
    /// Commands of all clients under way at a time; more wait in their connections [env: ELVER_COMMANDS] [default: 1024]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub commands: Option<usize>,
    /// Commands of one client under way at a time; more wait [env: ELVER_CLIENT_COMMANDS] [default: 256]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub client_commands: Option<usize>,
    /// Files that clients opened for the node and that wait to be hashed, one descriptor each [env: ELVER_PASSED_FILES] [default: 64]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub passed_files: Option<usize>,
    /// Files that only their users may read and that are kept open to be shared, one descriptor each [env: ELVER_KEPT_FILES] [default: 64]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub kept_files: Option<usize>,
    /// Lookups under way at a time [env: ELVER_LOOKUPS] [default: 32]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub lookups: Option<usize>,
    /// Files that are explained at a time [env: ELVER_EXPLAINS] [default: 4]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub explains: Option<usize>,
    /// Values kept for other nodes, up to 1.2 KB of memory each [env: ELVER_RECORDS] [default: 1024]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub records: Option<usize>,
    /// Announcements of files kept for other nodes, 280 bytes of memory each [env: ELVER_PROVIDERS] [default: 131072]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub providers: Option<usize>,
}
}

/// Connections of the gateway, unless a setting says otherwise.
const HTTP_CLIENTS: usize = 128;
/// Reads of a node with a gateway, unless a setting says otherwise: browsers and download managers open several connections each.
const HTTP_READS: usize = 32;

/// The value of a setting in the file or a variable, as text.
pub(super) enum Text {
    One(String),
    Many(Vec<String>),
}

/// The reason why a list is refused for a setting with one value.
pub(super) const NO_LIST: &str = "takes one value, not a list";

/// The flags of the settings.
pub(super) fn flags() -> clap::Command {
    let command = clap::Command::new("settings").no_binary_name(true).disable_help_flag(true);
    Settings::augment_args(command)
}

/// The settings' names in the file, sections aside.
pub(super) fn keys() -> Vec<String> {
    flags().get_arguments().map(|flag| flag.get_id().to_string()).collect()
}

/// Reads values by the names of the settings, as their flags do.
pub(super) struct Reader {
    flags: clap::Command,
    pub(super) settings: Settings,
}

impl Reader {
    /// A reader that has read nothing yet.
    pub(super) fn new() -> Self {
        Reader { flags: flags(), settings: Settings::default() }
    }

    /// Whether the setting has a list of values; `None` when there is no such setting.
    pub(super) fn takes_list(&self, key: &str) -> Option<bool> {
        let flag = self.flags.get_arguments().find(|flag| flag.get_id() == key)?;
        Some(matches!(flag.get_action(), ArgAction::Append))
    }

    /// Takes a setting's value. The error is the reason why it is refused. An empty list leaves the setting as it is.
    pub(super) fn set(&mut self, key: &str, text: Text) -> Result<(), String> {
        let values = match text {
            Text::One(value) => vec![value],
            Text::Many(values) if self.takes_list(key) == Some(true) => values,
            Text::Many(_) => return Err(NO_LIST.to_owned()),
        };
        let flag = key.replace('_', "-");
        let arguments = values.iter().map(|value| format!("--{flag}={value}"));
        let matches = self.flags.try_get_matches_from_mut(arguments).map_err(reason)?;
        self.settings.update_from_arg_matches(&matches).map_err(reason)
    }
}

/// The error of the value's reader, without clap's text about the flag.
fn reason(error: clap::Error) -> String {
    match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

impl Settings {
    /// A node's configuration: these settings over the defaults.
    pub fn into_config(self, dir: PathBuf) -> Result<net::Config, ConfigError> {
        let default = net::Config::default();
        let quota_bytes = self.quota.unwrap_or(default.limits.quota_bytes);
        let rates = Rates {
            upload: self.upload_rate.unwrap_or_default(),
            download: self.download_rate.unwrap_or_default(),
            peer_upload: self.peer_upload_rate.unwrap_or_default(),
            peer_download: self.peer_download_rate.unwrap_or_default(),
        };
        let streams_max = self.streams.unwrap_or(default.limits.streams_max);
        let uploads_max = self.uploads.unwrap_or(default.limits.uploads_max);
        let shares_max = self.shares.unwrap_or(default.limits.shares_max);
        let values_max = self.values.unwrap_or(default.limits.values_max);
        let pieces_max = self.pieces.unwrap_or_else(|| Limits::pieces_for(quota_bytes));
        let limits = Limits {
            scrub_seconds: self.scrub.unwrap_or(default.limits.scrub_seconds),
            keep_free_bytes: self.keep_free,
            quota_bytes,
            streams_max,
            uploads_max,
            shares_max,
            values_max,
            pieces_max,
            rates,
            downloads_max: self.downloads.unwrap_or(default.limits.downloads_max),
            reads_max: self.reads.unwrap_or(if self.http.is_some() {
                HTTP_READS
            } else {
                default.limits.reads_max
            }),
            http_clients_max: self.http.map_or(0, |_| self.http_clients.unwrap_or(HTTP_CLIENTS)),
            downloads_queued_max: self.queue.unwrap_or(default.limits.downloads_queued_max),
            read_window_bytes: self.window.unwrap_or(default.limits.read_window_bytes),
            clients_max: self.clients.unwrap_or(default.limits.clients_max),
            commands_max: self.commands.unwrap_or(default.limits.commands_max),
            commands_per_client_max: self.client_commands.unwrap_or(default.limits.commands_per_client_max),
            descriptors_passed_max: self.passed_files.unwrap_or(default.limits.descriptors_passed_max),
            descriptors_shared_max: self.kept_files.unwrap_or(default.limits.descriptors_shared_max),
            lookups_max: self.lookups.unwrap_or(default.limits.lookups_max),
            explains_max: self.explains.unwrap_or(default.limits.explains_max),
            records_max: self.records.unwrap_or(default.limits.records_max),
            providers_max: self.providers.unwrap_or(default.limits.providers_max),
            ..default.limits
        };
        let tuning = self.sections.tuning();
        let contradiction = |error: InvalidConfig| ConfigError::Contradiction(error);
        limits.validate().map_err(|error| contradiction(error.into()))?;
        tuning.gossip.validate().map_err(|error| contradiction(error.into()))?;
        tuning.replication.validate().map_err(|error| contradiction(error.into()))?;
        let http = match (self.http, self.http_token_file) {
            (None, _) => None,
            (Some(listen), None) => Some(HttpConfig { listen, token: None }),
            (Some(listen), Some(path)) => {
                let token = http_token::read(&path).map_err(|error| ConfigError::HttpToken(path, error))?;
                Some(HttpConfig { listen, token: Some(token) })
            }
        };
        let key = match self.network_key {
            Some(path) => {
                Some(network_key::read(&path).map_err(|error| ConfigError::NetworkKey(path, error))?)
            }
            None => None,
        };
        let (network, network_secret) = match (key, self.network) {
            (Some(key), Some(name)) if name != key.name => {
                return Err(ConfigError::OtherNetwork { name, of_key: key.name });
            }
            (Some(key), _) => (key.name, Some(key.secret)),
            (None, name) => (name.unwrap_or(default.network), None),
        };
        Ok(net::Config {
            dir,
            listen: self.listen.or(default.listen),
            control: ControlSocket {
                path: self.socket,
                mode: self.socket_mode.unwrap_or(default.control.mode),
                group: self.socket_group,
            },
            http,
            bootstrap: self.bootstrap.unwrap_or(default.bootstrap),
            lan: self.lan.unwrap_or(true),
            replicas: self.replicas.unwrap_or(default.replicas),
            lifetime_seconds: self.ttl.unwrap_or(default.lifetime_seconds),
            limits,
            leaf: self.leaf.unwrap_or(default.leaf),
            network,
            network_secret,
            id_work: self.id_work.unwrap_or_default(),
            gossip: tuning.gossip,
            replication: tuning.replication,
            ..net::Config::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, from_file};
    use super::*;

    #[test]
    fn the_help_of_every_flag_names_its_variable() {
        for flag in flags().get_arguments() {
            let variable = format!("[env: ELVER_{}", flag.get_id().as_str().to_ascii_uppercase());
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&variable), "{}: {help}", flag.get_id());
        }
    }

    #[test]
    fn the_name_of_every_flag_is_that_of_its_key() {
        for flag in flags().get_arguments() {
            assert_eq!(flag.get_long(), Some(flag.get_id().as_str().replace('_', "-").as_str()));
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_a_usage_error_that_names_them() {
        for (content, expected) in [
            ("[membership]\nsilent = 50", "gossip settings contradict each other: a member must be silent"),
            ("[gossip]\ninterval = 0", "a round must take 100 ms or longer"),
            ("[repair]\ncut_off_percent = 101", "at most 100 percent"),
        ] {
            let error = from_file(content).unwrap().into_config("/d".into()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn without_a_bound_on_pieces_as_many_are_kept_as_fill_the_quota() {
        let limits = config(from_file("quota = '2GiB'").unwrap()).limits;
        assert_eq!(limits.pieces_max, Limits::pieces_for(2 << 30));
        assert_eq!(config(from_file("pieces = 7").unwrap()).limits.pieces_max, 7);
    }
}
