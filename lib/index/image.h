#pragma once

#include "base/buf.h"
#include "base/error.h"
#include "index/index.h"

// The graph of an index as bytes, so that it need not be built again after a start. It is a help
// and never a truth: it says for each point, known by its id, the sequence it was put under and a
// checksum of its vector, which slot it had, its code and its links. Whoever loads the points asks
// it for each of them; what it does not know is linked as if it were new, and what it knows but was
// not loaded is left out, with all links to it. So an image may be older than the points, and may
// be written while they change.
//
// Little-endian:
//
//   header  magic "VGI1" u32 · version u32 · dimension u32 · distance u32 · owner u64 · slots u32 ·
//           points when the codes were learned u64 · number of floats u32 · the usual effort u64 ·
//           the quantizer's floats · CRC-32C u32
//   block   points u32 · bytes of them u32 · points · CRC-32C u32; the last has no points
//   point   slot u32 · hash of the id u64 · sequence u64 · CRC-32C of the vector u32 · code ·
//           links of each layer that has the slot, as in memory
//
// The slots of the header are those that there were when writing began.

// --- Writing: the index's writer

// False: there is no graph. owner is given back by opening, to tell whose image it is.
bool index_image_encode_header(const struct index *index, uint64_t owner, struct buf *out);
// A block of the points in up to slot_count slots from first on; none when they hold no linked
// point.
void index_image_encode_block(const struct index *index, uint32_t first, uint32_t slot_count,
                              struct buf *out);
void index_image_encode_end(struct buf *out);
uint32_t index_slot_count(const struct index *index); // of all, used or not

// --- Reading: one thread

struct index_image;

// A view of bytes, all checksums verified. CORRUPT: not what was written; the error says where.
// PRECONDITION: of another dimension, distance or owner, or most of its slots are empty.
enum status index_image_open(struct span bytes, const struct index_options *options, uint64_t owner,
                             struct error *error, struct index_image **out_image);
void index_image_close(struct index_image *image); // image may be NULL

struct index_image_info {
    uint32_t dimension;
    uint32_t distance; // as stored
    uint32_t slot_count;
    uint32_t point_count;
};
// Check an image of whatever shard, for people. CORRUPT, PRECONDITION as opening.
enum status index_image_inspect(struct span bytes, struct error *error,
                                struct index_image_info *out_info);

// Give the graph to an index that is empty: begin, put every point that is loaded by
// index_image_put (for those that it returns INDEX_SLOT_NONE for, use index_put as usual), then
// end. EXHAUSTED: no memory.
enum status index_image_begin(struct index_image *image, struct index *index);
uint32_t index_image_put(struct index_image *image, struct str id, const float *vector,
                         uint64_t sequence);
// EXHAUSTED: no memory for the graph; the points are there and will be linked anew.
enum status index_image_end(struct index_image *image);
