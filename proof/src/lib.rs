//! Every state that a small cluster can come into, looked at one by one.
//!
//! [`mod@reference`] is the state machine of `redis/kubeleet.lua` as a plain function; `tests/store/mirror.rs`
//! compares the two by random calls. `world` puts agents, schedulers, a user and a replica around it, and lets
//! what can go wrong go wrong; what agents and controllers decide is asked of kubeleet itself. The tests
//! here walk through all states of some small worlds, and show that each remedy is needed: without it there is
//! a shortest way to a broken promise.
//!
//! What is assumed: an agent's deadline, three quarters of a lease from the sending of a heartbeat, passes
//! before the lease in Redis ends, and what must be stopped is stopped in the quarter that is left; the test
//! of the deadline and the engine's start are one step; what a replica confirmed is not lost.

pub mod actions;
pub mod decide;
pub mod next;
pub mod promise;
pub mod reference;
pub mod world;

use stateright::{Model, Property};

use actions::Action;
use world::{Scenario, World};

/// A scenario, as the checker walks through it.
pub struct Walk(pub Scenario);

impl Model for Walk {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.0)]
    }

    fn actions(&self, world: &World, into: &mut Vec<Action>) {
        actions::actions(&self.0, world, into);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        Some(next::next(&self.0, world, action))
    }

    fn properties(&self) -> Vec<Property<Walk>> {
        vec![
            Property::always(promise::NOTHING_LOST, |walk: &Walk, world| {
                promise::nothing_lost(&walk.0, world)
            }),
            Property::always(promise::NEVER_TWO, |walk: &Walk, world| {
                promise::never_two(&walk.0, world)
            }),
            Property::always(promise::NOTHING_STUCK, |walk: &Walk, world| {
                promise::nothing_stuck(&walk.0, world)
            }),
            Property::always(promise::NEVER_MORE, |walk: &Walk, world| {
                promise::never_more(&walk.0, world)
            }),
            Property::always(promise::CAPACITY, |walk: &Walk, world| {
                promise::capacity(&walk.0, world)
            }),
        ]
    }
}
