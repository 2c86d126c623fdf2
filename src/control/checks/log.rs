//! The log of the checks. What servers show and do decides about its lines, so their number has a bound.

use std::time::{Duration, Instant};

use super::plan::CheckKey;
use super::probe::CheckOutcome;
use super::steady::ConditionChange;
use crate::control::status::log_change;
use crate::control::token_bucket::TokenBucket;
use crate::routing::{CheckMethod, CheckVerdict};

/// How many lines of a kind may come at once after a quiet time.
const BURST: u32 = 32;
/// One more line for each of these.
const PER_LINE: Duration = Duration::from_secs(2);
/// How often the number of lines that were left out is logged.
const COUNT_EVERY: Duration = Duration::from_secs(60);

/// Logs, with a bound for each kind of lines.
#[derive(Debug)]
pub(super) struct CheckLog {
    endpoints: LogLimit,
    certificates: LogLimit,
    next_count: Instant,
}

impl CheckLog {
    pub(super) fn new(now: Instant) -> Self {
        let limit = || LogLimit { lines: TokenBucket::full(BURST, PER_LINE, now), left_out: 0 };
        CheckLog { endpoints: limit(), certificates: limit(), next_count: now }
    }

    /// Logs that an endpoint has another verdict now.
    pub(super) fn verdict(
        &mut self,
        key: &CheckKey,
        (outcome, verdict): (CheckOutcome, CheckVerdict),
        now: Instant,
    ) {
        let (endpoint, result) = (key.address, outcome.as_str());
        let check = match key.params.method {
            CheckMethod::Tcp => "TCP",
            CheckMethod::Tls(_) => "TLS",
        };
        if verdict == CheckVerdict::Unknown || !self.endpoints.admit(now) {
            return;
        }
        if verdict == CheckVerdict::Unhealthy {
            tracing::warn!(
                %endpoint, check, result,
                "an endpoint has failed its health checks and is tried last"
            );
        } else {
            tracing::info!(%endpoint, check, "an endpoint passes its health checks");
        }
    }

    /// Logs what is said of certificates now, and was not before.
    pub(super) fn conditions(&mut self, changes: &[ConditionChange], now: Instant) {
        for ConditionChange { route, former, now: condition } in changes {
            let is_news = !condition.status || former.is_some();
            if is_news && self.certificates.admit(now) {
                log_change(route, condition, former.as_ref());
            }
        }
    }

    /// Logs how many lines were left out, from time to time.
    pub(super) fn count_left_out(&mut self, now: Instant) {
        let [endpoints, routes] = [&mut self.endpoints, &mut self.certificates];
        if now < self.next_count || endpoints.left_out.max(routes.left_out) == 0 {
            return;
        }
        let [endpoints, routes] = [endpoints, routes].map(|one| std::mem::take(&mut one.left_out));
        self.next_count = now + COUNT_EVERY;
        tracing::warn!(
            endpoints,
            routes,
            hint = "/routes shows the states of endpoints and the conditions of routes",
            "more endpoints and certificates have changed than are logged"
        );
    }
}

/// The bound for one kind of lines.
#[derive(Debug)]
struct LogLimit {
    lines: TokenBucket,
    left_out: u64,
}

impl LogLimit {
    /// Whether a line may be written.
    fn admit(&mut self, now: Instant) -> bool {
        let admits = self.lines.pause(now).is_zero();
        match admits {
            true => self.lines.take(now),
            false => self.left_out = self.left_out.saturating_add(1),
        }
        admits
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::fixture::params;
    use super::*;
    use crate::control::log_capture::LogCapture;
    use crate::control::status::{BACKEND_CERTIFICATE, Condition};
    use crate::routing::ObjectRef;

    fn change(message: &str) -> ConditionChange {
        let (status, message) = (message.is_empty(), message.to_owned());
        let now = Condition { kind: BACKEND_CERTIFICATE, status, reason: "Reason", message };
        ConditionChange { route: ObjectRef::sni_route("ns", "r"), former: None, now }
    }

    #[test]
    fn lines_come_in_bursts_and_those_that_were_left_out_are_counted() {
        let start = Instant::now();
        let (log, mut of_checks) = (LogCapture::default(), CheckLog::new(start));
        let _listening = log.listen();
        let mut lines = |changes: usize, message: &str, now: Instant| {
            let changes: Vec<_> = (0..changes).map(|_| change(message)).collect();
            of_checks.conditions(&changes, now);
            of_checks.count_left_out(now);
            log.take()
        };
        // That there is nothing to say takes no place in the log.
        assert_eq!(lines(100, "", start).len(), 0);
        let first = lines(100, "expired", start);
        assert_eq!(first.len(), BURST as usize + 1);
        assert_eq!(first[0]["fields"]["detail"], "expired");
        assert_eq!(first[BURST as usize]["fields"]["routes"], 100 - BURST);
        assert_eq!(lines(3, "expired", start + PER_LINE).len(), 1);
        let later = lines(0, "", start + COUNT_EVERY);
        assert_eq!(later[0]["fields"]["routes"], 2);
        assert_eq!(lines(0, "", start + 3 * COUNT_EVERY).len(), 0);
    }

    #[test]
    fn endpoints_that_fail_and_recover_have_a_bound_of_their_own() {
        let start = Instant::now();
        let (log, mut of_checks) = (LogCapture::default(), CheckLog::new(start));
        let _listening = log.listen();
        let key = CheckKey { address: "192.0.2.1:443".parse().unwrap(), params: params().into() };
        let failed = (CheckOutcome::Refused, CheckVerdict::Unhealthy);
        let recovered = (CheckOutcome::Passed, CheckVerdict::Healthy);
        for _ in 0..50 {
            of_checks.verdict(&key, failed, start);
            of_checks.verdict(&key, recovered, start);
        }
        of_checks.conditions(&[change("expired")], start);
        of_checks.count_left_out(start);
        let lines = log.take();
        assert_eq!(lines.len(), BURST as usize + 2);
        let fields = ["endpoint", "check", "result"].map(|field| &lines[0]["fields"][field]);
        assert_eq!(fields, ["192.0.2.1:443", "TCP", "refused"]);
        assert_eq!([&lines[0], &lines[1]].map(|line| &line["level"]), ["WARN", "INFO"]);
        assert_eq!(lines[BURST as usize]["fields"]["detail"], "expired");
        let counts = &lines[BURST as usize + 1]["fields"];
        assert_eq!([&counts["endpoints"], &counts["routes"]], [100 - BURST, 0]);
    }
}
