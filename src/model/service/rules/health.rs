//! Rules for probes.

use std::time::Duration;

use super::{Rules, is_item};
use crate::model::service::{Probe, ServiceSpec};

/// Shortest period of a probe: below, looking would cost more than working.
const PERIOD_MIN: Duration = Duration::from_millis(100);
/// Most failures or successes in a row that can be asked for.
const COUNT_MAX: u32 = 1000;

impl ServiceSpec {
    pub(super) fn probes(&self, rules: &mut Rules) {
        let Some(health) = &self.health else { return };
        for (name, probe) in [
            ("health.liveness", &health.liveness),
            ("health.readiness", &health.readiness),
        ] {
            if let Some(probe) = probe {
                probe_rules(rules, name, probe);
            }
        }
    }
}

fn probe_rules(rules: &mut Rules, name: &str, probe: &Probe) {
    let field = |part: &str| format!("{name}.{part}");
    let kinds = usize::from(probe.exec.is_some())
        + usize::from(probe.http.is_some())
        + usize::from(probe.tcp.is_some());
    let given = format_args!("{kinds} of them");
    rules.require(kinds == 1, name, given, "exactly one of exec, http and tcp");
    let exec = probe.exec.as_ref();
    let sound = exec.is_none_or(|command| !command.is_empty());
    rules.require(sound, &field("exec"), "[]", "a command");
    if let Some(http) = &probe.http {
        let sound = http.path.starts_with('/') && is_item(&http.path);
        let allowed = "a path that begins with /";
        rules.require(sound, &field("http.path"), &http.path, allowed);
        rules.require(http.port > 0, &field("http.port"), "0", "1 to 65535");
    }
    if let Some(tcp) = &probe.tcp {
        rules.require(tcp.port > 0, &field("tcp.port"), "0", "1 to 65535");
    }
    for (part, span) in [("interval", probe.interval), ("timeout", probe.timeout)] {
        rules.require(span.0 >= PERIOD_MIN, &field(part), span, "at least 100ms");
    }
    for (part, count) in [("failures", probe.failures), ("successes", probe.successes)] {
        let sound = (1..=COUNT_MAX).contains(&count);
        rules.require(sound, &field(part), count, "1 to 1000");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::broken;

    fn liveness(probe: Value) -> Vec<String> {
        broken(json!({"health": {"liveness": probe}}))
    }

    #[test]
    fn a_probe_asks_in_one_way() {
        for sound in [
            json!({"exec": ["true"], "interval": "100ms"}),
            json!({"http": {"port": 80, "path": "/ready?x=1"}, "failures": 1}),
            json!({"tcp": {"port": 5432}, "start_period": "1m"}),
        ] {
            assert_eq!(liveness(sound), [""; 0]);
        }
        assert_eq!(liveness(json!({})), ["health.liveness"]);
        let two = json!({"exec": ["true"], "tcp": {"port": 1}});
        assert_eq!(liveness(two.clone()), ["health.liveness"]);
        assert_eq!(
            broken(json!({"health": {"readiness": two}})),
            ["health.readiness"]
        );
    }

    #[test]
    fn each_part_of_a_probe_is_bounded() {
        for (part, value, field) in [
            ("interval", json!("1ms"), "interval"),
            ("timeout", json!(0), "timeout"),
            ("failures", json!(0), "failures"),
            ("successes", json!(1001), "successes"),
        ] {
            let probe = json!({"tcp": {"port": 1}, part: value});
            assert_eq!(liveness(probe), [format!("health.liveness.{field}")]);
        }
        for (probe, field) in [
            (json!({"exec": []}), "exec"),
            (json!({"http": {"port": 80, "path": "ready"}}), "http.path"),
            (json!({"http": {"port": 0}}), "http.port"),
            (json!({"tcp": {"port": 0}}), "tcp.port"),
        ] {
            assert_eq!(liveness(probe), [format!("health.liveness.{field}")]);
        }
    }
}
