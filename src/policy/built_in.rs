//! sluice's own defaults.

use std::time::Duration;

use super::{
    Balancing, HealthPolicy, LoadBalancing, Locality, Number, PassiveHealth, Policy, RacePolicy,
    SourcePrefix, Timeout, Timeouts,
};

/// sluice's own defaults, of the fields that always have a value.
pub fn built_in() -> Policy {
    Policy {
        load_balancing: LoadBalancing {
            policy: Some(Balancing::default()),
            locality: Some(Locality::default()),
            prefix: SourcePrefix::default(),
            slow_start: None,
            race: RacePolicy {
                after: Timeout::new(Duration::from_millis(300)),
                budget: Some(Number::new(20)),
            },
        },
        timeouts: Timeouts {
            connect: Timeout::new(Duration::from_secs(5)),
            idle: Timeout::new(Duration::from_hours(1)),
            lifetime: None,
        },
        health: HealthPolicy {
            passive: PassiveHealth {
                failures: Some(Number::new(3)),
                eject_for: Timeout::new(Duration::from_secs(10)),
                max_eject_for: Timeout::new(Duration::from_mins(5)),
            },
            active: None,
        },
        ..Policy::default()
    }
}
