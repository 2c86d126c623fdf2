//! Real TLS clients. Each says one line, and takes an answer only from a server whose certificate
//! has the name that it asked for.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};
use serde_json::Value;
use testkit::{Authority, Finished, Identity, PATIENCE, Program, eventually, tool};

use super::server::{go_peer, reversed};

/// What every client says: a line, or the path of a request.
pub(crate) const MESSAGE: &str = "a-line-from-the-client";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    OpenSsl,
    Curl,
    Rustls,
    Go,
    Python,
    GnuTls,
}

/// Whom to call, and how.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) to: SocketAddr,
    pub(crate) authority: &'a Authority,
    /// The name in the certificate. For an IP address, no client sends a server name.
    pub(crate) name: &'a str,
    /// The only version that is offered: `1.2`, `1.3`, or an older one by some clients.
    pub(crate) version: &'a str,
    pub(crate) alpn: &'a [&'a str],
}

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) version: String,
    /// Empty if none was negotiated.
    pub(crate) alpn: String,
    pub(crate) said: String,
}

impl Client {
    pub(crate) const ALL: [Client; 5] =
        [Client::OpenSsl, Client::Curl, Client::Rustls, Client::Go, Client::Python];

    /// Those that are served by sluice itself.
    pub(crate) const SERVED: [Client; 6] =
        [Client::OpenSsl, Client::Curl, Client::Rustls, Client::Go, Client::Python, Client::GnuTls];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Client::OpenSsl => "openssl",
            Client::Curl => "curl",
            Client::Rustls => "rustls",
            Client::Go => "go",
            Client::Python => "python",
            Client::GnuTls => "gnutls",
        }
    }

    /// Connects, checks the certificate, speaks and listens.
    pub(crate) fn call(self, call: &Call<'_>) -> Result<Answer, String> {
        self.call_as(call, None)
    }

    /// The same, and shows this certificate to a server that asks for one.
    pub(crate) fn call_as(self, call: &Call<'_>, own: Option<&Identity>) -> Result<Answer, String> {
        match self {
            Client::OpenSsl => s_client_as(call, call.name, own),
            Client::Curl => curl(call, own),
            Client::Rustls => rustls(call, own),
            Client::Go => go(call, own),
            Client::Python => python(call, own),
            Client::GnuTls => gnutls(call, own),
        }
    }
}

/// The flags that name a client's certificate and its key.
fn shown(own: Option<&Identity>, certificate: &str, key: &str) -> Vec<OsString> {
    let flags = |own: &Identity| {
        let files = [own.certificate_file.clone(), own.key_file.clone()];
        let [certificate_file, key_file] = files.map(OsString::from);
        vec![certificate.into(), certificate_file, key.into(), key_file]
    };
    own.map(flags).unwrap_or_default()
}

impl Answer {
    /// What a server that was heard and has heard answers.
    pub(crate) fn to(call: &Call<'_>, alpn: &str) -> Self {
        Answer { version: call.version.into(), alpn: alpn.into(), said: reversed(MESSAGE) }
    }
}

impl<'a> Call<'a> {
    fn is_to_address(&self) -> bool {
        self.name.parse::<std::net::IpAddr>().is_ok()
    }
}

/// `openssl s_client`, which sends any text as the server name, as it is.
pub(crate) fn s_client(call: &Call<'_>, server_name: &str) -> Result<Answer, String> {
    s_client_as(call, server_name, None)
}

fn s_client_as(
    call: &Call<'_>,
    server_name: &str,
    own: Option<&Identity>,
) -> Result<Answer, String> {
    let stdout = s_client_with(call, server_name, &shown(own, "-cert", "-key"))?;
    let after = |prefix: &str| stdout.lines().find_map(|line| line.strip_prefix(prefix));
    let answer = reversed(MESSAGE);
    Ok(Answer {
        version: after("New, TLSv").and_then(|rest| rest.split(',').next()).unwrap_or("?").into(),
        alpn: after("ALPN protocol: ").unwrap_or_default().into(),
        said: stdout.lines().find(|line| **line == answer).unwrap_or_default().into(),
    })
}

/// All that `openssl s_client` with more flags says, if it takes the server for the right one. The answer is the last
/// line.
pub(crate) fn s_client_with(
    call: &Call<'_>,
    server_name: &str,
    flags: &[impl AsRef<OsStr>],
) -> Result<String, String> {
    let mut program = s_client_started(call, server_name, flags);
    program.say(&format!("{MESSAGE}\n"));
    // OpenSSL writes it past the buffer of its stdout, so it may be in the middle of another line.
    let answer = reversed(MESSAGE) + "\n";
    eventually("openssl hears an answer or ends", || {
        (program.stdout.text().contains(&answer) || !program.is_running()).then_some(())
    });
    program.close_stdin();
    let Finished { status, stdout, stderr } = program.finish();
    let stdout = match stdout.split_once(&answer) {
        Some((before, after)) => [before, after, &answer].concat(),
        None => stdout,
    };
    match status.success() && stdout.contains("Verify return code: 0 (ok)") {
        true => Ok(stdout),
        false => Err(format!("{status}: {stdout}{stderr}")),
    }
}

/// The same, running.
pub(crate) fn s_client_started(
    call: &Call<'_>,
    server_name: &str,
    flags: &[impl AsRef<OsStr>],
) -> Program {
    let mut command = tool("openssl");
    command.args(["s_client", "-connect", &call.to.to_string(), "-verify_return_error"]);
    command.arg("-CAfile").arg(call.authority.file());
    command.arg(format!("-tls{}", call.version.replace('.', "_").replace("1_0", "1")));
    match call.is_to_address() {
        true => command.args(["-noservername", "-verify_ip", call.name]),
        false => command.args(["-servername", server_name, "-verify_hostname", call.name]),
    };
    if !call.alpn.is_empty() {
        command.args(["-alpn", &call.alpn.join(",")]);
    }
    Program::start(command.args(flags))
}

/// With HTTP/1.1, since that is what the servers speak.
fn curl(call: &Call<'_>, own: Option<&Identity>) -> Result<Answer, String> {
    let Call { to, name, version, .. } = call;
    let mut command = tool("curl");
    // Without the user's own settings.
    command.args(["--disable", "--silent", "--show-error", "--verbose", "--max-time", "60"]);
    command.args(["--noproxy", "*", "--fail", "--cacert"]).arg(call.authority.file());
    command.args([&format!("--tlsv{version}"), "--tls-max", version]);
    command.arg(if call.alpn.is_empty() { "--no-alpn" } else { "--http1.1" });
    command.args(["--connect-to", &format!("::{to}")]).args(shown(own, "--cert", "--key"));
    command.arg(format!("https://{name}:{}/{MESSAGE}", to.port()));
    let Finished { status, stdout, stderr } = Program::run(&mut command);
    if !status.success() {
        return Err(format!("{status}: {stderr}"));
    }
    let after = |mark: &str| stderr.split_once(mark).map(|(_, rest)| rest);
    let word = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
    Ok(Answer {
        version: after("SSL connection using TLSv").map(word).unwrap_or_default(),
        alpn: after("ALPN: server accepted ").map(word).unwrap_or_default(),
        said: stdout,
    })
}

/// Go with its defaults: a hello with a post-quantum share where the version allows it.
fn go(call: &Call<'_>, own: Option<&Identity>) -> Result<Answer, String> {
    let flags = shown(own, "-certificate", "-key");
    go_dial(call, &flags).as_ref().map(answered).map_err(Clone::clone)
}

/// What Go with more flags reports.
pub(crate) fn go_dial(call: &Call<'_>, flags: &[impl AsRef<OsStr>]) -> Result<Value, String> {
    let mut command = Command::new(go_peer());
    command.arg("dial").args(flags).args([&call.to.to_string(), call.name]);
    command.arg(call.authority.file());
    reported(command.args([call.version, MESSAGE]).args(call.alpn))
}

fn python(call: &Call<'_>, own: Option<&Identity>) -> Result<Answer, String> {
    let of = |own: &Identity| [own.certificate_file.clone(), own.key_file.clone()];
    let mut flags: Vec<OsString> = Vec::new();
    if let Some(own) = own {
        flags.push("--certificate".into());
        flags.extend(of(own).map(OsString::from));
    }
    python_dial(call, &flags).as_ref().map(answered).map_err(Clone::clone)
}

/// What Python with more flags reports.
pub(crate) fn python_dial(call: &Call<'_>, flags: &[impl AsRef<OsStr>]) -> Result<Value, String> {
    let mut command = tool("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/client.py")).args(flags);
    command.args([&call.to.ip().to_string(), &call.to.port().to_string(), call.name]);
    command.arg(call.authority.file());
    reported(command.args([call.version, MESSAGE]).args(call.alpn))
}

/// What a program of ours reports as JSON.
fn reported(command: &mut Command) -> Result<Value, String> {
    let Finished { status, stdout, stderr } = Program::run(command);
    match status.success() {
        true => Ok(serde_json::from_str(&stdout).unwrap()),
        false => Err(format!("{status}: {stderr}")),
    }
}

fn answered(report: &Value) -> Answer {
    let text = |key: &str| report[key].as_str().unwrap().to_owned();
    // Go says "TLS 1.3" and Python "TLSv1.3".
    let version = text("version").trim_start_matches(|c: char| !c.is_ascii_digit()).to_owned();
    Answer { version, alpn: text("alpn"), said: text("answer") }
}

/// `gnutls-cli`, which says all that it negotiated in a line.
fn gnutls(call: &Call<'_>, own: Option<&Identity>) -> Result<Answer, String> {
    let mut command = gnutls_cli(call);
    command.args(shown(own, "--x509certfile", "--x509keyfile"));
    let mut program = Program::start(&mut command);
    program.say(&format!("{MESSAGE}\n"));
    let answer = reversed(MESSAGE);
    eventually("gnutls-cli hears an answer or ends", || {
        (program.stdout.lines().contains(&answer) || !program.is_running()).then_some(())
    });
    program.close_stdin();
    let Finished { status, stdout, stderr } = program.finish();
    let said = stdout.lines().find(|line| **line == answer);
    let (true, Some(said)) = (status.success(), said) else {
        return Err(format!("{status}: {stdout}{stderr}"));
    };
    let after = |prefix: &str| stdout.lines().find_map(|line| line.strip_prefix(prefix));
    Ok(Answer {
        version: after("- Description: (TLS")
            .and_then(|rest| rest.split('-').next())
            .unwrap_or("?")
            .into(),
        alpn: after("- Application protocol: ").unwrap_or_default().into(),
        said: said.into(),
    })
}

/// `gnutls-cli` with what every call of it needs.
pub(crate) fn gnutls_cli(call: &Call<'_>) -> Command {
    let mut command = tool("gnutls-cli");
    command.args(["--sni-hostname", call.name, "--verify-hostname", call.name]);
    command.arg("--x509cafile").arg(call.authority.file());
    command.arg(format!("--priority=NORMAL:-VERS-ALL:+VERS-TLS{}", call.version));
    command.args(call.alpn.iter().map(|protocol| format!("--alpn={protocol}")));
    command.args(["-p", &call.to.port().to_string(), &call.to.ip().to_string()]);
    command
}

fn rustls(call: &Call<'_>, own: Option<&Identity>) -> Result<Answer, String> {
    let config = client_config_as(call, own);
    let mut session = Session::with(config, call).map_err(|error| error.to_string())?;
    let said = session.say(MESSAGE)?;
    let connection = &session.reader.get_ref().conn;
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
        Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
        _ => "?",
    };
    let alpn = String::from_utf8(connection.alpn_protocol().unwrap_or_default().into()).unwrap();
    session.close()?;
    Ok(Answer { version: version.into(), alpn, said })
}

/// A connection of rustls that stays open for as long as it is wanted.
pub(crate) struct Session {
    reader: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Session {
    pub(crate) fn open(call: &Call<'_>) -> Result<Self, String> {
        Session::with(client_config(call), call).map_err(|error| error.to_string())
    }

    pub(crate) fn with(config: Arc<ClientConfig>, call: &Call<'_>) -> std::io::Result<Self> {
        let name = ServerName::try_from(call.name.to_owned()).unwrap();
        let tls = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
        let stream = TcpStream::connect_timeout(&call.to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Session { reader: BufReader::new(StreamOwned::new(tls, stream)) })
    }

    /// What was negotiated.
    pub(crate) fn connection(&mut self) -> &mut ClientConnection {
        &mut self.reader.get_mut().conn
    }

    /// Completes the handshake, without saying anything.
    pub(crate) fn shake_hands(&mut self) -> std::io::Result<()> {
        let stream = self.reader.get_mut();
        stream.conn.complete_io(&mut stream.sock).map(drop)
    }

    /// Says a line and returns the answer.
    pub(crate) fn say(&mut self, line: &str) -> Result<String, String> {
        let mut say = || {
            self.reader.get_mut().write_all(format!("{line}\n").as_bytes())?;
            let mut answer = String::new();
            self.reader.read_line(&mut answer)?;
            match answer.pop() {
                Some('\n') => Ok(answer),
                _ => Err(std::io::Error::other("the answer has no end")),
            }
        };
        say().map_err(|error| error.to_string())
    }

    /// Ends it from this side and waits for the other.
    pub(crate) fn close(mut self) -> Result<(), String> {
        let mut close = || {
            let stream = self.reader.get_mut();
            stream.conn.send_close_notify();
            stream.flush()?;
            stream.sock.shutdown(Shutdown::Write)?;
            let rest = self.reader.read_to_end(&mut Vec::new())?;
            if rest == 0 { Ok(()) } else { Err(std::io::Error::other("more than the answer")) }
        };
        close().map_err(|error| error.to_string())
    }
}

/// Made once for many connections: it has no sessions to resume.
pub(crate) fn client_config(call: &Call<'_>) -> Arc<ClientConfig> {
    client_config_as(call, None)
}

/// The same, with a certificate of the client.
pub(crate) fn client_config_as(call: &Call<'_>, own: Option<&Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(call.authority.certificate()).unwrap();
    let only = if call.version == "1.2" { &version::TLS12 } else { &version::TLS13 };
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[only])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        Some(own) => config.with_client_auth_cert(own.chain(), own.key()).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = call.alpn.iter().map(|protocol| protocol.as_bytes().into()).collect();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}
