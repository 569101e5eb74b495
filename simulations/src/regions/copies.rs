//! Copies of edges' disks: put back on the same machine later, or started on another beside the first, in any region.

use rand::RngExt;

use super::edge::Edge;
use super::past::Reader;
use super::{EDGES, Regions, places};
use crate::disk::SimDisk;
use crate::invariants::Check;

/// So many machines at most run as one that was copied.
const TWINS_MAX: usize = 2;

/// What was on a disk at some moment, and what its readers knew.
#[derive(Clone, Debug)]
pub(super) struct Image {
    edge: usize,
    disk: SimDisk,
    reader: Reader,
}

impl Regions {
    /// Somebody takes an image of a disk, or uses the one that there is.
    pub(super) fn disk_is_copied(&mut self) -> Check {
        let Some(image) = self.image.take() else {
            let edge = self.rng.random_range(0..self.edges.len());
            let (disk, reader) = (self.edges[edge].disk.clone(), self.past.readers[edge].clone());
            self.trace.write(self.now, format_args!("an image of edge {edge}"));
            self.image = Some(Image { edge, disk, reader });
            return Ok(());
        };
        if self.edges.len() < EDGES + TWINS_MAX && self.rng.random_range(0..3) > 0 {
            return self.start_twin(image);
        }
        self.stats.count("disk images put back in worlds of regions");
        let edge = image.edge;
        self.load_image(image, edge)
    }

    /// A second machine runs as the same edge, with the same certificate, in any region.
    fn start_twin(&mut self, image: Image) -> Check {
        self.stats.count("edges that ran twice in worlds of regions");
        let (twin, home) = (self.edges.len(), self.random_site());
        let who = self.edges[image.edge].who;
        let (original, wall) = (image.edge, self.wall());
        let twin_host =
            Edge::new(who, home, self.setup, &mut self.rng, wall).with_clock_of(&self.edges[original]);
        self.edges.push(twin_host);
        self.past.readers.push(Reader::default());
        if self.rng.random_range(0..2) == 0 {
            return self.load_image(image, twin);
        }
        // Both begin with it, on one host with one clock, and both write in the same millisecond.
        self.load_image(image.clone(), original)?;
        self.load_image(image, twin)?;
        let at = places::random_key(&mut self.rng);
        self.edge_writes_at(original, at.clone())?;
        self.edge_writes_at(twin, at)
    }

    fn load_image(&mut self, image: Image, edge: usize) -> Check {
        self.trace.write(self.now, format_args!("edge {edge} gets an image of edge {}", image.edge));
        self.past.copied.insert(self.edges[edge].actor);
        self.edges[edge].disk = image.disk;
        self.past.readers[edge] = image.reader;
        self.past.excuse(edge);
        self.edge_restarts(edge)
    }
}
