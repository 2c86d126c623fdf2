//! Routes whose TLS sluice serves.

mod attacks;
mod bulk;
mod client_certificates;
mod costs;
mod cuts;
mod ends;
mod handshakes;
mod health;
mod peer;
mod pki;
mod records;
mod refusals;
mod rounds;
mod second_hello;
mod slow;
mod told;
mod upstream;

use rcgen::PKCS_ECDSA_P256_SHA256;

use self::peer::TlsPeer;
use self::pki::Authority;
use crate::support::{Backend, Plane, Target, target};

/// A data plane with a route for `a.test`, whose TLS it serves with an ECDSA certificate.
struct Site {
    authority: Authority,
    backend: Backend,
    plane: Plane,
}

impl Site {
    fn new() -> Self {
        Site::with(|target| target)
    }

    fn with(change: impl FnOnce(Target) -> Target) -> Self {
        let (authority, backend) = (Authority::new(), Backend::new());
        let parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
        let target = target("a.test", &[backend.address()]).terminated(parts, None);
        let plane = Plane::start(vec![change(target)]);
        Site { authority, backend, plane }
    }

    /// A client that has shaken hands, and the connection that its bytes go to.
    #[track_caller]
    fn pair(&self) -> (TlsPeer, std::net::TcpStream) {
        let client = TlsPeer::open(self.plane.address(), "a.test", &self.authority.client());
        (client, self.backend.accept())
    }
}
