//! What is free on a node of what pods ask for beside cpu and memory: pure, over the texts of its record.
//!
//! Only pods that ask for such things are judged by it; all others cost nothing. The assign call has
//! the last word: it picks the devices, by the same order.

use crate::model::Amounts;
use crate::model::amounts::{DISK, PIDS};
use crate::store::Stock;

/// What a node lacks first of what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lack {
    /// This one of the words that are asked for.
    pub which: usize,
    /// So much of it is free.
    pub free: u64,
}

/// What a node of this stock lacks first.
pub(super) fn lacking(stock: &Stock, asks: &Amounts) -> Option<Lack> {
    if asks.is_empty() {
        return None;
    }
    let free = free(stock);
    let lacks = |(_, (word, amount)): &(usize, (&str, u64))| *amount > free.of(word);
    let (which, (word, _)) = asks.iter().enumerate().find(lacks)?;
    let free = free.of(word);
    Some(Lack { which, free })
}

/// How much of each it lacks.
pub(super) fn missing(stock: &Stock, asks: &Amounts) -> Amounts {
    asks.less(std::iter::once(&free(stock)))
}

/// Whether it had enough if nobody else were there.
pub(super) fn could_hold(stock: &Stock, asks: &Amounts) -> bool {
    let empty = Stock {
        offers: stock.offers.clone(),
        devices: stock.devices.clone(),
        ..Stock::default()
    };
    lacking(&empty, asks).is_none()
}

fn free(stock: &Stock) -> Amounts {
    let asked = Amounts::parse(&stock.asked);
    let mut free = Amounts::parse(&stock.offers).less(std::iter::once(&asked));
    for device in free_devices(stock) {
        free.add(device.split('/').next().unwrap_or_default(), 1);
    }
    free
}

/// Counts what a pod asks for as taken.
pub(super) fn take(stock: &mut Stock, asks: &Amounts) {
    if asks.is_empty() {
        return;
    }
    let mut asked = Amounts::parse(&stock.asked);
    for (word, amount) in asks.iter() {
        if word == DISK || word == PIDS {
            asked.add(word, amount);
            continue;
        }
        let is_of = |name: &&str| name.split_once('/').is_some_and(|(kind, _)| kind == word);
        let count = usize::try_from(amount).unwrap_or(usize::MAX);
        let given: Vec<&str> = free_devices(stock)
            .into_iter()
            .filter(is_of)
            .take(count)
            .collect();
        let given = given.join(",");
        if !given.is_empty() {
            stock.devices_used.push(',');
            stock.devices_used.push_str(&given);
        }
    }
    stock.asked = asked.to_string();
}

fn free_devices(stock: &Stock) -> Vec<&str> {
    let is_used = |name: &str| stock.devices_used.split(',').any(|used| used == name);
    let names = stock.devices.split(',');
    names
        .filter(|name| !name.is_empty() && !is_used(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::amounts::count_devices;

    fn stock(offers: &str, asked: &str, devices: &str, used: &str) -> Stock {
        Stock {
            offers: offers.to_owned(),
            asked: asked.to_owned(),
            devices: devices.to_owned(),
            devices_used: used.to_owned(),
        }
    }

    #[test]
    fn the_first_that_is_lacking_is_named_with_what_is_free() {
        let stock = stock(
            "disk=100,pids=9",
            "disk=40",
            ",gpu/0,gpu/1,fpga/a,",
            ",gpu/1,",
        );
        for (asks, lack) in [
            ("", None),
            ("disk=60,fpga=1,gpu=1,pids=9", None),
            ("disk=61,gpu=2", Some((0, 60))),
            ("disk=1,gpu=2", Some((1, 1))),
            ("pids=10", Some((0, 9))),
            ("tpu=1", Some((0, 0))),
        ] {
            let found = lacking(&stock, &Amounts::parse(asks));
            assert_eq!(found.map(|lack| (lack.which, lack.free)), lack, "{asks}");
        }
        let asks = Amounts::parse("disk=80,gpu=2,tpu=1");
        assert_eq!(missing(&stock, &asks).to_string(), "disk=20,gpu=1,tpu=1");
        assert!(!could_hold(&stock, &asks));
        assert!(could_hold(&stock, &Amounts::parse("disk=100,gpu=2")));
        let nothing = Stock::default();
        assert!(lacking(&nothing, &Amounts::parse("disk=1")).is_some());
    }

    proptest! {
        /// Whatever is asked for one after another: what is taken never exceeds what is offered, and
        /// no device is taken twice.
        #[test]
        fn sums_never_exceed_what_is_offered(
            all in prop::collection::vec((0..40_u64, 0..20_u64, 0..3_u64, 0..2_u64), 0..20),
        ) {
            let mut stock = stock("disk=100,pids=50", "", ",gpu/0,fpga/a,gpu/1,gpu/2,", ",");
            let mut held = Amounts::default();
            for (disk, pids, gpu, fpga) in all {
                let asks = format!("disk={disk},fpga={fpga},gpu={gpu},pids={pids}");
                let asks = Amounts::parse(&asks);
                let fits = [("disk", 100), ("pids", 50), ("gpu", 3), ("fpga", 1)]
                    .iter()
                    .all(|(word, most)| held.of(word) + asks.of(word) <= *most);
                prop_assert_eq!(lacking(&stock, &asks).is_none(), fits);
                if fits {
                    take(&mut stock, &asks);
                    asks.iter().for_each(|(word, amount)| held.add(word, amount));
                }
            }
            let mut told = Amounts::parse(&stock.asked);
            for (kind, count) in count_devices(&stock.devices_used).iter() {
                told.add(kind, count);
            }
            prop_assert_eq!(told, held);
            let mut used: Vec<&str> = stock.devices_used.split(',').filter(|it| !it.is_empty()).collect();
            used.sort_unstable();
            let count = used.len();
            used.dedup();
            prop_assert_eq!(used.len(), count);
        }
    }
}
