//! Bytes of a simulated file: pages shared between copies until written, holes read as zeroes. A copy of a 16 MiB spool costs a few
//! thousand reference counts, which is what lets one machine play thousands of crashes.

use std::sync::Arc;

const PAGE: usize = 4096;

/// What a file holds at one moment.
#[derive(Clone, Default)]
pub(super) struct Content {
    len: u64,
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
}

impl Content {
    pub(super) fn zeroes(len: u64) -> Self {
        let mut content = Self::default();
        content.set_len(len);
        content
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let pages = len.div_ceil(PAGE as u64) as usize;
        self.pages.resize(pages, None);
        let kept = (len % PAGE as u64) as usize;
        if len < self.len
            && kept > 0
            && let Some(page) = self.pages.last_mut().and_then(Option::as_mut)
        {
            Arc::make_mut(page)[kept..].fill(0);
        }
        self.len = len;
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        if end > self.len {
            self.set_len(end);
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = offset as usize + done;
            let (index, within) = (at / PAGE, at % PAGE);
            let n = (PAGE - within).min(bytes.len() - done);
            let page = self.pages[index].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + n].copy_from_slice(&bytes[done..done + n]);
            done += n;
        }
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let end = self.len.min(offset.saturating_add(into.len() as u64));
        let n = end.saturating_sub(offset) as usize;
        let mut done = 0;
        while done < n {
            let at = offset as usize + done;
            let (index, within) = (at / PAGE, at % PAGE);
            let m = (PAGE - within).min(n - done);
            match &self.pages[index] {
                Some(page) => into[done..done + m].copy_from_slice(&page[within..within + m]),
                None => into[done..done + m].fill(0),
            }
            done += m;
        }
        n
    }

    /// One past the last byte that is not zero.
    pub(super) fn written_end(&self) -> u64 {
        for (index, page) in self.pages.iter().enumerate().rev() {
            if let Some(last) = page.as_ref().and_then(|p| p.iter().rposition(|b| *b != 0)) {
                return (index * PAGE + last + 1) as u64;
            }
        }
        0
    }
}
