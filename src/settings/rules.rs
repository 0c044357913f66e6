//! What each key may hold, in words and as a check.
//!
//! Invariant: every key has a rule (test `every_key_has_a_rule`).

use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::addresses::{is_key_prefix, is_redis_url, is_sentinel};
use super::parts::{Secret, Settings, redacted};
use crate::model::Violation;
use crate::model::amounts::{NODE_DEVICES_MAX, is_device_id, is_device_kind};
use crate::model::image::{DOCKER_HUB, ImageReference};
use crate::model::log::TAIL_BYTES_MAX;
use crate::model::name::is_node_name;
use crate::model::node::{LABELS_MAX, may_be_set};
use crate::model::resources::{PIDS_MAX, parse_bytes, parse_memory};
use crate::remedies::REMEDIES;
use crate::signing::{Signer, public_keys};

/// Shortest period of a loop: below, an idle cluster would spend its time looking.
const PERIOD_MIN: Duration = Duration::from_millis(10);
/// Longest time that can be set where no other bound is named.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest time-out: whoever waits longer has lost the node's lease anyway.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Longest an idempotency key is kept: each one is memory in Redis.
const IDEMPOTENCY_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Most pods in one claim: a Redis function must stay well below a millisecond for each hundred.
const BATCH_MAX: usize = 1000;
/// Most of anything that costs a connection, a thread or a container of the engine at once.
const PARALLEL_MAX: usize = 1000;
/// Largest ratio of what is offered to what there is.
const RATIO_MAX: f64 = 1000.0;
/// Most paths of one device.
const DEVICE_PATHS_MAX: usize = 16;
/// Largest weight: far above any sensible proportion, far below where sums lose their digits.
const WEIGHT_MAX: f64 = 1_000_000.0;
/// Most moves a minute: each is a start and a stop, and more would be a drain.
const MOVES_MAX: u32 = 100;

const PERIOD: &str = "a duration such as `5s` or `500ms`, 10ms to 1day";
const TIMEOUT: &str = "a duration such as `2s` or `500ms`, 10ms to 1min";
const TIME: &str = "a duration such as `10s` or `0s`, at most 1day";
const CERTIFICATE: &str =
    "the absolute path of a file that can be read, cert_file and key_file together or neither";
const FLAG: &str = "true or false";
const WEIGHT: &str = "a number, 0 to 1000000";
const RATIO: &str = "a number above 0, at most 1000";
const PRESSURE: &str = "percent of the time, 0 to 100; 0 leaves it out";

/// What each key may hold.
const RULES: &[(&str, &str)] = &[
    (
        "key_prefix",
        "at most 100 of letters, digits and `-_.:/`, with at most one `{tag}`",
    ),
    (
        "redis.url",
        "redis://[user:password@]host[:port][/db], rediss://…, unix:///path[?user=U&pass=P] or \
        redis+unix:///path; with sentinels only the first two",
    ),
    (
        "redis.sentinels",
        "a list of host:port or redis://[user:password@]host:port; in a variable \
        with commas between them",
    ),
    (
        "redis.master",
        "the name the Sentinels know the master by, without spaces",
    ),
    (
        "redis.ca_file",
        "the absolute path of a file that can be read, or empty",
    ),
    ("redis.cert_file", CERTIFICATE),
    ("redis.key_file", CERTIFICATE),
    ("redis.accept_unsafe", FLAG),
    ("redis.pool_size", "a whole number, 1 to 1000"),
    ("redis.connect_timeout", TIMEOUT),
    ("redis.response_timeout", TIMEOUT),
    ("redis.durability", "auto, none, one or all"),
    (
        "redis.recovery_time",
        "a duration such as `15s`, 100ms to 10min",
    ),
    (
        "redis.commit_timeout",
        "a duration such as 1s, at most redis.response_timeout",
    ),
    (
        "api.listen",
        "an address and a port, such as 127.0.0.1:8080 or [::]:8080",
    ),
    ("api.replicas_max", "a whole number, 1 to 1000000"),
    (
        "api.body_bytes_max",
        "a whole number of bytes, 1024 to 67108864",
    ),
    (
        "api.idempotency_ttl",
        "a duration such as `24h`, 1s to 30days",
    ),
    (
        "node.name",
        "empty, or 1 to 253 of letters, digits, '-', '_' and '.', beginning with a \
        letter or digit",
    ),
    ("node.runtime", "docker or simulated"),
    ("node.docker_socket", "an absolute path, or empty"),
    (
        "node.cpu",
        "cores as a number, 0 to 100000; 0 is all of the machine's",
    ),
    (
        "node.memory",
        "text such as `16Gi` or `512Mi`, 6 MiB to 1 PiB, or empty",
    ),
    (
        "node.disk",
        "text such as `100Gi`, 1 byte to 1 PiB, or empty",
    ),
    (
        "node.pids",
        "a whole number, 0 to 4194304; 0 is the kernel's",
    ),
    ("node.pods_max", "a whole number, 1 to 100000"),
    (
        "node.labels",
        "at most 64 of key=value, in a variable with commas between them: keys and values of at \
        most 63 letters, digits, `-`, `_`, `.` and `/`, no key twice, and none is `node`",
    ),
    ("node.proc_dir", "an absolute path"),
    ("node.cgroup_dir", "an absolute path"),
    ("node.run_dir", "an absolute path"),
    ("heartbeat.interval", PERIOD),
    (
        "heartbeat.lease",
        "a duration such as `20s`, at most 1day, more than twice \
        heartbeat.interval, so that one lost heartbeat loses no node",
    ),
    ("scheduler.batch", "a whole number, 1 to 1000"),
    ("scheduler.claim_lease", PERIOD),
    ("scheduler.sweep_interval", PERIOD),
    ("scheduler.compare_interval", PERIOD),
    ("scheduler.ended_kept", "a whole number, 0 to 100"),
    ("scheduler.revisions_kept", "a whole number, 1 to 50"),
    (
        "scheduler.strategy",
        "pressure, spread, binpack, round-robin, random, first-fit, worst-fit or cheapest",
    ),
    ("scheduler.weights.pods", WEIGHT),
    ("scheduler.weights.cpu", WEIGHT),
    ("scheduler.weights.memory", WEIGHT),
    ("scheduler.weights.pressure_memory", WEIGHT),
    ("scheduler.weights.pressure_io", WEIGHT),
    ("scheduler.weights.pressure_cpu", WEIGHT),
    ("scheduler.weights.placed", WEIGHT),
    ("scheduler.rebalance.mode", "off, suggest or on"),
    (
        "scheduler.rebalance.moves_per_minute",
        "a whole number, 1 to 100",
    ),
    ("scheduler.rebalance.lasting", TIME),
    ("scheduler.rebalance.rest", TIME),
    ("scheduler.rebalance.patience", PERIOD),
    ("scheduler.rebalance.threshold.cpu", PRESSURE),
    ("scheduler.rebalance.threshold.memory", PRESSURE),
    ("scheduler.rebalance.threshold.io", PRESSURE),
    ("agent.concurrency", "a whole number, 1 to 1000"),
    ("agent.stop_grace", TIME),
    ("agent.resync_interval", PERIOD),
    (
        "agent.log_tail_bytes",
        "a whole number of bytes, 0 to 1048576; 0 keeps none",
    ),
    (
        "agent.registries",
        "a list of { host = \"registry.example:5000\", username = \"…\", password = \"…\" }, each \
        host once; in a variable user:password@host with commas between them",
    ),
    (
        "agent.image_disk_high",
        "a share, 0 to 1; 1 removes no images",
    ),
    (
        "agent.image_disk_low",
        "a share, 0 to 1, less than agent.image_disk_high",
    ),
    ("agent.image_unused", TIME),
    ("agent.images_kept", "a whole number, 0 to 1000"),
    (
        "agent.devices",
        "at most 256 of { kind = \"gpu\", id = \"0\", paths = [\"/dev/gpu0\"], env = { NAME = \"value\" } }, \
        in a variable gpu/0:/dev/gpu0 with commas between them: a kind of a-z, 0-9 and `-` beginning \
        with a letter, an id of letters, digits, `-`, `_` and `.`, no two the same, at most 16 absolute \
        paths, and variables that do not begin with KUBELEET_",
    ),
    ("agent.overcommit.cpu", RATIO),
    ("agent.overcommit.memory", RATIO),
    ("agent.overcommit.disk", RATIO),
    ("agent.overcommit.pids", RATIO),
    (
        "api.signing_key_file",
        "the absolute path of a private key that can be read, as `leet key generate` makes it, or empty",
    ),
    (
        "agent.require_signed",
        "true or false; true needs agent.trusted_keys",
    ),
    (
        "agent.trusted_keys",
        "a list of public keys such as `leet key show` prints, or absolute paths of files with one a line",
    ),
    ("agent.allow.privileged", FLAG),
    ("agent.allow.host_network", FLAG),
    (
        "agent.allow.devices",
        "a list of absolute paths such as /dev/fuse or /dev/ttyUSB*, without `.` and `..`",
    ),
    (
        "agent.allow.binds",
        "a list of absolute paths of folders such as /srv/data, without `.` and `..`",
    ),
    (
        "agent.allow.capabilities",
        "a list of capabilities such as NET_ADMIN, or ALL",
    ),
    ("agent.pressure_limit.cpu", PRESSURE),
    ("agent.pressure_limit.memory", PRESSURE),
    ("agent.pressure_limit.io", PRESSURE),
    ("agent.drift_interval", PERIOD),
    ("agent.restart_backoff", PERIOD),
    (
        "agent.restart_backoff_max",
        "a duration such as `5min`, at most 1day, not below agent.restart_backoff",
    ),
    ("agent.restart_reset", PERIOD),
    ("simulated.start_time", TIME),
    ("simulated.stop_time", TIME),
    ("simulated.pull_time", TIME),
    ("simulated.failure_rate", "a share, 0 to 1"),
    (
        "log.filter",
        "a level, or a filter such as `kubeleet::agent=debug,info`",
    ),
    ("log.format", "auto, human or json"),
    ("failpoint", "the name of a failpoint, or empty"),
    (
        "remedies_off",
        "names with commas, of wait, token, deadline, fence, watchdog, resync and grace",
    ),
];

/// What `key` may hold.
pub(super) fn allowed(key: &str) -> &'static str {
    let rule = RULES.iter().find(|(known, _)| *known == key);
    rule.map_or("another kind of value", |(_, rule)| rule)
}

/// What may be shown of a key's value.
pub(super) enum Secrecy {
    /// All of it.
    Open,
    /// It is an address that may hold a password.
    Address,
    /// Nothing of it.
    Whole,
}

/// What may be shown of the value of `key`.
pub(super) fn secrecy(key: &str) -> Secrecy {
    match key {
        "redis.url" | "redis.sentinels" => Secrecy::Address,
        "agent.registries" => Secrecy::Whole,
        _ => Secrecy::Open,
    }
}

/// The other key that the rule of `key` speaks of.
pub(super) fn related(key: &str) -> Option<&'static str> {
    match key {
        "heartbeat.lease" => Some("heartbeat.interval"),
        "redis.url" => Some("redis.sentinels"),
        "redis.cert_file" => Some("redis.key_file"),
        "redis.key_file" => Some("redis.cert_file"),
        "agent.image_disk_low" => Some("agent.image_disk_high"),
        "agent.restart_backoff_max" => Some("agent.restart_backoff"),
        _ => None,
    }
}

/// All values that are not allowed.
pub(super) fn check(settings: &Settings) -> Vec<Violation> {
    let mut check = Check(Vec::new());
    check.redis(settings);
    check.api_and_node(settings);
    check.loops(settings);
    check.images_and_rights(settings);
    check.devices_and_ratios(settings);
    check.pressure(settings);
    check.scores_and_the_rest(settings);
    check.0
}

struct Check(Vec<Violation>);

impl Check {
    fn require(&mut self, holds: bool, key: &str, given: impl ToString) {
        if !holds {
            self.0.push(Violation::new(key, given, allowed(key)));
        }
    }

    fn time(&mut self, key: &str, given: Duration, range: RangeInclusive<Duration>) {
        let shown = humantime_serde::re::humantime::format_duration(given);
        self.require(range.contains(&given), key, shown);
    }

    fn redis(&mut self, settings: &Settings) {
        let redis = &settings.redis;
        self.require(
            is_key_prefix(&settings.key_prefix),
            "key_prefix",
            &settings.key_prefix,
        );
        let url_fits = is_redis_url(&redis.url.0, !redis.sentinels.is_empty());
        self.require(url_fits, "redis.url", redacted(&redis.url.0));
        for Secret(sentinel) in &redis.sentinels {
            self.require(is_sentinel(sentinel), "redis.sentinels", redacted(sentinel));
        }
        let master_fits = !redis.master.is_empty() && !redis.master.contains(char::is_whitespace);
        self.require(master_fits, "redis.master", &redis.master);
        let (cert, key) = (&redis.cert_file, &redis.key_file);
        let is_pair = cert.as_os_str().is_empty() == key.as_os_str().is_empty();
        for (name, file, belongs) in [
            ("redis.ca_file", &redis.ca_file, true),
            ("redis.cert_file", cert, is_pair),
            ("redis.key_file", key, is_pair),
        ] {
            let readable = file.as_os_str().is_empty()
                || (file.is_absolute() && std::fs::File::open(file).is_ok());
            self.require(readable && belongs, name, file.display());
        }
        let pool_size_fits = (1..=PARALLEL_MAX).contains(&redis.pool_size);
        self.require(pool_size_fits, "redis.pool_size", redis.pool_size);
        let timeout = PERIOD_MIN..=TIMEOUT_MAX;
        self.time(
            "redis.connect_timeout",
            redis.connect_timeout,
            timeout.clone(),
        );
        self.time(
            "redis.response_timeout",
            redis.response_timeout,
            timeout.clone(),
        );
        // A pooled connection gives up after the response time-out, also on a WAIT.
        let longest = redis.response_timeout.min(*timeout.end());
        let commit = *timeout.start()..=longest;
        self.time("redis.commit_timeout", redis.commit_timeout, commit);
        let recovery = Duration::from_millis(100)..=Duration::from_secs(600);
        self.time("redis.recovery_time", redis.recovery_time, recovery);
    }

    fn api_and_node(&mut self, settings: &Settings) {
        let (api, node) = (&settings.api, &settings.node);
        self.require(
            api.listen.parse::<SocketAddr>().is_ok(),
            "api.listen",
            &api.listen,
        );
        let replicas_fit = (1..=1_000_000).contains(&api.replicas_max);
        self.require(replicas_fit, "api.replicas_max", api.replicas_max);
        let body_fits = (1024..=64 * 1024 * 1024).contains(&api.body_bytes_max);
        self.require(body_fits, "api.body_bytes_max", api.body_bytes_max);
        let ttl = Duration::from_secs(1)..=IDEMPOTENCY_MAX;
        self.time("api.idempotency_ttl", api.idempotency_ttl, ttl);

        self.require(
            node.name.is_empty() || is_node_name(&node.name),
            "node.name",
            &node.name,
        );
        let socket = &node.docker_socket;
        let socket_fits = socket.is_empty() || Path::new(socket).is_absolute();
        self.require(socket_fits, "node.docker_socket", socket);
        self.require((0.0..=100_000.0).contains(&node.cpu), "node.cpu", node.cpu);
        let memory_fits = node.memory.is_empty() || parse_memory(&node.memory).is_some();
        self.require(memory_fits, "node.memory", &node.memory);
        let disk_fits = node.disk.is_empty() || parse_bytes(&node.disk).is_some();
        self.require(disk_fits, "node.disk", &node.disk);
        self.require(node.pids <= PIDS_MAX, "node.pids", node.pids);
        self.require(
            (1..=100_000).contains(&node.pods_max),
            "node.pods_max",
            node.pods_max,
        );
        let mut keys = HashSet::new();
        for label in &node.labels {
            let fits = label
                .split_once('=')
                .is_some_and(|(key, value)| may_be_set(key, value) && keys.insert(key));
            self.require(fits, "node.labels", label);
        }
        self.require(keys.len() <= LABELS_MAX, "node.labels", keys.len());
        self.require(
            node.proc_dir.is_absolute(),
            "node.proc_dir",
            node.proc_dir.display(),
        );
        self.require(
            node.run_dir.is_absolute(),
            "node.run_dir",
            node.run_dir.display(),
        );
        self.require(
            node.cgroup_dir.is_absolute(),
            "node.cgroup_dir",
            node.cgroup_dir.display(),
        );
    }

    fn pressure(&mut self, settings: &Settings) {
        let rebalance = &settings.scheduler.rebalance;
        let (threshold, limit) = (rebalance.threshold, settings.agent.pressure_limit);
        for (key, percent) in [
            ("scheduler.rebalance.threshold.cpu", threshold.cpu),
            ("scheduler.rebalance.threshold.memory", threshold.memory),
            ("scheduler.rebalance.threshold.io", threshold.io),
            ("agent.pressure_limit.cpu", limit.cpu),
            ("agent.pressure_limit.memory", limit.memory),
            ("agent.pressure_limit.io", limit.io),
        ] {
            self.require((0.0..=100.0).contains(&percent), key, percent);
        }
        let moves = rebalance.moves_per_minute;
        let moves_fit = (1..=MOVES_MAX).contains(&moves);
        self.require(moves_fit, "scheduler.rebalance.moves_per_minute", moves);
        let any = Duration::ZERO..=TIME_MAX;
        self.time(
            "scheduler.rebalance.lasting",
            rebalance.lasting,
            any.clone(),
        );
        self.time("scheduler.rebalance.rest", rebalance.rest, any);
        let period = PERIOD_MIN..=TIME_MAX;
        self.time("scheduler.rebalance.patience", rebalance.patience, period);
    }

    fn loops(&mut self, settings: &Settings) {
        let (heartbeat, scheduler) = (&settings.heartbeat, &settings.scheduler);
        let period = PERIOD_MIN..=TIME_MAX;
        self.time("heartbeat.interval", heartbeat.interval, period.clone());
        let lease_min = heartbeat.interval.saturating_mul(2) + Duration::from_nanos(1);
        self.time("heartbeat.lease", heartbeat.lease, lease_min..=TIME_MAX);
        let batch_fits = (1..=BATCH_MAX).contains(&scheduler.batch);
        self.require(batch_fits, "scheduler.batch", scheduler.batch);
        let (ended, revisions) = (scheduler.ended_kept, scheduler.revisions_kept);
        self.require(ended <= 100, "scheduler.ended_kept", ended);
        self.require(
            (1..=50).contains(&revisions),
            "scheduler.revisions_kept",
            revisions,
        );
        self.time(
            "scheduler.claim_lease",
            scheduler.claim_lease,
            period.clone(),
        );
        self.time(
            "scheduler.sweep_interval",
            scheduler.sweep_interval,
            period.clone(),
        );
        let agent = &settings.agent;
        for (key, time) in [
            ("scheduler.compare_interval", scheduler.compare_interval),
            ("agent.resync_interval", agent.resync_interval),
            ("agent.drift_interval", agent.drift_interval),
            ("agent.restart_backoff", agent.restart_backoff),
            ("agent.restart_reset", agent.restart_reset),
        ] {
            self.time(key, time, period.clone());
        }
        let longest = agent.restart_backoff..=TIME_MAX;
        self.time(
            "agent.restart_backoff_max",
            agent.restart_backoff_max,
            longest,
        );
    }

    fn images_and_rights(&mut self, settings: &Settings) {
        let (agent, allow) = (&settings.agent, &settings.agent.allow);
        for (index, registry) in agent.registries.iter().enumerate() {
            let image = format!("{}/x", registry.host);
            let host = registry.host == DOCKER_HUB || ImageReference::host_of(&image).is_some();
            let mut before = agent.registries[..index].iter();
            let once = before.all(|other| other.host != registry.host);
            let fits = host && once && !registry.username.is_empty();
            self.require(fits, "agent.registries", &registry.host);
        }
        let signing_key = &settings.api.signing_key_file;
        let key_fits = signing_key.as_os_str().is_empty()
            || signing_key.is_absolute() && Signer::read(signing_key).is_ok();
        self.require(key_fits, "api.signing_key_file", signing_key.display());
        for key in &agent.trusted_keys {
            self.require(public_keys(key).is_ok(), "agent.trusted_keys", key);
        }
        let signed_fits = !agent.require_signed || !agent.trusted_keys.is_empty();
        self.require(signed_fits, "agent.require_signed", agent.require_signed);
        let (high, low) = (agent.image_disk_high, agent.image_disk_low);
        self.require((0.0..=1.0).contains(&high), "agent.image_disk_high", high);
        let low_fits = (0.0..=1.0).contains(&low) && low < high;
        self.require(low_fits, "agent.image_disk_low", low);
        let any = Duration::ZERO..=TIME_MAX;
        self.time("agent.image_unused", agent.image_unused, any);
        let kept_fits = agent.images_kept <= PARALLEL_MAX;
        self.require(kept_fits, "agent.images_kept", agent.images_kept);
        for path in &allow.devices {
            self.require(is_plain_path(path), "agent.allow.devices", path);
        }
        for path in &allow.binds {
            self.require(is_plain_path(path), "agent.allow.binds", path);
        }
        for name in &allow.capabilities {
            let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let fits = !name.is_empty() && name.bytes().all(word);
            self.require(fits, "agent.allow.capabilities", name);
        }
    }

    fn devices_and_ratios(&mut self, settings: &Settings) {
        let (devices, ratios) = (&settings.agent.devices, &settings.agent.overcommit);
        let count_fits = devices.len() <= NODE_DEVICES_MAX;
        self.require(count_fits, "agent.devices", devices.len());
        let mut names = HashSet::new();
        for device in devices {
            let is_variable = |name: &String| {
                !name.is_empty() && !name.contains(['=', '\0']) && !name.starts_with("KUBELEET_")
            };
            let fits = is_device_kind(&device.kind)
                && is_device_id(&device.id)
                && names.insert(device.name())
                && device.paths.len() <= DEVICE_PATHS_MAX
                && device.paths.iter().all(|path| is_plain_path(path))
                && device.env.keys().all(is_variable);
            self.require(fits, "agent.devices", device.name());
        }
        for (name, ratio) in [
            ("cpu", ratios.cpu),
            ("memory", ratios.memory),
            ("disk", ratios.disk),
            ("pids", ratios.pids),
        ] {
            let key = format!("agent.overcommit.{name}");
            self.require(ratio > 0.0 && ratio <= RATIO_MAX, &key, ratio);
        }
    }

    fn scores_and_the_rest(&mut self, settings: &Settings) {
        let weights = &settings.scheduler.weights;
        for (name, weight) in [
            ("pods", weights.pods),
            ("cpu", weights.cpu),
            ("memory", weights.memory),
            ("pressure_memory", weights.pressure_memory),
            ("pressure_io", weights.pressure_io),
            ("pressure_cpu", weights.pressure_cpu),
            ("placed", weights.placed),
        ] {
            let key = format!("scheduler.weights.{name}");
            self.require((0.0..=WEIGHT_MAX).contains(&weight), &key, weight);
        }
        let (agent, simulated) = (&settings.agent, &settings.simulated);
        let concurrency_fits = (1..=PARALLEL_MAX).contains(&agent.concurrency);
        self.require(concurrency_fits, "agent.concurrency", agent.concurrency);
        self.require(
            agent.log_tail_bytes <= TAIL_BYTES_MAX,
            "agent.log_tail_bytes",
            agent.log_tail_bytes,
        );
        let any = Duration::ZERO..=TIME_MAX;
        self.time("agent.stop_grace", agent.stop_grace, any.clone());
        self.time("simulated.start_time", simulated.start_time, any.clone());
        self.time("simulated.stop_time", simulated.stop_time, any.clone());
        self.time("simulated.pull_time", simulated.pull_time, any);
        let rate = simulated.failure_rate;
        self.require((0.0..=1.0).contains(&rate), "simulated.failure_rate", rate);
        let filter = &settings.log.filter;
        self.require(crate::telemetry::is_filter(filter), "log.filter", filter);
        let failpoint = &settings.failpoint;
        self.require(
            !failpoint.contains(char::is_whitespace),
            "failpoint",
            failpoint,
        );
        let off = &settings.remedies_off;
        let known = |name: &str| name.is_empty() || REMEDIES.contains(&name);
        self.require(
            off.split(',').map(str::trim).all(known),
            "remedies_off",
            off,
        );
    }
}

fn is_plain_path(path: &str) -> bool {
    let plain = |part: &str| part != "." && part != "..";
    path.starts_with('/') && path.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::sources;

    #[test]
    fn every_key_has_a_rule() {
        let mut rules: Vec<_> = RULES.iter().map(|(key, _)| (*key).to_owned()).collect();
        rules.sort();
        assert_eq!(rules, sources::defaults().into_keys().collect::<Vec<_>>());
    }

    #[test]
    fn defaults_are_allowed() {
        assert_eq!(check(&Settings::default()), Vec::new());
    }
}
