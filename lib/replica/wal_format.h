#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"

// The bytes of a log segment, all little-endian. Pure; any thread.
//
//     header   0 magic "VECTRWAL"  8 version u32  12 crc u32 of 16..32  16 number u64
//             24 salt u64, random, its low half not 0
//     record   0 tag u32: the salt's low half   4 crc u32 of the salt and 8..  8 length u32
//             12 kind u8  13 entry's kind u8  14 zero u16  16 group u64  24 index u64
//             32 term u64  40 synced u32  44 zero u32  48 length bytes
//     snapshot's bytes   0 configuration's index u64  8 first index u64  16 last index u64
//             24 configuration
//
// `synced` says how many bytes of the segment were on disk for certain when the record was made.
// That tells a torn tail from damage: bytes that make no record are a tail which was being written
// when the machine stopped, and nobody was told that they are safe, unless a later record says that
// they had been synced. A segment is filled and synced before the next one gets its first byte, and
// ends with a record that says so. The salt keeps data that look like a record, and records that a
// file held when it was another segment, from being taken for one.

enum {
    WAL_HEADER_SIZE = 32,
    WAL_RECORD_SIZE = 48, // without its bytes
    WAL_SNAPSHOT_SIZE = 24,
    WAL_VERSION = 1,
};

struct wal_header {
    uint64_t number;
    uint64_t salt;
};

enum wal_kind {
    WAL_ENTRY = 1,    // ends what the group has at its index; bytes: the data
    WAL_COPY = 2,     // an entry from an older segment, which may go; ends nothing
    WAL_VOTE = 3,     // index: whom
    WAL_SNAPSHOT = 4, // what the group has from then on; the first one makes the group
    WAL_REMOVE = 5,
    WAL_END = 6, // the segment's last
};

struct wal_record {
    enum wal_kind kind;
    uint8_t entry_kind;
    uint64_t group_id;
    uint64_t index;
    uint64_t term;
    uint32_t synced;
    struct span data;
};

struct wal_snapshot {
    uint64_t configuration_index;
    uint64_t first_index; // of the entries that the group then holds
    uint64_t last_index;
    struct span configuration;
};

void wal_header_encode(const struct wal_header *header, uint8_t out[static WAL_HEADER_SIZE]);
// CORRUPT: no header, or of another version.
enum status wal_header_decode(struct span bytes, struct error *error,
                              struct wal_header *out_header);

// The record's bytes are those of snapshot, if there is one, otherwise record->data.
void wal_record_encode(const struct wal_header *header, const struct wal_record *record,
                       const struct wal_snapshot *snapshot, struct buf *out);
// False: there is no whole record with a right checksum at the offset. Borrowed from bytes.
bool wal_record_decode(const struct wal_header *header, struct span bytes, size_t offset,
                       struct wal_record *out_record);
// False: the record's bytes are none.
bool wal_snapshot_decode(const struct wal_record *record, struct wal_snapshot *out_snapshot);

enum wal_read {
    WAL_READ_RECORD,
    WAL_READ_CLEAN,   // nothing of this segment comes after the last record
    WAL_READ_TORN,    // the rest was never acknowledged; it must be wiped before more is written
    WAL_READ_CORRUPT, // synced bytes are damaged
};

struct wal_reader {
    struct wal_header header;
    struct span bytes; // the whole segment; borrowed
    size_t offset;     // where the next record is expected
};

enum status wal_reader_init(struct wal_reader *reader, struct span bytes, struct error *error);
enum wal_read wal_reader_next(struct wal_reader *reader, struct wal_record *out_record);
// Whether any record that says it was made after so many synced bytes lies at or behind the offset.
bool wal_reader_find(const struct wal_reader *reader, size_t synced_min);
