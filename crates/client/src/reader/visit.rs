//! Visitors: what is done with fragments, tags and frames, apart from how they are read.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use matroska::Tag;

use crate::reader::fragment::{Fragment, FragmentEnd, FragmentError, FragmentStart, Frame};
use crate::reader::parser::FragmentEvent;

/// Is led through fragments. Every method may break off; each does nothing unless it is written. A pair of visitors is a
/// visitor: both see everything.
pub trait FragmentVisitor {
    /// A fragment begins.
    fn start(&mut self, _fragment: &FragmentStart) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// The producer set a tag; `None` where it stands before the first fragment of a document.
    fn tag(&mut self, _fragment: Option<&FragmentStart>, _tag: &Tag) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// A frame: hand it to the decoder of its track, which
    /// [`fragment.track(frame.track)`](FragmentStart::track) describes.
    fn frame(&mut self, _fragment: &FragmentStart, _frame: &Frame) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// The fragment ended; without a continuation token, it is not whole.
    fn end(&mut self, _fragment: &FragmentStart, _end: &FragmentEnd) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// A fragment could not be returned.
    fn failed(&mut self, _error: &FragmentError) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl<A: FragmentVisitor, B: FragmentVisitor> FragmentVisitor for (A, B) {
    fn start(&mut self, fragment: &FragmentStart) -> ControlFlow<()> {
        self.0.start(fragment)?;
        self.1.start(fragment)
    }

    fn tag(&mut self, fragment: Option<&FragmentStart>, tag: &Tag) -> ControlFlow<()> {
        self.0.tag(fragment, tag)?;
        self.1.tag(fragment, tag)
    }

    fn frame(&mut self, fragment: &FragmentStart, frame: &Frame) -> ControlFlow<()> {
        self.0.frame(fragment, frame)?;
        self.1.frame(fragment, frame)
    }

    fn end(&mut self, fragment: &FragmentStart, end: &FragmentEnd) -> ControlFlow<()> {
        self.0.end(fragment, end)?;
        self.1.end(fragment, end)
    }

    fn failed(&mut self, error: &FragmentError) -> ControlFlow<()> {
        self.0.failed(error)?;
        self.1.failed(error)
    }
}

impl FragmentEvent {
    /// Leads a visitor through this event. `current` keeps the fragment under way between events; begin with `None`.
    pub fn visit(
        &self,
        current: &mut Option<Arc<FragmentStart>>,
        visitor: &mut impl FragmentVisitor,
    ) -> ControlFlow<()> {
        match (self, current.clone()) {
            (FragmentEvent::Start(start), _) => {
                *current = Some(Arc::clone(start));
                visitor.start(start)
            }
            (FragmentEvent::Tag(tag), start) => visitor.tag(start.as_deref(), tag),
            (FragmentEvent::Frame(frame), Some(start)) => visitor.frame(&start, frame),
            (FragmentEvent::End(end), Some(start)) => {
                *current = None;
                visitor.end(&start, end)
            }
            (FragmentEvent::Failed(error), _) => visitor.failed(error),
            _ => ControlFlow::Continue(()),
        }
    }
}

impl Fragment {
    /// Leads a visitor through this fragment.
    pub fn visit(&self, visitor: &mut impl FragmentVisitor) -> ControlFlow<()> {
        visitor.start(&self.start)?;
        for frame in &self.frames {
            visitor.frame(&self.start, frame)?;
        }
        for tag in &self.tags {
            visitor.tag(Some(&self.start), tag)?;
        }
        visitor.end(&self.start, &self.end)
    }
}

/// Counts what it sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Fragments that began.
    pub fragments: u64,
    /// Fragments that ended whole.
    pub complete: u64,
    /// Fragments that could not be returned.
    pub failed: u64,
    /// Tags.
    pub tags: u64,
    /// Frames by track.
    pub frames: BTreeMap<u64, u64>,
    /// Bytes of frames.
    pub frame_bytes: u64,
}

impl FragmentVisitor for Counts {
    fn start(&mut self, _: &FragmentStart) -> ControlFlow<()> {
        self.fragments += 1;
        ControlFlow::Continue(())
    }

    fn tag(&mut self, _: Option<&FragmentStart>, _: &Tag) -> ControlFlow<()> {
        self.tags += 1;
        ControlFlow::Continue(())
    }

    fn frame(&mut self, _: &FragmentStart, frame: &Frame) -> ControlFlow<()> {
        *self.frames.entry(frame.track).or_default() += 1;
        self.frame_bytes += frame.data.len() as u64;
        ControlFlow::Continue(())
    }

    fn end(&mut self, _: &FragmentStart, end: &FragmentEnd) -> ControlFlow<()> {
        self.complete += u64::from(end.continuation_token.is_some());
        ControlFlow::Continue(())
    }

    fn failed(&mut self, _: &FragmentError) -> ControlFlow<()> {
        self.failed += 1;
        ControlFlow::Continue(())
    }
}
