//! What a random walk's events told so far, and that it is what there is: no transition without one.

use std::collections::{BTreeSet, HashMap};

use kubeleet::model::{Event, Phase, Position};
use kubeleet::store::ReadOutcome;

use crate::cluster::Cluster;
use crate::oracle::Oracle;

/// Entries read at once: several reads a look, so that positions matter.
const ENTRIES: usize = 3;

/// What one who knows nothing but the events knows.
pub(crate) struct Told {
    position: Position,
    pods: HashMap<String, ToldPod>,
    services: BTreeSet<String>,
}

struct ToldPod {
    phase: Phase,
    node: Option<String>,
    run: bool,
}

impl Default for Told {
    fn default() -> Told {
        Told {
            position: Position::START,
            pods: HashMap::new(),
            services: BTreeSet::new(),
        }
    }
}

impl Told {
    /// Reads what came since the last look, and compares all that was told with the oracle.
    pub(crate) async fn check(&mut self, cluster: &Cluster, oracle: &Oracle) {
        loop {
            let read = cluster.store.events().after(self.position, ENTRIES).await;
            let Ok(ReadOutcome::Read(page)) = read else {
                panic!("{read:?}");
            };
            for event in &page.events {
                assert!(event.id > self.position, "{event:?} again");
                self.learn(event);
            }
            self.position = page.position;
            if !page.more {
                break;
            }
        }
        for (id, pod) in &oracle.pods {
            let Some(told) = self.pods.get(id) else {
                panic!("nothing was told of {id}: {pod:?}");
            };
            assert_eq!(told.phase, pod.phase, "told of {id}: {pod:?}");
            // A tombstone may be of a pod that stopped at once, and was never told to.
            assert!(pod.gone || told.run == pod.run, "told of {id}: {pod:?}");
            if pod.phase.is_on_node() {
                assert_eq!(told.node, pod.node, "told of {id}: {pod:?}");
            }
        }
        let services: BTreeSet<String> = oracle.services.keys().cloned().collect();
        assert_eq!(self.services, services, "told");
    }

    fn learn(&mut self, event: &Event) {
        let service = || event.service.clone().expect("a service");
        match event.kind.as_str() {
            "service-created" => assert!(self.services.insert(service()), "{event:?}"),
            "service-deleted" => assert!(self.services.remove(&service()), "{event:?}"),
            _ => {}
        }
        let Some(id) = &event.pod else { return };
        let pod = self.pods.entry(id.to_string());
        let pod = pod.or_insert_with(|| {
            assert!(
                ["waiting", "scheduled"].contains(&event.kind.as_str()),
                "{event:?}"
            );
            ToldPod {
                phase: Phase::Waiting,
                node: None,
                run: true,
            }
        });
        if let Some(phase) = Phase::parse(&event.kind) {
            pod.phase = phase;
            pod.node = event.node.clone();
        }
        pod.run &= event.kind != "stopping";
    }
}
