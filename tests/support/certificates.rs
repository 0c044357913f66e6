//! A certificate authority made for one test, and certificates of a server and a client signed by it.

use std::path::{Path, PathBuf};

use super::spawn::run;

/// Files of a throw-away authority; deleted on drop.
pub struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    /// Makes an authority, a certificate for 127.0.0.1, and one of a client.
    pub fn make() -> Certificates {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let openssl = |arguments: &[&str]| run(at, "openssl", arguments);
        openssl(
            &[
                &[
                    "req",
                    "-x509",
                    "-days",
                    "2",
                    "-subj",
                    "/CN=kubeleet test authority",
                ][..],
                &key[..],
                &["-keyout", "ca.key", "-out", "ca.crt"][..],
            ]
            .concat(),
        );
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost\n";
        std::fs::write(at.join("names"), names).expect("a file");
        for (name, subject) in [("server", "/CN=localhost"), ("client", "/CN=kubeleet")] {
            let (own_key, wish) = (format!("{name}.key"), format!("{name}.csr"));
            openssl(
                &[
                    &["req", "-subj", subject][..],
                    &key[..],
                    &["-keyout", &own_key, "-out", &wish][..],
                ]
                .concat(),
            );
            let sign = ["x509", "-req", "-days", "2", "-in", &wish, "-CA", "ca.crt"];
            let by = ["-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"];
            let certificate = format!("{name}.crt");
            openssl(&[&sign[..], &by, &["-out", &certificate]].concat());
        }
        Certificates { folder }
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// A file such as `server.key`.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }
}
