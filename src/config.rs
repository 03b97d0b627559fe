//! What a node is started with, and where that is said.
//!
//! Every setting of `elver node` can be given in four places, the first of which wins: a flag, an environment variable
//! (`ELVER_` and the flag's name in capitals), a key in `elver.toml`, the default. All of them go through the same
//! readers, so a value means the same everywhere, and whatever is wrong is said with the place where it stands.
//!
//! ```toml
//! listen = "[::]:3583"
//! bootstrap = ["192.0.2.7:3583", "[2001:db8::7]:3583"]
//! replicas = 3
//! quota = "1GiB"
//! leaf = false
//! network = "elver"
//! ttl = "365d"
//! upload_rate = "2MiB"
//! download_rate = 0
//! peer_upload_rate = 0
//! peer_download_rate = 0
//! streams = 64
//! uploads = 8
//! downloads = 8
//! shares = 100000
//! values = 4096
//!
//! [gossip]
//! interval = 5
//!
//! [membership]
//! evicted = "15m"
//!
//! [repair]
//! urgent = 60
//! ```
//!
//! The settings under a section have no flags. Their variables are named after section and key:
//! `ELVER_GOSSIP_INTERVAL`.

pub mod sections;
pub mod units;

use crate::limits::{Limits, RATE_MIN, Rates};
use crate::net;
use crate::node::InvalidConfig;
use core::fmt;
use core::net::SocketAddr;
use sections::{SETTINGS, Sections};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The configuration file's name in the node's directory.
pub const CONFIG_FILE: &str = "elver.toml";

/// More than anybody writes by hand; what is longer is some other file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How a variable of the environment is looked up. An argument, because a process has only one environment and
/// tests need several.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The environment of this process.
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// What one place says about a node; `None` is nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, clap::Args)]
pub struct Settings {
    /// Address and port for UDP and TCP.
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address,
        help = "Address and port for UDP and TCP [env: ELVER_LISTEN] [default: [::]:3583, or 0.0.0.0:3583]")]
    pub listen: Option<SocketAddr>,
    /// A node to join the network through; may be given several times [env: ELVER_BOOTSTRAP, separated by commas]
    #[arg(long, value_name = "IP:PORT", value_parser = parse_peer)]
    pub bootstrap: Option<Vec<SocketAddr>>,
    /// How many copies the network is to keep of what is put in here [env: ELVER_REPLICAS] [default: 3]
    #[arg(long, value_name = "N", value_parser = parse_replicas)]
    pub replicas: Option<u8>,
    /// Bytes on disk for others' pieces and the cache, such as 512MiB [env: ELVER_QUOTA] [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub quota: Option<u64>,
    /// Take part without serving lookups: for nodes behind NAT or on battery [env: ELVER_LEAF]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = parse_bool)]
    pub leaf: Option<bool>,
    /// The network's name; nodes of different networks ignore each other [env: ELVER_NETWORK] [default: elver]
    #[arg(long, value_name = "NAME", value_parser = parse_network)]
    pub network: Option<String>,
    /// How long copies are to be kept, such as 30d or 12h [env: ELVER_TTL] [default: 365d]
    #[arg(long, value_name = "T", value_parser = units::parse_lifetime)]
    pub ttl: Option<u32>,
    /// Time within which everything on disk is read again to find what has rotted, such as 30d; 0 is only on command [env: ELVER_SCRUB] [default: 30d]
    #[arg(long, value_name = "T", value_parser = units::parse_duration)]
    pub scrub: Option<u32>,
    /// Bytes that are left free on the disk, whatever the quota says, such as 1GiB [env: ELVER_KEEP_FREE] [default: 5 % of the disk, at least 64 MiB]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub keep_free: Option<u64>,
    /// How membership and repair go about their work.
    #[arg(skip)]
    pub sections: Sections,
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
    /// Files streamed to clients (get -o -, --range) at a time; more wait [env: ELVER_READS] [default: 8]
    #[arg(long, value_name = "N", value_parser = parse_uploads)]
    pub reads: Option<usize>,
    /// Downloads, and files to be streamed, that may wait [env: ELVER_QUEUE] [default: 1024]
    #[arg(long, value_name = "N", value_parser = parse_queue)]
    pub queue: Option<usize>,
    /// Disk space for each file that is streamed, beside the quota; room for three chunks (of 16 MiB at most) at least
    /// [env: ELVER_WINDOW] [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub window: Option<u64>,
    /// Clients of the control socket at a time; more wait [env: ELVER_CLIENTS] [default: 256]
    #[arg(long, value_name = "N", value_parser = parse_uploads)]
    pub clients: Option<usize>,
    /// Paths that are shared at a time; each takes some kilobytes of memory, most of it for announcing it [env: ELVER_SHARES] [default: 100000]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub shares: Option<usize>,
    /// Values that are published at a time, up to 2 KB of memory each [env: ELVER_VALUES] [default: 4096]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub values: Option<usize>,
    /// Pieces kept for others at a time, 300 bytes of memory each [env: ELVER_PIECES] [default: as many as fill the quota]
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
    /// Announcements of files kept for other nodes, 250 bytes of memory each [env: ELVER_PROVIDERS] [default: 131072]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub providers: Option<usize>,
}

/// Where a value stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// On a line of a file.
    Line(PathBuf, usize),
    /// In a variable of the environment.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Line(file, line) => write!(f, "{}, line {line}", file.display()),
            Origin::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The file is there and cannot be read, or was asked for and is not there.
    Unreadable(PathBuf, io::Error),
    /// The file is not TOML.
    Syntax(Origin, String),
    /// There is no such setting.
    UnknownKey(Origin, String),
    /// A setting has a value that it cannot have.
    Value {
        /// Where.
        origin: Origin,
        /// Which setting.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The settings contradict each other.
    Contradiction(InvalidConfig),
    /// Nothing says where the node's directory is.
    NoDirectory,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable(file, error) => write!(f, "cannot read {}: {error}", file.display()),
            ConfigError::Syntax(origin, reason) => write!(f, "{origin}: {reason}"),
            ConfigError::UnknownKey(origin, key) => {
                let known = match key.split_once('.').map(|(section, _)| (section, sections::names(section))) {
                    Some((section, names)) if !names.is_empty() => {
                        format!("[{section}] has {}", names.join(", "))
                    }
                    _ => {
                        let sections = sections::sections().join("], [");
                        format!("there are {}, and the sections [{sections}]", KEYS.join(", "))
                    }
                };
                write!(f, "{origin}: there is no setting `{key}`; {known}")
            }
            ConfigError::Value { origin, key, reason } => write!(f, "{origin}: `{key}`: {reason}"),
            ConfigError::Contradiction(error) => error.fmt(f),
            ConfigError::NoDirectory => f.write_str(
                "no directory for the node: none of ELVER_DIR, XDG_STATE_HOME and HOME is set; give one with --dir",
            ),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The settings' names in the file, sections aside. A variable's name is `ELVER_` and the same in capitals.
const KEYS: &[&str] = &[
    "listen",
    "bootstrap",
    "replicas",
    "quota",
    "leaf",
    "network",
    "ttl",
    "upload_rate",
    "download_rate",
    "peer_upload_rate",
    "peer_download_rate",
    "streams",
    "uploads",
    "scrub",
    "keep_free",
    "downloads",
    "reads",
    "queue",
    "window",
    "clients",
    "shares",
    "values",
    "pieces",
    "commands",
    "client_commands",
    "passed_files",
    "kept_files",
    "lookups",
    "explains",
    "records",
    "providers",
];

/// A value before it is read: what file and environment have in common.
enum Text {
    One(String),
    Many(Vec<String>),
}

impl Settings {
    /// What the environment says.
    pub fn from_environment(environment: Environment<'_>) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        for &key in KEYS {
            let name = format!("ELVER_{}", key.to_ascii_uppercase());
            from_variable(environment, name, key, |value| {
                let text = match key {
                    "bootstrap" => Text::Many(
                        value.split([',', ' ']).filter(|peer| !peer.is_empty()).map(str::to_owned).collect(),
                    ),
                    _ => Text::One(value),
                };
                settings.set(key, text)
            })?;
        }
        for setting in &SETTINGS {
            let set = |value| settings.sections.set(setting, value);
            from_variable(environment, setting.variable(), &setting.path(), set)?;
        }
        Ok(settings)
    }

    /// What a file's content says. `file` is for error messages.
    pub fn from_toml(content: &str, file: &Path) -> Result<Settings, ConfigError> {
        let origin = |offset: usize| Origin::Line(file.to_owned(), line_of(content, offset));
        let table = DeTable::parse(content).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            ConfigError::Syntax(origin(offset), error.message().replace('\n', ", "))
        })?;
        // The table is sorted by name, but people read their errors from the top.
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut settings = Settings::default();
        for (key, value) in entries {
            let name = key.get_ref().as_ref();
            let wrong = |reason| ConfigError::Value {
                origin: origin(value.span().start),
                key: name.to_owned(),
                reason,
            };
            match value.get_ref() {
                _ if KEYS.contains(&name) => {
                    text_of(value.get_ref()).and_then(|text| settings.set(name, text)).map_err(wrong)?;
                }
                DeValue::Table(table) if sections::sections().contains(&name) => {
                    settings.set_section(name, table, &origin)?;
                }
                _ if sections::sections().contains(&name) => {
                    let reason = format!("it is a section: write [{name}], and its settings under that");
                    return Err(wrong(reason));
                }
                _ => return Err(ConfigError::UnknownKey(origin(key.span().start), name.to_owned())),
            }
        }
        Ok(settings)
    }

    fn set_section(
        &mut self,
        section: &str,
        table: &DeTable<'_>,
        origin: &dyn Fn(usize) -> Origin,
    ) -> Result<(), ConfigError> {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let path = format!("{section}.{}", key.get_ref());
            let Some(setting) = sections::find(section, key.get_ref()) else {
                return Err(ConfigError::UnknownKey(origin(key.span().start), path));
            };
            let text = match value.get_ref() {
                DeValue::Float(number) => Ok(Text::One(number.as_str().to_owned())),
                other => text_of(other),
            };
            let set = text.and_then(|text| match text {
                Text::One(text) => self.sections.set(setting, text),
                Text::Many(_) => Err(NO_LIST.to_owned()),
            });
            set.map_err(|reason| ConfigError::Value {
                origin: origin(value.span().start),
                key: path,
                reason,
            })?;
        }
        Ok(())
    }

    /// What a file says. A file that is not there says nothing, unless it was asked for by name (`required`).
    pub fn from_file(file: &Path, required: bool) -> Result<Settings, ConfigError> {
        let absent = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        };
        let mut content = String::new();
        match File::open(file).and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut content))
        {
            Err(error) if !required && absent(&error) => Ok(Settings::default()),
            Err(error) => Err(ConfigError::Unreadable(file.to_owned(), error)),
            Ok(_) if content.len() as u64 > FILE_BYTES_MAX => Err(ConfigError::Unreadable(
                file.to_owned(),
                io::Error::other("longer than 1 MiB, so it is no configuration"),
            )),
            Ok(_) => Settings::from_toml(&content, file),
        }
    }

    /// What these settings say, and where they say nothing, what `others` say.
    pub fn or(self, others: Settings) -> Settings {
        Settings {
            listen: self.listen.or(others.listen),
            bootstrap: self.bootstrap.or(others.bootstrap),
            replicas: self.replicas.or(others.replicas),
            quota: self.quota.or(others.quota),
            leaf: self.leaf.or(others.leaf),
            network: self.network.or(others.network),
            ttl: self.ttl.or(others.ttl),
            scrub: self.scrub.or(others.scrub),
            keep_free: self.keep_free.or(others.keep_free),
            sections: self.sections.or(others.sections),
            upload_rate: self.upload_rate.or(others.upload_rate),
            download_rate: self.download_rate.or(others.download_rate),
            peer_upload_rate: self.peer_upload_rate.or(others.peer_upload_rate),
            peer_download_rate: self.peer_download_rate.or(others.peer_download_rate),
            streams: self.streams.or(others.streams),
            uploads: self.uploads.or(others.uploads),
            downloads: self.downloads.or(others.downloads),
            reads: self.reads.or(others.reads),
            queue: self.queue.or(others.queue),
            window: self.window.or(others.window),
            clients: self.clients.or(others.clients),
            shares: self.shares.or(others.shares),
            values: self.values.or(others.values),
            pieces: self.pieces.or(others.pieces),
            commands: self.commands.or(others.commands),
            client_commands: self.client_commands.or(others.client_commands),
            passed_files: self.passed_files.or(others.passed_files),
            kept_files: self.kept_files.or(others.kept_files),
            lookups: self.lookups.or(others.lookups),
            explains: self.explains.or(others.explains),
            records: self.records.or(others.records),
            providers: self.providers.or(others.providers),
        }
    }

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
            reads_max: self.reads.unwrap_or(default.limits.reads_max),
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
        Ok(net::Config {
            dir,
            listen: self.listen.or(default.listen),
            bootstrap: self.bootstrap.unwrap_or(default.bootstrap),
            replicas: self.replicas.unwrap_or(default.replicas),
            lifetime_seconds: self.ttl.unwrap_or(default.lifetime_seconds),
            limits,
            leaf: self.leaf.unwrap_or(default.leaf),
            network: self.network.unwrap_or(default.network),
            gossip: tuning.gossip,
            replication: tuning.replication,
            ..net::Config::default()
        })
    }

    fn set(&mut self, key: &str, text: Text) -> Result<(), String> {
        let value = match (key, text) {
            ("bootstrap", Text::Many(values)) => {
                let peers: Result<_, _> = values.iter().map(|value| parse_peer(value)).collect();
                self.bootstrap = Some(peers?);
                return Ok(());
            }
            (_, Text::Many(_)) => return Err(NO_LIST.to_owned()),
            (_, Text::One(value)) => value,
        };
        let unit = |error: units::UnitError| error.to_string();
        match key {
            "listen" => self.listen = Some(parse_address(&value)?),
            "bootstrap" => self.bootstrap = Some(vec![parse_peer(&value)?]),
            "replicas" => self.replicas = Some(parse_replicas(&value)?),
            "keep_free" => self.keep_free = Some(units::parse_size(&value).map_err(unit)?),
            "scrub" => self.scrub = Some(units::parse_duration(&value).map_err(unit)?),
            "quota" => self.quota = Some(units::parse_size(&value).map_err(unit)?),
            "leaf" => self.leaf = Some(parse_bool(&value)?),
            "network" => self.network = Some(parse_network(&value)?),
            "upload_rate" => self.upload_rate = Some(parse_rate(&value)?),
            "download_rate" => self.download_rate = Some(parse_rate(&value)?),
            "peer_upload_rate" => self.peer_upload_rate = Some(parse_rate(&value)?),
            "peer_download_rate" => self.peer_download_rate = Some(parse_rate(&value)?),
            "streams" => self.streams = Some(parse_streams(&value)?),
            "uploads" => self.uploads = Some(parse_uploads(&value)?),
            "downloads" => self.downloads = Some(parse_uploads(&value)?),
            "reads" => self.reads = Some(parse_uploads(&value)?),
            "queue" => self.queue = Some(parse_queue(&value)?),
            "window" => self.window = Some(units::parse_size(&value).map_err(unit)?),
            "clients" => self.clients = Some(parse_uploads(&value)?),
            "shares" => self.shares = Some(parse_count(&value)?),
            "values" => self.values = Some(parse_count(&value)?),
            "pieces" => self.pieces = Some(parse_count(&value)?),
            "commands" => self.commands = Some(parse_count(&value)?),
            "client_commands" => self.client_commands = Some(parse_count(&value)?),
            "passed_files" => self.passed_files = Some(parse_count(&value)?),
            "kept_files" => self.kept_files = Some(parse_count(&value)?),
            "lookups" => self.lookups = Some(parse_count(&value)?),
            "explains" => self.explains = Some(parse_count(&value)?),
            "records" => self.records = Some(parse_count(&value)?),
            "providers" => self.providers = Some(parse_count(&value)?),
            "ttl" => self.ttl = Some(units::parse_lifetime(&value).map_err(unit)?),
            _ => return Err("there is no such setting".to_owned()),
        }
        Ok(())
    }
}

/// The configuration of a node in `dir`: flags over environment over file over defaults. `file` is the one that was
/// asked for; otherwise it is `elver.toml` in `dir`, if that is there.
pub fn load(
    dir: PathBuf,
    flags: Settings,
    file: Option<&Path>,
    environment: Environment<'_>,
) -> Result<net::Config, ConfigError> {
    let from_file = match file {
        Some(file) => Settings::from_file(file, true)?,
        None => Settings::from_file(&dir.join(CONFIG_FILE), false)?,
    };
    flags.or(Settings::from_environment(environment)?).or(from_file).into_config(dir)
}

/// The node's directory: what was asked for, else `$ELVER_DIR`, else `$XDG_STATE_HOME/elver`, else
/// `~/.local/state/elver`. A variable that is empty counts as unset, and so does an `XDG_STATE_HOME` that is relative
/// (XDG Base Directory Specification 0.8).
pub fn directory(asked: Option<PathBuf>, environment: Environment<'_>) -> Result<PathBuf, ConfigError> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    asked
        .or_else(|| variable("ELVER_DIR"))
        .or_else(|| {
            variable("XDG_STATE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("elver"))
        })
        .or_else(|| variable("HOME").map(|path| path.join(".local/state/elver")))
        .ok_or(ConfigError::NoDirectory)
}

/// What is wrong with a list where one value is expected.
const NO_LIST: &str = "takes one value, not a list";

/// Hands over the value of a variable, if it has one, and says what is wrong with it.
fn from_variable(
    environment: Environment<'_>,
    name: String,
    key: &str,
    set: impl FnOnce(String) -> Result<(), String>,
) -> Result<(), ConfigError> {
    let Some(value) = environment(&name).filter(|value| !value.is_empty()) else { return Ok(()) };
    let text = value.into_string().map_err(|_| "it is not UTF-8".to_owned());
    text.and_then(set).map_err(|reason| ConfigError::Value {
        origin: Origin::Variable(name),
        key: key.to_owned(),
        reason,
    })
}

fn text_of(value: &DeValue<'_>) -> Result<Text, String> {
    let scalar = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        other => Err(format!("a value of type {} is not expected here", other.type_str())),
    };
    match value {
        DeValue::Array(values) => {
            let values: Result<_, _> = values.iter().map(|value| scalar(value.get_ref())).collect();
            Ok(Text::Many(values?))
        }
        one => scalar(one).map(Text::One),
    }
}

/// The number of the line that a byte is on, counted from 1.
fn line_of(content: &str, offset: usize) -> usize {
    1 + content.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no address; expected IP:PORT such as 192.0.2.7:3583 or [2001:db8::7]:3583")
    })
}

fn parse_peer(text: &str) -> Result<SocketAddr, String> {
    let address = parse_address(text)?;
    match address.port() {
        0 => Err(format!("`{text}` has port 0, where no node can be reached")),
        _ => Ok(address),
    }
}

fn parse_replicas(text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| format!("`{text}` is no number from 0 to 255"))
}

/// Reads a rate in bytes per second: a size, at least 16 KiB, or 0 for any.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    match units::parse_size(text.strip_suffix("/s").unwrap_or(text)) {
        Ok(rate) if (1..RATE_MIN).contains(&rate) => {
            Err(format!("`{text}` is too little: at least 16KiB a second, or 0 for any number of bytes"))
        }
        Ok(rate) => Ok(rate),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads how many TCP streams a node may have: enough for one download, no more than the driver has numbers for.
pub fn parse_streams(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|streams| (33..=4000).contains(streams))
        .ok_or_else(|| format!("`{text}` is no number from 33 to 4000"))
}

/// Reads how many of something go on at a time: peers that are sent content, downloads, clients.
pub fn parse_uploads(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|uploads| (1..=4000).contains(uploads))
        .ok_or_else(|| format!("`{text}` is no number from 1 to 4000"))
}

/// Reads how many commands may wait for their turn.
pub fn parse_queue(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|queue| (0..=1_000_000).contains(queue))
        .ok_or_else(|| format!("`{text}` is no number from 0 to 1000000"))
}

/// Reads how many of something there may be.
fn parse_count(text: &str) -> Result<usize, String> {
    const COUNT_MAX: usize = 10_000_000;
    text.parse()
        .ok()
        .filter(|count| (1..=COUNT_MAX).contains(count))
        .ok_or_else(|| format!("`{text}` is no number from 1 to {COUNT_MAX}"))
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

fn parse_network(text: &str) -> Result<String, String> {
    match text.is_empty() || text.chars().any(char::is_control) {
        true => Err("a network's name is not empty and has no control characters".to_owned()),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn file(content: &str) -> Result<Settings, String> {
        Settings::from_toml(content, Path::new("/x/elver.toml")).map_err(|error| error.to_string())
    }

    fn variables<'a>(pairs: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    }

    #[test]
    fn every_setting_is_read_from_the_file() {
        let settings = file(concat!(
            "listen = '127.0.0.1:4000'\nbootstrap = ['192.0.2.7:1', '[2001:db8::7]:2']\nreplicas = 5\n",
            "quota = '2MiB'\nleaf = true\nnetwork = 'home'\nttl = '12h'\n"
        ));
        let config = settings.unwrap().into_config("/d".into()).unwrap();
        assert_eq!(config.listen, Some("127.0.0.1:4000".parse().unwrap()));
        assert_eq!(config.bootstrap.len(), 2);
        assert_eq!((config.replicas, config.limits.quota_bytes), (5, 2 << 20));
        assert_eq!((config.leaf, config.network.as_str(), config.lifetime_seconds), (true, "home", 43_200));
    }

    #[test]
    fn every_setting_of_a_section_is_read_from_the_file_and_from_its_variable() {
        let content = concat!(
            "replicas = 2\n[gossip]\ninterval = 0.5\npeers = 2\nview = 96\n",
            "[membership]\nmonitored = 4\nsilent = 1.5\nunresponsive = '4.5s'\nevicted = '1m'\n",
            "[repair]\nurgent = 3\nrank = 1\nsettle = 2.5\nsurplus = '1h'\nreconcile = 20\n",
            "transfers = 7\nrate = '1MiB'\ncut_off_percent = 30\ncut_off_wait = 15\n"
        );
        let from_file = file(content).unwrap();
        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut section = "";
        for line in content.lines() {
            match line.split_once(" = ") {
                None => section = line.trim_matches(['[', ']']),
                Some((key, value)) if !section.is_empty() => {
                    let name = format!("ELVER_{section}_{key}").to_uppercase();
                    pairs.push((name, value.trim_matches('\'').to_owned()));
                }
                Some(_) => {}
            }
        }
        let pairs: Vec<(&str, &str)> =
            pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs.len(), SETTINGS.len());
        let from_environment = Settings::from_environment(&variables(&pairs)).unwrap();
        for settings in [from_file, from_environment] {
            let net::Config { gossip, replication, .. } = settings.into_config("/d".into()).unwrap();
            let millis = Duration::from_millis;
            assert_eq!((gossip.interval, gossip.fanout, gossip.view_max), (millis(500), 2, 96));
            assert_eq!((gossip.monitored, gossip.silent_after), (4, millis(1500)));
            assert_eq!((gossip.unresponsive_after, gossip.evicted_after), (millis(4500), millis(60_000)));
            assert_eq!((replication.urgent_after, replication.rank_wait), (millis(3000), millis(1000)));
            assert_eq!((replication.settle, replication.surplus_after), (millis(2500), millis(3_600_000)));
            assert_eq!((replication.reconcile_interval, replication.transfers_max), (millis(20_000), 7));
            assert_eq!((replication.bytes_per_second, replication.cut_off_percent), (1 << 20, 30));
            assert_eq!(replication.cut_off_wait, millis(15_000));
        }
    }

    #[test]
    fn a_variable_beats_a_section_of_the_file_key_by_key() {
        let environment = variables(&[("ELVER_GOSSIP_INTERVAL", "2")]);
        let environment = Settings::from_environment(&environment).unwrap();
        let config = environment.or(file("gossip.interval = 3\ngossip.peers = 4").unwrap());
        let gossip = config.into_config("/d".into()).unwrap().gossip;
        assert_eq!((gossip.interval, gossip.fanout), (Duration::from_secs(2), 4));
    }

    #[test]
    fn settings_that_contradict_each_other_are_a_usage_error_that_names_them() {
        for (content, expected) in [
            (
                "[membership]\nsilent = 50",
                "gossip settings contradict each other: a silent member needs time",
            ),
            ("[gossip]\ninterval = 0", "a round takes longer than a tenth of a second"),
            ("[repair]\ncut_off_percent = 101", "no more than the whole neighbourhood"),
        ] {
            let error = file(content).unwrap().into_config("/d".into()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn numbers_may_stand_without_quotes_and_a_single_peer_without_brackets() {
        let settings = file("quota = 4096\nttl = 60\nbootstrap = '192.0.2.7:1'").unwrap();
        assert_eq!((settings.quota, settings.ttl), (Some(4096), Some(60)));
        assert_eq!(settings.bootstrap.unwrap().len(), 1);
    }

    #[test]
    fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
        let flags = Settings { replicas: Some(1), ..Settings::default() };
        let environment = variables(&[("ELVER_REPLICAS", "2"), ("ELVER_NETWORK", "two"), ("ELVER_TTL", "")]);
        let environment = Settings::from_environment(&environment).unwrap();
        let file = file("replicas = 7\nnetwork = 'seven'\nquota = 7").unwrap();
        let config = flags.or(environment).or(file).into_config("/d".into()).unwrap();
        assert_eq!((config.replicas, config.network.as_str(), config.limits.quota_bytes), (1, "two", 7));
        assert_eq!((config.lifetime_seconds, config.leaf), (365 * 86_400, false));
    }

    #[test]
    fn an_error_in_the_file_names_file_line_and_key() {
        for (content, expected) in [
            ("\nreplicsa = 3", "/x/elver.toml, line 2: there is no setting `replicsa`; there are listen, "),
            ("# quota\n\nquota = '5 parsecs'", "/x/elver.toml, line 3: `quota`: `5 parsecs` is no size"),
            ("leaf = 3", "line 1: `leaf`: `3` is neither true nor false"),
            ("replicas = 300", "`replicas`: `300` is no number from 0 to 255"),
            ("replicas = -1", "`replicas`: `-1` is no number from 0 to 255"),
            ("replicas = 1.5", "`replicas`: a value of type float is not expected here"),
            ("quota = 0x10", "`quota`: a value of type integer is not expected here"),
            ("quota = [1]", "`quota`: takes one value, not a list"),
            ("[quota]", "`quota`: a value of type table is not expected here"),
            ("listen = 'here'", "`listen`: `here` is no address; expected IP:PORT"),
            ("bootstrap = ['192.0.2.7:0']", "`bootstrap`: `192.0.2.7:0` has port 0"),
            ("network = ''", "`network`: a network's name is not empty"),
            ("ttl = '9999999d'", "`ttl`: `9999999d` is too large"),
            (
                "[gossip]\nintervall = 5",
                "line 2: there is no setting `gossip.intervall`; [gossip] has interval, ",
            ),
            ("[gosip]\ninterval = 5", "line 1: there is no setting `gosip`; there are listen, "),
            ("gossip = 5", "line 1: `gossip`: it is a section: write [gossip]"),
            ("[repair]\nrank = 'soon'", "line 2: `repair.rank`: `soon` is no duration"),
            ("[repair]\ntransfers = 1.5", "line 2: `repair.transfers`: `1.5` is no number"),
            ("[repair]\nrank = [1]", "line 2: `repair.rank`: takes one value, not a list"),
            ("[repair.rank]", "`repair.rank`: a value of type table is not expected here"),
            ("quota = 1\nquota = 2", "line 2: "),
            ("quota = \n", "line 1: "),
        ] {
            let message = file(content).expect_err(content);
            assert!(message.contains(expected), "{content:?} gave {message:?}");
            assert!(!message.contains('\n'), "{message:?}");
        }
    }

    #[test]
    fn an_error_in_the_environment_names_the_variable() {
        let environment = variables(&[("ELVER_BOOTSTRAP", "192.0.2.7:1, nowhere")]);
        let message = Settings::from_environment(&environment).unwrap_err().to_string();
        assert!(
            message.starts_with("environment variable ELVER_BOOTSTRAP: `bootstrap`: `nowhere`"),
            "{message}"
        );
    }

    #[test]
    fn limits_are_read_everywhere_alike() {
        let settings = file("upload_rate = '1MiB/s'\npeer_download_rate = 65536\nstreams = 100").unwrap();
        let environment = [("ELVER_UPLOADS", "3"), ("ELVER_DOWNLOAD_RATE", "0")];
        let settings = Settings::from_environment(&variables(&environment)).unwrap().or(settings);
        let limits = settings.into_config("/x".into()).unwrap().limits;
        let rates = Rates { upload: 1 << 20, peer_download: 65_536, ..Rates::default() };
        assert_eq!((limits.rates, limits.streams_max, limits.uploads_max), (rates, 100, 3));
        for wrong in ["upload_rate = 100", "streams = 5", "uploads = 0", "download_rate = 'fast'"] {
            assert!(file(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_bound_that_a_user_can_meet_is_a_setting() {
        type Read = fn(&Limits) -> usize;
        let bounds: &[(&str, Read)] = &[
            ("streams", |limits| limits.streams_max),
            ("uploads", |limits| limits.uploads_max),
            ("downloads", |limits| limits.downloads_max),
            ("reads", |limits| limits.reads_max),
            ("queue", |limits| limits.downloads_queued_max),
            ("clients", |limits| limits.clients_max),
            ("shares", |limits| limits.shares_max),
            ("values", |limits| limits.values_max),
            ("pieces", |limits| limits.pieces_max),
            ("commands", |limits| limits.commands_max),
            ("client_commands", |limits| limits.commands_per_client_max),
            ("passed_files", |limits| limits.descriptors_passed_max),
            ("kept_files", |limits| limits.descriptors_shared_max),
            ("lookups", |limits| limits.lookups_max),
            ("explains", |limits| limits.explains_max),
            ("records", |limits| limits.records_max),
            ("providers", |limits| limits.providers_max),
        ];
        for (name, read) in bounds {
            let from_file = file(&format!("{name} = 99")).unwrap();
            let variable = format!("ELVER_{}", name.to_uppercase());
            let pairs = [(variable.as_str(), "99")];
            let from_environment = Settings::from_environment(&variables(&pairs)).unwrap();
            for settings in [from_file, from_environment] {
                let limits = settings.or(Settings::default()).into_config("/x".into()).unwrap().limits;
                assert_eq!(read(&limits), 99, "{name}");
            }
            let wrong = file(&format!("{name} = 'many'")).unwrap_err();
            assert!(wrong.contains(&format!("`{name}`: `many` is no number")), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_says_nothing_unless_it_was_asked_for() {
        for path in ["/nonexistent/elver.toml", "/dev/null/elver.toml"] {
            assert_eq!(Settings::from_file(Path::new(path), false).unwrap(), Settings::default());
            assert!(matches!(Settings::from_file(Path::new(path), true), Err(ConfigError::Unreadable(..))));
        }
        assert!(matches!(
            Settings::from_file(Path::new("/dev/zero"), false),
            Err(ConfigError::Unreadable(..))
        ));
    }

    #[test]
    fn the_directory_is_looked_for_in_order() {
        let every = [("ELVER_DIR", "/a"), ("XDG_STATE_HOME", "/b"), ("HOME", "/c")];
        let found = |asked: Option<&str>, pairs: &[(&str, &str)]| {
            directory(asked.map(PathBuf::from), &variables(pairs)).ok()
        };
        assert_eq!(found(Some("here"), &every), Some("here".into()));
        assert_eq!(found(None, &every), Some("/a".into()));
        assert_eq!(found(None, &every[1..]), Some("/b/elver".into()));
        assert_eq!(found(None, &every[2..]), Some("/c/.local/state/elver".into()));
        assert_eq!(
            found(None, &[("ELVER_DIR", ""), ("XDG_STATE_HOME", "b"), ("HOME", "/c")]),
            found(None, &every[2..])
        );
        assert_eq!(found(None, &[]), None);
    }
}
