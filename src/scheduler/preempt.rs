//! Which pods make room for one that stands higher: as few as can be, and of those the lowest.
//!
//! Pure. Who may be asked to, and whether they still stand lower when it comes to it, Redis judges.

use super::cluster::Room;
use crate::store::Lower;

/// A node on which only room is missing.
#[derive(Debug, Clone)]
pub struct Crowded {
    /// What is missing there.
    pub missing: Room,
    /// Who could make room.
    pub lower: Vec<Lower>,
}

/// The node to make room on, and who is to go there; nothing if all that could go is not enough.
pub fn choose(crowded: &[Crowded]) -> Option<(usize, Vec<&Lower>)> {
    let chosen = crowded.iter().enumerate().filter_map(|(at, node)| {
        let victims = victims(node)?;
        let highest = victims.iter().map(|victim| victim.standing).max()?;
        let sum: u64 = victims
            .iter()
            .map(|victim| u64::from(victim.standing))
            .sum();
        Some(((victims.len(), highest, sum, at), victims))
    });
    let ((.., at), victims) = chosen.min_by_key(|(order, _)| *order)?;
    Some((at, victims))
}

fn victims(node: &Crowded) -> Option<Vec<&Lower>> {
    let mut lower: Vec<&Lower> = node.lower.iter().collect();
    lower.sort_by_key(|pod| (pod.standing, &pod.id));
    let suffices = |pods: &[&Lower]| node.missing.left_by(pods).is_nothing();
    if suffices(&[]) {
        return None; // there is room: it only has to be tried again
    }
    if let Some(one) = lower.iter().find(|pod| suffices(&[pod])) {
        return Some(vec![one]);
    }
    // Whoever gives back most of what is still missing, until nothing is.
    let mut victims: Vec<&Lower> = Vec::new();
    while !suffices(&victims) {
        let missing = node.missing.left_by(&victims);
        let most = lower
            .iter()
            .enumerate()
            .max_by_key(|(at, pod)| (missing.share_of(pod), std::cmp::Reverse(*at)))?;
        if missing.share_of(most.1) == 0 {
            return None;
        }
        victims.push(lower.remove(most.0));
    }
    // Somebody may have become superfluous by those who came after: the highest first.
    victims.sort_by_key(|pod| std::cmp::Reverse((pod.standing, &pod.id)));
    let mut at = 0;
    while at < victims.len() {
        let spared = victims.remove(at);
        if !suffices(&victims) {
            victims.insert(at, spared);
            at += 1;
        }
    }
    Some(victims)
}

impl Room {
    /// What is still missing once these are gone.
    fn left_by(&self, pods: &[&Lower]) -> Room {
        let cpu: u64 = pods.iter().map(|pod| pod.cpu_millis).sum();
        let memory: u64 = pods.iter().map(|pod| pod.memory_bytes).sum();
        let count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        let given = |port: &&String| pods.iter().any(|pod| pod.host_ports.contains(port));
        Room {
            pods: self.pods.saturating_sub(count),
            cpu_millis: self.cpu_millis.saturating_sub(cpu),
            memory_bytes: self.memory_bytes.saturating_sub(memory),
            host_ports: self
                .host_ports
                .iter()
                .filter(|port| !given(port))
                .cloned()
                .collect(),
        }
    }

    fn is_nothing(&self) -> bool {
        *self == Room::default()
    }

    /// How much of this a pod gives back, in thousandths of each kind, summed.
    fn share_of(&self, pod: &Lower) -> u64 {
        let share = |given: u64, missing: u64| {
            let given = u128::from(given.min(missing)) * 1000;
            u64::try_from(given.checked_div(u128::from(missing)).unwrap_or(0)).unwrap_or(0)
        };
        let ports = self
            .host_ports
            .iter()
            .filter(|port| pod.host_ports.contains(port));
        share(1, u64::from(self.pods))
            + share(pod.cpu_millis, self.cpu_millis)
            + share(pod.memory_bytes, self.memory_bytes)
            + 1000 * ports.count() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lower(id: &str, standing: u32, cpu_millis: u64, memory_bytes: u64) -> Lower {
        Lower {
            id: id.to_owned(),
            standing,
            cpu_millis,
            memory_bytes,
            host_ports: Vec::new(),
        }
    }

    fn crowded(cpu_millis: u64, memory_bytes: u64, lower: Vec<Lower>) -> Crowded {
        let missing = Room {
            cpu_millis,
            memory_bytes,
            ..Room::default()
        };
        Crowded { missing, lower }
    }

    fn chosen(nodes: &[Crowded]) -> Option<(usize, Vec<&str>)> {
        let (at, victims) = choose(nodes)?;
        Some((at, victims.into_iter().map(|pod| pod.id.as_str()).collect()))
    }

    #[test]
    fn the_fewest_and_of_those_the_lowest() {
        let many = crowded(
            400,
            0,
            vec![lower("a", 1000, 200, 0), lower("b", 1000, 200, 0)],
        );
        let one = crowded(
            400,
            0,
            vec![
                lower("c", 2005, 900, 0),
                lower("d", 2001, 400, 0),
                lower("e", 1000, 100, 0),
            ],
        );
        let lowest = crowded(400, 0, vec![lower("f", 1000, 400, 0)]);
        assert_eq!(
            chosen(std::slice::from_ref(&many)),
            Some((0, vec!["b", "a"]))
        );
        assert_eq!(chosen(&[many.clone(), one.clone()]), Some((1, vec!["d"])));
        assert_eq!(chosen(&[many, one, lowest]), Some((2, vec!["f"])));
    }

    #[test]
    fn nobody_stops_in_vain() {
        let short = crowded(500, 0, vec![lower("a", 1000, 400, 1 << 30)]);
        assert_eq!(chosen(&[short]), None);
        let there_is_room = crowded(0, 0, vec![lower("a", 1000, 400, 0)]);
        assert_eq!(chosen(&[there_is_room]), None);
    }

    #[test]
    fn a_taken_port_is_given_back_by_whoever_has_it() {
        let mut web = lower("web", 2000, 0, 0);
        web.host_ports = vec!["80/tcp".to_owned()];
        let missing = Room {
            host_ports: vec!["80/tcp".to_owned()],
            ..Room::default()
        };
        let lower = vec![lower("other", 1000, 9000, 9000), web];
        assert_eq!(
            chosen(&[Crowded { missing, lower }]),
            Some((0, vec!["web"]))
        );
    }

    proptest! {
        #[test]
        fn victims_suffice_and_none_could_stay(
            cpu in 0..2000u64, memory in 0..2000u64, pods in 0..4u32,
            given in prop::collection::vec((1000..3000u32, 0..900u64, 0..900u64), 0..10),
        ) {
            let given = given.iter().enumerate();
            let lower = given.map(|(at, (standing, cpu, memory))| lower(&format!("p{at}"), *standing, *cpu, *memory));
            let missing = Room { pods, cpu_millis: cpu, memory_bytes: memory, ..Room::default() };
            let node = Crowded { missing, lower: lower.collect() };
            let all: Vec<&Lower> = node.lower.iter().collect();
            let suffices = |pods: &[&Lower]| node.missing.left_by(pods).is_nothing();
            match victims(&node) {
                None => prop_assert!(suffices(&[]) || !suffices(&all)),
                Some(victims) => {
                    prop_assert!(suffices(&victims));
                    for spared in 0..victims.len() {
                        let mut others = victims.clone();
                        others.remove(spared);
                        prop_assert!(!suffices(&others));
                    }
                    let one = all.iter().any(|pod| suffices(&[pod]));
                    prop_assert!(!one || victims.len() == 1);
                }
            }
        }
    }
}
