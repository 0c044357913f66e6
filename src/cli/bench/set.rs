//! The set that `leet bench all` runs, and the table it makes of it.
//!
//! Pure: it runs nothing. A table is put between two marks of a document, and read from there again
//! to be compared with.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Before the table.
const BEGIN: &str = "<!-- leet bench all: begin -->";
/// Behind it.
const END: &str = "<!-- leet bench all: end -->";

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// It is watched.
    None,
}

/// A command line behind `leet bench`, and the figures that are taken of it.
pub(super) struct Measure {
    pub(super) command: &'static str,
    figures: &'static [(&'static str, Goal)],
}

use Goal::{AtLeast, AtMost};

/// Some minutes on two cores.
pub(super) const SET: &[Measure] = &[
    Measure {
        command: "place --nodes 5000 --pods 100000",
        figures: &[
            ("pods_per_second", AtLeast(50_000.0)),
            ("ratio", AtLeast(0.7)),
            ("redis_commands_per_pod", Goal::None),
            ("round_trips_per_pod", AtMost(0.1)),
            ("submit_to_assigned_p50_ms", Goal::None),
            ("submit_to_assigned_p99_ms", Goal::None),
        ],
    },
    Measure {
        command: "place --nodes 5000 --pods 100000 --constraints mixed",
        figures: &[
            ("pods_per_second", AtLeast(20_000.0)),
            ("ratio", Goal::None),
            ("parked", AtMost(0.0)),
        ],
    },
    Measure {
        command: "place --nodes 5000 --pods 100000 --schedulers 2",
        figures: &[
            ("pods_per_second", AtLeast(50_000.0)),
            ("ratio", Goal::None),
        ],
    },
    Measure {
        command: "place --nodes 100000 --pods 100000",
        figures: &[
            ("pods_per_second", AtLeast(25_000.0)),
            ("ratio", Goal::None),
            ("first_look_ms", Goal::None),
        ],
    },
    Measure {
        command: "run --nodes 9000 --pods 100000",
        figures: &[
            ("running_s", AtMost(60.0)),
            ("process_mib_max", AtMost(8192.0)),
            ("kib_per_agent", Goal::None),
            ("redis_commands_per_pod", Goal::None),
            ("rest_redis_busy", Goal::None),
        ],
    },
    Measure {
        command: "converge --services 10000",
        figures: &[
            ("converged_s", Goal::None),
            ("redis_commands_per_service", Goal::None),
            ("redis_busy", Goal::None),
        ],
    },
    Measure {
        command: "beats --nodes 100000",
        figures: &[
            ("redis_core_share", AtMost(0.2)),
            ("redis_cpu_us_per_beat", Goal::None),
            ("redis_bytes_per_node", Goal::None),
        ],
    },
    Measure {
        command: "memory --pods 100000",
        figures: &[
            ("bytes_per_pod", AtMost(600.0)),
            ("million_pods_gib", Goal::None),
        ],
    },
    Measure {
        command: "latency",
        figures: &[
            ("idle_p50_ms", AtMost(2.0)),
            ("idle_p99_ms", AtMost(10.0)),
            ("steady_p99_ms", AtMost(100.0)),
        ],
    },
    Measure {
        command: "loss",
        figures: &[
            ("one_node_queued_s", AtMost(1.0)),
            ("reassigned_s", AtMost(10.0)),
            ("slowest_call_ms", AtMost(10.0)),
        ],
    },
];

/// What a command gave: its figures, or why there are none.
pub(super) type Result = std::result::Result<Value, String>;

/// The table of what was measured, beside the figures of an earlier document.
pub(super) fn table(measured: &[(&Measure, Result)], earlier: &str) -> String {
    let earlier = figures_of(earlier);
    let mut table = String::new();
    if let Some(machine) = measured.iter().find_map(|(_, result)| result.as_ref().ok()) {
        let word = |name: &str| machine[name].as_str().unwrap_or("?").to_owned();
        let _ = writeln!(
            table,
            "{}, {} cores, {}, {} build, begun {}.\n",
            word("cpu"),
            machine["cores"],
            word("redis"),
            word("build"),
            word("began"),
        );
    }
    table.push_str("| `leet bench` | figure | | goal | before | ratio | load |\n");
    table.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
    for (measure, result) in measured {
        let empty = Map::new();
        let figures = match result {
            Ok(figures) => figures.as_object().unwrap_or(&empty),
            Err(why) => {
                let why = why.replace(['\n', '|'], " ");
                let _ = writeln!(table, "| `{}` | failed: {why} | | | | | |", measure.command);
                continue;
            }
        };
        let load = figures.get("load").and_then(Value::as_str).unwrap_or("");
        for (name, goal) in measure.figures {
            let Some(now) = figures.get(*name).and_then(Value::as_f64) else {
                continue;
            };
            let before = earlier.get(&(measure.command.to_owned(), (*name).to_owned()));
            let ratio = before.filter(|before| **before != 0.0);
            let _ = writeln!(
                table,
                "| `{}` | {name} | {now} | {} | {} | {} | {load} |",
                measure.command,
                told(*goal, now),
                before.map(ToString::to_string).unwrap_or_default(),
                ratio
                    .map(|before| format!("{:.2}", now / before))
                    .unwrap_or_default(),
            );
        }
    }
    table
}

fn told(goal: Goal, now: f64) -> String {
    let (sign, goal, met) = match goal {
        AtLeast(goal) => ('≥', goal, now >= goal),
        AtMost(goal) => ('≤', goal, now <= goal),
        Goal::None => return String::new(),
    };
    format!("{sign} {goal}{}", if met { "" } else { ", **missed**" })
}

/// The figures of a document's table, by command and name.
fn figures_of(document: &str) -> HashMap<(String, String), f64> {
    let table = match (document.find(BEGIN), document.find(END)) {
        (Some(begin), Some(end)) if begin < end => &document[begin..end],
        _ => "",
    };
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let command = cells.next()?.trim_matches('`').to_owned();
        Some((
            (command, cells.next()?.to_owned()),
            cells.next()?.parse().ok()?,
        ))
    });
    rows.collect()
}

/// The document with the table in place of the one it has; `None` if it has no place for one.
pub(super) fn put(document: &str, table: &str) -> Option<String> {
    let begin = document.find(BEGIN)? + BEGIN.len();
    let end = begin + document[begin..].find(END)?;
    Some(format!(
        "{}\n{table}{}",
        &document[..begin],
        &document[end..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_put_in_place_and_compared_with_the_next() {
        let first = &SET[0];
        let figures = |rate: f64| {
            Ok(serde_json::json!({
                "pods_per_second": rate, "ratio": 0.9, "cpu": "fast", "cores": 2, "load": "0.5",
                "redis": "Redis 7", "build": "release", "began": "today",
            }))
        };
        let before = table(&[(first, figures(40_000.0))], "");
        assert!(
            before.contains("| 40000 | ≥ 50000, **missed** |  |  | 0.5 |"),
            "{before}"
        );
        let page = format!("# Page\n{BEGIN}\nold\n{END}\nrest\n");
        let page = put(&page, &before).unwrap();
        assert!(page.contains("rest") && !page.contains("old"), "{page}");
        let next = table(
            &[(first, figures(60_000.0)), (&SET[1], Err("no".to_owned()))],
            &page,
        );
        assert!(
            next.contains("| 60000 | ≥ 50000 | 40000 | 1.50 | 0.5 |"),
            "{next}"
        );
        assert!(next.contains("failed: no"), "{next}");
        assert_eq!(put("no place", &next), None);
    }
}
