//! A body that is coded as it passes. What has come is coded at once; while nothing more comes, what is in the coder is
//! sent on, so that a client waits for no byte of a streamed answer that the function has written.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::{Body as _, Frame};

use super::encode::Encoding;
use crate::http::{Body, BodyError};

/// What brotli's effort is in nginx's and others' dynamic compression: near gzip's speed, and smaller.
const BROTLI_QUALITY: u32 = 4;
/// Window of 512 KiB: most of the gain, an eighth of the memory of the largest.
const BROTLI_WINDOW: u32 = 19;
/// Bytes of the coder's buffer.
const BUFFER: usize = 4 * 1024;
/// What is collected before it is sent on, as long as more comes.
const CHUNK: usize = 16 * 1024;

/// A body on its way through a coder.
pub(crate) struct Encoder {
    body: Body,
    /// None once the end has been written.
    coder: Option<Coder>,
    /// Whether the coder holds something that was not sent on.
    holds: bool,
}

enum Coder {
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Encoder {
    pub(super) fn new(body: Body, encoding: Encoding) -> Self {
        let coder = match encoding {
            Encoding::Gzip => Coder::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Encoding::Brotli => Coder::Brotli(Box::new(CompressorWriter::new(
                Vec::new(),
                BUFFER,
                BROTLI_QUALITY,
                BROTLI_WINDOW,
            ))),
        };
        Self { body, coder: Some(coder), holds: false }
    }

    /// Whether the last byte has been handed out.
    pub(crate) fn is_at_end(&self) -> bool {
        self.coder.is_none()
    }

    /// The next coded bytes.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let Some(coder) = &mut self.coder else { return Poll::Ready(None) };
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Answers with trailers (gRPC) are not coded.
                    let Ok(data) = frame.into_data() else { continue };
                    coder.write(&data)?;
                    self.holds = true;
                    if coder.ready() >= CHUNK {
                        return Poll::Ready(Some(Ok(Frame::data(coder.take()))));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.coder = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => {
                    let last = self.coder.take().map(Coder::finish).transpose()?.unwrap_or_default();
                    return Poll::Ready((!last.is_empty()).then(|| Ok(Frame::data(last))));
                }
                Poll::Pending => {
                    if !std::mem::take(&mut self.holds) {
                        return Poll::Pending;
                    }
                    coder.flush()?;
                    if coder.ready() == 0 {
                        return Poll::Pending;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(coder.take()))));
                }
            }
        }
    }
}

impl Coder {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Brotli(coder) => coder.write_all(data),
            Self::Gzip(coder) => coder.write_all(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Brotli(coder) => coder.flush(),
            Self::Gzip(coder) => coder.flush(),
        }
    }

    /// How much could be taken.
    fn ready(&self) -> usize {
        match self {
            Self::Brotli(coder) => coder.get_ref().len(),
            Self::Gzip(coder) => coder.get_ref().len(),
        }
    }

    fn take(&mut self) -> Bytes {
        match self {
            Self::Brotli(coder) => std::mem::take(coder.get_mut()).into(),
            Self::Gzip(coder) => std::mem::take(coder.get_mut()).into(),
        }
    }

    fn finish(self) -> io::Result<Bytes> {
        match self {
            Self::Brotli(coder) => Ok(coder.into_inner().into()),
            Self::Gzip(coder) => coder.finish().map(Bytes::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;
    use std::io::Read as _;

    fn decoded(coded: &[u8], encoding: Encoding) -> Vec<u8> {
        let mut plain = Vec::new();
        match encoding {
            Encoding::Gzip => flate2::read::GzDecoder::new(coded).read_to_end(&mut plain),
            Encoding::Brotli => brotli::Decompressor::new(coded, BUFFER).read_to_end(&mut plain),
        }
        .unwrap();
        plain
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_coded_is_what_was_sent(data in prop::collection::vec(any::<u8>(), 0..40_000), brotli in any::<bool>()) {
            let encoding = if brotli { Encoding::Brotli } else { Encoding::Gzip };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let body = Body::encoded(Encoder::new(Body::full(data.clone()), encoding));
            let coded = runtime.block_on(body.collect()).unwrap().to_bytes();
            prop_assert_eq!(decoded(&coded, encoding), data);
        }
    }
}
