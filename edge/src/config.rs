//! Every setting of the service: a flag, and an environment variable of the same name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderName, Uri};
use clap::Parser;
use clap::builder::BoolishValueParser;
use claw_core::decimal;
use claw_core::limits::MICRO;

use crate::access::Secret;
use crate::client::Network;

/// Decides over HTTP and gRPC whether a request may pass, by token buckets in Redis.
#[derive(Clone, Debug, Parser)]
#[command(name = "claw-edge", version)]
pub struct Config {
    /// Servers with the module redis-claw: redis://, rediss://, redis+unix://,
    /// redis+sentinel://host:port,../service or redis+cluster://host:port,..
    #[arg(
        long,
        env,
        hide_env_values = true,
        value_delimiter = ',',
        default_value = "redis://127.0.0.1:6379"
    )]
    pub redis_url: Vec<String>,

    /// Where the rating API and forward authentication listen
    #[arg(long, env, default_value = "0.0.0.0:8080")]
    pub http_addr: SocketAddr,

    /// Where the Envoy rate limit service listens
    #[arg(long, env, default_value = "0.0.0.0:8081")]
    pub grpc_addr: SocketAddr,

    /// Where metrics, probes and the pages for operators are
    #[arg(long, env, default_value = "127.0.0.1:9102")]
    pub ops_addr: SocketAddr,

    /// Tokens that the whole service may take at once
    #[arg(long, env)]
    pub capacity: Option<String>,

    /// Tokens that it gains in every interval
    #[arg(long, env)]
    pub refill: Option<String>,

    /// The interval: 500ms, 1s, 1m, 1h, 1d
    #[arg(long, env, default_value = "1s", value_parser = duration)]
    pub interval: Duration,

    /// Tokens that each user may take at once
    #[arg(long, env)]
    pub user_capacity: Option<String>,

    /// Tokens that each user gains in every interval
    #[arg(long, env)]
    pub user_refill: Option<String>,

    /// The interval of the user's refill
    #[arg(long, env, default_value = "1s", value_parser = duration)]
    pub user_interval: Duration,

    /// Whether the limits above refuse when Redis cannot be asked, rather than let pass
    #[arg(long, env, value_parser = BoolishValueParser::new(), default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    pub fail_closed: bool,

    /// How long a decision may wait for Redis
    #[arg(long, env, default_value = "50ms", value_parser = duration)]
    pub decision_timeout: Duration,

    /// How long open requests may take to end after SIGTERM
    #[arg(long, env, default_value = "15s", value_parser = duration)]
    pub drain: Duration,

    /// Threads that serve; 0 = one for every two processors
    #[arg(long, env, default_value_t = 0)]
    pub workers: usize,

    /// Files of named limits
    #[arg(long, env, value_delimiter = ',')]
    pub config: Vec<PathBuf>,

    /// Descriptor files of envoyproxy/ratelimit: a folder, or one file
    #[arg(long, env)]
    pub rls_config: Option<PathBuf>,

    /// What the keys of limits begin with
    #[arg(long, env, default_value = "claw:")]
    pub key_prefix: String,

    /// Proxies whose X-Forwarded-For is believed: 10.0.0.0/8, fd00::/8, ..
    #[arg(long, env, value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,

    /// Whether several descriptor files may have one domain
    #[arg(long, env, value_parser = BoolishValueParser::new(), default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    pub merge_domain_config: bool,

    /// Whether every limit of descriptor files is a quota
    #[arg(long, env, value_parser = BoolishValueParser::new(), default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    pub quota_mode: bool,

    /// Whether Envoy is told to let every request pass, whatever the limits say
    #[arg(long, env, value_parser = BoolishValueParser::new(), default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    pub shadow_mode: bool,

    /// Whether responses to clients get the three fields below
    #[arg(long, env, value_parser = BoolishValueParser::new(), default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    pub limit_response_headers_enabled: bool,

    /// The field that has the limit with least left
    #[arg(long, env, default_value = "RateLimit-Limit")]
    pub limit_limit_header: String,

    /// The field that has what is left of it
    #[arg(long, env, default_value = "RateLimit-Remaining")]
    pub limit_remaining_header: String,

    /// The field that has the seconds until it has more
    #[arg(long, env, default_value = "RateLimit-Reset")]
    pub limit_reset_header: String,

    /// Whether Envoy's other filters get the descriptors and the metadata of their limits
    #[arg(long, env, value_parser = BoolishValueParser::new(), default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    pub response_dynamic_metadata: bool,

    /// Whether hits that a descriptor names by itself are booked where there are fewer, too, as debt
    #[arg(long, env, value_parser = BoolishValueParser::new(), default_value = "true", num_args = 0..=1, default_missing_value = "true")]
    pub rls_overdraw: bool,

    /// How long a connection of Envoy's is used, about; 0s = for ever
    #[arg(long, env, default_value = "24h", value_parser = duration)]
    pub grpc_max_connection_age: Duration,

    /// A file with the password of Redis, read at each connection
    #[arg(long, env)]
    pub redis_password_file: Option<PathBuf>,

    /// A file with the password of the sentinels, read at each connection
    #[arg(long, env)]
    pub redis_sentinel_password_file: Option<PathBuf>,

    /// Certificates (PEM) of those whom rediss:// trusts; without it, whom the system trusts
    #[arg(long, env)]
    pub redis_ca_file: Option<PathBuf>,

    /// Whether a refusal is repeated, for a second at most, without asking Redis again
    #[arg(long, env, value_parser = BoolishValueParser::new(), default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    pub local_refusals: bool,

    /// Tokens taken ahead, by each worker, for a key that is asked for all the time: 4 to 64; 0 = none
    #[arg(long, env, default_value_t = 0, value_parser = lease)]
    pub lease: u64,

    /// Connections to HTTP_ADDR that may be open at once, and as many to GRPC_ADDR; more are closed
    #[arg(long, env, default_value_t = 16_384)]
    pub max_connections: usize,

    /// How long a client may take to send a request, or to take anything of what it is sent
    #[arg(long, env, default_value = "30s", value_parser = duration)]
    pub client_timeout: Duration,

    /// How long after SIGTERM new connections are still served, so that balancers notice; part of DRAIN
    #[arg(long, env, default_value = "2s", value_parser = duration)]
    pub drain_notice: Duration,

    /// The token that callers of /v1 and of DELETE /users have to show; without any, only
    /// callers on this machine are answered. Better in API_TOKEN_FILE: flags can be seen by
    /// others
    #[arg(long, env, hide_env_values = true)]
    pub api_token: Option<Secret>,

    /// A file with such tokens, one on each line
    #[arg(long, env)]
    pub api_token_file: Option<PathBuf>,

    /// Whether callers of /v1 may bring policies of their own
    #[arg(long, env, value_parser = BoolishValueParser::new(), default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    pub allow_policies: bool,

    /// The header that names the user to /auth. The proxy has to set it or to remove it
    #[arg(long, env)]
    pub user_header: Option<HeaderName>,

    /// Whether the older RateLimit-Limit, RateLimit-Remaining and RateLimit-Reset are sent too
    #[arg(long, env, value_parser = BoolishValueParser::new(), default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    pub older_fields: bool,

    /// The longest body of a request, in bytes
    #[arg(long, env, default_value_t = 16_384)]
    pub max_body: usize,

    /// Bytes of the bodies of requests that are held at once, over HTTP and gRPC; what is sent
    /// beyond them is refused
    #[arg(long, env, default_value_t = 33_554_432)]
    pub max_bodies: usize,

    /// What this region is called in ratings: letters, digits, _, . and -, at most 64
    #[arg(long, env, default_value = "local", value_parser = region)]
    pub region: String,

    /// How many ratings the outbox keeps, about, for those who follow it
    #[arg(long, env, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub ratings_outbox: u64,

    /// The other regions and the servers that keep their ratings, forms as REDIS_URL:
    /// eu=redis://..,us=rediss://..
    #[arg(long, env, hide_env_values = true, value_delimiter = ',')]
    pub ratings_peers: Vec<String>,

    /// A file with the password of the peers' servers, read at each connection
    #[arg(long, env)]
    pub ratings_peers_password_file: Option<PathBuf>,

    /// Where ratings are told, signed: https://..
    #[arg(long, env, hide_env_values = true)]
    pub webhook_url: Option<Uri>,

    /// A file with the secrets that sign what is told, whsec_.., one on each line
    #[arg(long, env)]
    pub webhook_secret_file: Option<PathBuf>,

    /// The chat of Telegram in which ratings are told
    #[arg(long, env)]
    pub telegram_chat: Option<String>,

    /// A file with the token of the bot that tells them
    #[arg(long, env)]
    pub telegram_token_file: Option<PathBuf>,

    /// Where Telegram's API is
    #[arg(long, env, default_value = "https://api.telegram.org")]
    pub telegram_url: Uri,

    /// How long a receiver of notifications may take to answer
    #[arg(long, env, default_value = "5s", value_parser = duration)]
    pub notify_timeout: Duration,

    /// How long after its first failure a notification is tried again; then twice as long, up to a minute
    #[arg(long, env, default_value = "500ms", value_parser = duration)]
    pub notify_pause: Duration,

    /// A token for the page for operators and its forms. Without one the page is for this machine alone
    #[arg(long, env, hide_env_values = true)]
    pub admin_token: Option<Secret>,

    /// A file of such tokens, one on each line
    #[arg(long, env)]
    pub admin_token_file: Option<PathBuf>,

    /// Whether adaptive limits may adapt. Without it their own policies hold at this instance
    #[arg(long, env, value_parser = BoolishValueParser::new(), default_value = "true", num_args = 0..=1, default_missing_value = "true")]
    pub adaptive: bool,

    /// Where requests are taken that are handed on to UPSTREAM, if they pass the limits; without
    /// it, none are
    #[arg(long, env, requires = "upstream")]
    pub proxy_addr: Option<SocketAddr>,

    /// The backend of PROXY_ADDR: http://host:port, https://host
    #[arg(long, env, requires = "proxy_addr")]
    pub upstream: Option<Uri>,

    /// How long the backend may take until it begins to answer; shorter than CLIENT_TIMEOUT, by which
    /// the client would be told that it was slow itself
    #[arg(long, env, default_value = "25s", value_parser = duration)]
    pub upstream_timeout: Duration,

    /// The collector of OpenTelemetry that is told of requests by OTLP over HTTP, as in
    /// http://collector:4318; without one, nobody is
    #[arg(long, env, hide_env_values = true)]
    pub otel_exporter_otlp_endpoint: Option<Uri>,

    /// What this service is called in traces
    #[arg(long, env, default_value = "claw-edge")]
    pub otel_service_name: String,

    /// The share of requests that are traced of those whose caller has not decided: 0 to 1
    #[arg(long, env, default_value = "1", value_parser = share)]
    pub otel_traces_sampler_arg: u64,
}

/// How long work in the background waits for an answer, in place of `DECISION_TIMEOUT`. It lets
/// a server wait for something new for a second.
const PATIENCE: Duration = Duration::from_secs(5);

impl Config {
    /// The same for work in the background, for which nobody waits.
    #[must_use]
    pub fn patient(&self) -> Self {
        Self { decision_timeout: PATIENCE, lease: 0, local_refusals: false, ..self.clone() }
    }
}

/// Reads a share, `0` to `1`, in millionths.
fn share(text: &str) -> Result<u64, String> {
    let millionths = decimal::parse_refill(text.as_bytes()).filter(|share| *share <= MICRO);
    millionths.ok_or_else(|| format!("'{text}' is no share from 0 to 1 with at most six decimals"))
}

/// Reads the name of a region. No other letters: each region has to order names alike.
///
/// # Errors
/// Says what is read instead.
pub fn region(text: &str) -> Result<String, String> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    if text.is_empty() || text.len() > 64 || !text.chars().all(fits) {
        return Err("a region is named by 1 to 64 letters, digits, _, . and -".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads a length of time: a whole number and a unit, `500ms`, `1s`, `1m`, `1h`, `1d`.
///
/// # Errors
/// Says what is read instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let units = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(units);
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("'{text}' has no unit: 500ms, 1s, 1m, 1h, 1d")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(ms))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("'{text}' is no length of time: 500ms, 1s, 1m, 1h, 1d"))
}

fn lease(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(tokens @ (0 | 4..=64)) => Ok(tokens),
        _ => Err(format!("'{text}' is not 0, and not 4 to 64")),
    }
}
