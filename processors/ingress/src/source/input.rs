//! Where bytes come from: a file or standard input, gzip recognised by its content.

use flate2::read::MultiGzDecoder;
use std::{
    fs::File,
    io::{self, Cursor, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const READ_BYTES: usize = 256 * 1024;

/// An open input.
pub struct Input {
    /// The file's name, or `-` for standard input; dead letters carry it.
    pub name: String,
    /// The size as stored (compressed), in bytes, where it is known.
    pub total_bytes: Option<u64>,
    bytes_read: Arc<AtomicU64>,
    reader: Box<dyn Read + Send>,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input")
            .field("name", &self.name)
            .field("total_bytes", &self.total_bytes)
            .finish_non_exhaustive()
    }
}

impl Input {
    /// Opens a file, or standard input for `-`.
    pub fn open(path: &str) -> io::Result<Self> {
        if path == "-" {
            return Self::from_reader("-", None, io::stdin());
        }
        let file = File::open(path)?;
        let total = file.metadata().ok().filter(|m| m.is_file()).map(|m| m.len());
        let name = Path::new(path).file_name().map_or(path.into(), |n| n.to_string_lossy().into_owned());
        Self::from_reader(&name, total, file)
    }

    /// Takes any reader; `total_bytes` is its size as stored.
    pub fn from_reader(
        name: &str,
        total_bytes: Option<u64>,
        reader: impl Read + Send + 'static,
    ) -> io::Result<Self> {
        let bytes_read = Arc::new(AtomicU64::new(0));
        let counted = Counted { reader, bytes_read: Arc::clone(&bytes_read) };
        let mut buffered = io::BufReader::with_capacity(READ_BYTES, counted);
        let mut start = Vec::with_capacity(GZIP_MAGIC.len());
        (&mut buffered).take(GZIP_MAGIC.len() as u64).read_to_end(&mut start)?;
        let gzip = start == GZIP_MAGIC;
        if start == [0xff, 0xfe] || start == [0xfe, 0xff] {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the text is UTF-16: convert it to UTF-8 first, for example with `iconv -f UTF-16 -t UTF-8`",
            ));
        }
        let whole = Cursor::new(start).chain(buffered);
        let reader: Box<dyn Read + Send> =
            if gzip { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
        Ok(Self { name: name.into(), total_bytes, bytes_read, reader })
    }

    /// Bytes read so far as stored (compressed); shared with the reading thread.
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes_read)
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

struct Counted<R> {
    reader: R,
    bytes_read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn text_of(bytes: Vec<u8>) -> io::Result<String> {
        let mut text = String::new();
        Input::from_reader("test", None, Cursor::new(bytes))?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_is_known_by_its_content() {
        assert_eq!(text_of(gzip("a,b\n1,2\n")).unwrap(), "a,b\n1,2\n");
        assert_eq!(text_of(b"a,b\n".to_vec()).unwrap(), "a,b\n");
        assert_eq!(text_of(b"a".to_vec()).unwrap(), "a");
        assert_eq!(text_of(Vec::new()).unwrap(), "");
        // Several members one after the other, as `cat a.gz b.gz` makes them.
        assert_eq!(text_of([gzip("one\n"), gzip("two\n")].concat()).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_cut_off_gzip_is_an_error_and_not_the_end() {
        let whole = gzip(&"some text that goes on\n".repeat(1000));
        let error = text_of(whole[..whole.len() - 10].to_vec()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn utf_16_is_refused_with_a_remedy() {
        let error = Input::from_reader("x", None, Cursor::new(b"\xff\xfea\0".to_vec())).unwrap_err();
        assert!(error.to_string().contains("iconv"), "{error}");
    }
}
