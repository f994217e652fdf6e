//! What a server tells a replication connection when it begins: its parameters.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use walstream_tests::Cluster;

/// Protocol version 3.0.
const VERSION: i32 = 196_608;

/// Names and values of the `ParameterStatus` messages, in the server's order.
pub(crate) fn identity(cluster: &Cluster) -> Result<Vec<[String; 2]>> {
    let mut stream = UnixStream::connect(
        cluster
            .scratch()
            .join(format!(".s.PGSQL.{}", cluster.port())),
    )?;
    let mut body = VERSION.to_be_bytes().to_vec();
    body.extend(b"user\0postgres\0replication\0true\0application_name\0gp_walreceiver\0\0");
    stream.write_all(&i32::try_from(body.len() + 4)?.to_be_bytes())?;
    stream.write_all(&body)?;
    let mut parameters = Vec::new();
    loop {
        let mut tag = [0];
        let mut length = [0; 4];
        stream.read_exact(&mut tag)?;
        stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length))?
            .checked_sub(4)
            .context("a short message")?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        match &tag {
            b"S" => {
                let text = String::from_utf8(body)?;
                let mut parts = text.split('\0');
                let mut next = || {
                    parts
                        .next()
                        .map(str::to_owned)
                        .context("a short ParameterStatus")
                };
                parameters.push([next()?, next()?]);
            }
            b"E" => bail!("the server refuses: {}", String::from_utf8_lossy(&body)),
            b"Z" => return Ok(parameters),
            _ => {}
        }
    }
}
