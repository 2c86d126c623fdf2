//! The verdicts about chains of certificates. A server shows the same chain at every check, and nothing but the dates
//! in it changes what it is worth.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ahash::AHashMap as HashMap;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificates::Trust;
use crate::termination::Roots;

/// The most verdicts that are kept: some hundred KiB.
const MOST: usize = 4096;

/// The verdicts that are known, each for a while.
#[derive(Debug, Default)]
pub(super) struct ChainVerdicts {
    known: Mutex<HashMap<ChainKey, KnownVerdict>>,
    /// Nobody can choose a chain that counts as another one.
    keys: [RandomState; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ChainKey {
    /// Of the chain and the name.
    hash: [u64; 2],
    /// The address of the authorities.
    roots: usize,
}

#[derive(Debug)]
struct KnownVerdict {
    trust: Trust,
    /// When it holds, in seconds since 1970.
    holds: Range<i64>,
    /// Keeps other authorities from getting this address.
    _roots: Weak<Roots>,
}

impl ChainVerdicts {
    /// The verdict about a chain and a name, for which `judge` is called unless it is known.
    pub(super) fn get(
        &self,
        chain: &[CertificateDer<'_>],
        roots: &Arc<Roots>,
        name: Option<&ServerName<'_>>,
        now: UnixTime,
        judge: impl FnOnce() -> Trust,
    ) -> Trust {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let hash = self.keys.each_ref().map(|key| key.hash_one((chain, name)));
        let key = ChainKey { hash, roots: Arc::as_ptr(roots).addr() };
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = lock().get(&key)
            && verdict.holds.contains(&now)
        {
            return verdict.trust.clone();
        }
        let trust = judge();
        if let Some(holds) = without_change(chain, now) {
            let _roots = Arc::downgrade(roots);
            let mut known = lock();
            if known.len() >= MOST {
                // Most are of former certificates and authorities, and the others are soon back.
                known.clear();
            }
            known.insert(key, KnownVerdict { trust: trust.clone(), holds, _roots });
        }
        trust
    }
}

/// The time around `now` in which no certificate of a chain begins or ends to be valid; `None` if one cannot be read.
fn without_change(chain: &[CertificateDer<'_>], now: i64) -> Option<Range<i64>> {
    let mut time = i64::MIN..i64::MAX;
    for certificate in chain {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let validity = certificate.validity();
        // The last second is one of the valid ones.
        let end = validity.not_after.timestamp().saturating_add(1);
        for change in [validity.not_before.timestamp(), end] {
            match change <= now {
                true => time.start = time.start.max(change),
                false => time.end = time.end.min(change),
            }
        }
    }
    Some(time)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::RootCertStore;

    use super::*;

    /// Valid from 2026-01-01 to 2026-04-01.
    fn chain() -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 4, 1));
        vec![params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()]
    }

    fn at(year: i32, month: u8, day: u8) -> UnixTime {
        let seconds = date_time_ymd(year, month, day).unix_timestamp();
        UnixTime::since_unix_epoch(Duration::from_secs(seconds.try_into().unwrap()))
    }

    #[test]
    fn a_chain_is_judged_once_until_its_dates_its_authorities_or_its_name_are_others() {
        let (verdicts, judged) = (ChainVerdicts::default(), Cell::new(0));
        let roots = [(); 2].map(|()| Arc::new(Roots::from(RootCertStore::empty())));
        let names = ["a.test", "b.test"].map(|name| ServerName::try_from(name).unwrap());
        let chains = [chain(), chain()];
        let judgements = |chain: usize, roots_of: usize, name: Option<usize>, now| {
            let before = judged.get();
            let name = name.map(|name| &names[name]);
            let trust = verdicts.get(&chains[chain], &roots[roots_of], name, now, || {
                judged.set(before + 1);
                Trust::Vouched
            });
            assert_eq!(trust, Trust::Vouched);
            judged.get() - before
        };
        let (early, late) = (at(2026, 2, 1), at(2026, 3, 31));
        for (case, expected) in [
            ((0, 0, None, early), 1),
            ((0, 0, None, late), 0),
            ((1, 0, None, early), 1),
            ((0, 1, None, early), 1),
            ((0, 0, Some(0), early), 1),
            ((0, 0, Some(1), early), 1),
            ((0, 0, Some(1), late), 0),
            ((0, 0, None, late), 0),
            // It has expired, and the clock is set back.
            ((0, 0, None, at(2026, 4, 2)), 1),
            ((0, 0, None, at(2027, 4, 2)), 0),
            ((0, 0, None, late), 1),
            ((0, 0, None, at(2025, 12, 31)), 1),
        ] {
            let (chain, roots, name, now) = case;
            assert_eq!(judgements(chain, roots, name, now), expected, "{case:?}");
        }
    }

    #[test]
    fn verdicts_are_bounded_and_what_cannot_be_read_has_none() {
        let (verdicts, chain) = (ChainVerdicts::default(), chain());
        let roots = Arc::new(Roots::from(RootCertStore::empty()));
        let get = |chain: &[CertificateDer<'_>], name: &str| {
            let name = ServerName::try_from(name).unwrap();
            verdicts.get(chain, &roots, Some(&name), at(2026, 2, 1), || Trust::Vouched);
            verdicts.known.lock().unwrap().len()
        };
        assert_eq!(get(&[CertificateDer::from(vec![0])], "a.test"), 0);
        let kept = (0..=MOST).map(|number| get(&chain, &format!("n{number}.test")));
        assert_eq!(kept.max(), Some(MOST));
    }
}
