//! A real directory server (slapd) for tests: its own folder, a free loopback port, nothing left behind.
//!
//! A shell supervises the server and reads a pipe from the test process. When the test process ends, the pipe closes.
//! The shell then stops the server and removes the folder.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(30);
const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";

/// The account that may search.
pub(crate) const READER: &str = "cn=reader,dc=example,dc=org";
/// The password of [`READER`].
pub(crate) const PASSWORD: &str = "read me";

/// A running server.
pub(crate) struct LdapServer {
    shell: Child,
    folder: PathBuf,
    plain: u16,
    encrypted: u16,
}

impl LdapServer {
    /// Starts a server with `dc=example,dc=org`, the reader and the entries of an LDIF text below it.
    pub(crate) fn start(entries: &str) -> Self {
        let folder = tempfile::TempDir::with_prefix("landfall-ldap-").unwrap().keep();
        fs::create_dir(folder.join("db")).unwrap();
        certificates(&folder);
        fs::write(folder.join("slapd.conf"), configuration(&folder)).unwrap();
        let base = format!(
            "dn: dc=example,dc=org\nobjectClass: domain\ndc: example\n\ndn: {READER}\nobjectClass: person\ncn: reader\n\
             sn: reader\nuserPassword: {PASSWORD}\n\n"
        );
        fs::write(folder.join("entries.ldif"), format!("{base}{entries}")).unwrap();
        let [slapadd, slapd] = ["slapadd", "slapd"].map(program);
        let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let filled = Command::new(slapadd)
            .args(["-f", &file("slapd.conf"), "-l", &file("entries.ldif")])
            .output()
            .unwrap();
        assert!(filled.status.success(), "slapadd: {}", String::from_utf8_lossy(&filled.stderr));

        let [plain, encrypted] = [free_port(), free_port()];
        let urls = format!("ldap://127.0.0.1:{plain} ldaps://127.0.0.1:{encrypted}");
        let script = "\"$1\" -d 0 -f \"$2/slapd.conf\" -h \"$3\" & server=$!; read -r line; kill $server; wait $server; \
                      rm -rf \"$2\"";
        let shell = Command::new("sh")
            .args(["-c", script, "sh", &slapd, folder.to_str().unwrap(), &urls])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { shell, folder, plain, encrypted };
        let end = Instant::now() + TIMEOUT;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, plain)).is_err() {
            assert!(Instant::now() < end, "slapd does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// The URL without encryption.
    pub(crate) fn url(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.plain)
    }

    /// The URL with encryption.
    pub(crate) fn encrypted_url(&self) -> String {
        format!("ldaps://127.0.0.1:{}", self.encrypted)
    }

    /// The certificate of the authority that signed the server certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Stops the server. For its clients this looks like a crash.
    pub(crate) fn stop(&mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            // An error means that the shell has gone already.
            let _ = pipe.write_all(b"\n");
        }
        let _ = self.shell.wait();
    }
}

impl Drop for LdapServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
         include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n\
         TLSCACertificateFile {folder}/ca.crt\nTLSCertificateFile {folder}/server.crt\n\
         TLSCertificateKeyFile {folder}/server.key\ndatabase mdb\nmaxsize 10485760\nsuffix \"dc=example,dc=org\"\n\
         directory {folder}/db\naccess to attrs=userPassword by anonymous auth by * none\n\
         access to * by dn.exact=\"{READER}\" read by * none\n"
    )
}

fn certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(&format!("req -x509 {NEW_KEY} -subj /CN=ca -keyout ca.key -out ca.crt"));
    fs::write(folder.join("server.ext"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
        .unwrap();
    openssl(&format!("req {NEW_KEY} -subj /CN=server -keyout server.key -out server.csr"));
    openssl(
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.crt",
    );
}

fn program(name: &str) -> String {
    let found = ["/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/libexec"]
        .map(|folder| Path::new(folder).join(name))
        .into_iter()
        .find(|path| path.exists());
    let found =
        found.unwrap_or_else(|| panic!("`{name}` is not here: `make tools` installs it (Debian: slapd)"));
    found.to_str().unwrap().to_owned()
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
