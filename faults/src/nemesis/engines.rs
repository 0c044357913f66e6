//! Faults of the container engines, which the stub plays.

use anyhow::Result;
use serde_json::json;

use super::{Strike, of_nodes};
use crate::dice::Dice;
use crate::world::{NODES, World};

/// What an engine can do wrong, and whether containers may end by it.
const WRONGS: [(&str, bool); 13] = [
    ("error500", false),
    ("timeout", false),
    ("conflict409", false),
    ("created_but_error", false),
    ("started_but_error", false),
    ("stopped_but_error", false),
    ("list_error", false),
    ("restart", false),
    ("restart_lost", true),
    ("pull_404", false),
    ("pull_hang", false),
    ("slow", false),
    ("exit", true),
];

pub(super) async fn strike(world: &World, dice: &mut Dice) -> Result<Strike> {
    let count = 1 + dice.below(2);
    let nodes = dice.some(&NODES, count);
    let (wrong, ends) = dice.one(&WRONGS);
    let span = dice.millis(1000, 5000);
    for node in &nodes {
        let seconds = span.as_secs_f64();
        let order =
            json!({"node": node, "kind": wrong, "seconds": seconds, "ms": 300, "code": 137});
        world.engine(&order).await?;
    }
    let mut detail = of_nodes(&nodes, wrong, span);
    detail["engine"] = json!(wrong);
    detail["cuts"] = json!([]);
    detail["pardon_moves"] = json!(ends);
    Ok(Strike::new("engine", detail, span))
}
