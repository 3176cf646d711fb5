#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"

// The bytes of a log file and of a snapshot file, all little-endian. Pure; any thread.
//
// Log file: a header, then records without gaps.
//
//     header   0 magic "VECTRLOG"  8 version u32  12 crc u32 of 16..32  16 first index u64
//             24 salt u64, random
//     record   0 magic u32   4 crc u32 of 8.. with the salt  8 length u32  12 zero u32
//             16 index u64  24 synced u64  32 the command, length bytes
//
// `synced` says how many bytes of the file were on disk for certain when the record was written.
// That tells a torn tail from damage: bytes that make no record are a tail which was being written
// when the machine stopped, and nobody got an answer for it, unless a later record says that they
// had been synced. The salt keeps a command whose bytes look like a record from being taken for
// one.

enum {
    LOG_HEADER_SIZE = 32,
    LOG_RECORD_HEADER_SIZE = 32,
    LOG_VERSION = 1,
    SNAPSHOT_HEADER_SIZE = 40,
};

struct log_header {
    uint64_t first_index;
    uint64_t salt;
};

void log_header_encode(const struct log_header *header, uint8_t out[static LOG_HEADER_SIZE]);
// CORRUPT: no header, or of another version.
enum status log_header_decode(struct span bytes, struct error *error,
                              struct log_header *out_header);

void log_record_encode(const struct log_header *header, uint64_t index, uint64_t synced,
                       struct span command, struct buf *out);

enum log_read {
    LOG_READ_RECORD,
    LOG_READ_END,     // the file ends with a whole record
    LOG_READ_TORN,    // the rest was never acknowledged and may be cut
    LOG_READ_CORRUPT, // acknowledged bytes are damaged
};

struct log_reader {
    struct log_header header;
    struct span bytes; // the whole file; borrowed
    size_t offset;     // where the next record is expected
    uint64_t next_index;
};

enum status log_reader_init(struct log_reader *reader, struct span bytes, struct error *error);
// out_command is borrowed from the file's bytes.
enum log_read log_reader_next(struct log_reader *reader, struct span *out_command);

// Snapshot file: a header, then the machine's state.
//
//     0 magic "VECTSNAP"  8 version u32  12 crc u32 of 16..  16 index u64  24 length u64  32 zero
void snapshot_header_encode(uint64_t index, struct span state,
                            uint8_t out[static SNAPSHOT_HEADER_SIZE]);
// CORRUPT. out_state is borrowed from bytes.
enum status snapshot_decode(struct span bytes, struct error *error, uint64_t *out_index,
                            struct span *out_state);
