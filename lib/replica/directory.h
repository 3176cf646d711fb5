#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"

// The files of a replica's directory. All names are relative to the open directory. Errors name the
// file. One thread.

// Make it with its parents, open it, and take its lock file. PRECONDITION: another process has it.
enum status directory_open(const char *path, struct error *error, int *out_fd, int *out_lock_fd);

// Append the whole file. NOT_FOUND. EXHAUSTED: over the buffer's maximum.
enum status directory_read_file(int directory_fd, const char *name, struct error *error,
                                struct buf *out);
// The file with this content, on disk with its name when it returns; or, when it fails, whatever
// was there before. Written beside it first.
enum status directory_write_file(int directory_fd, const char *name, struct span head,
                                 struct span body, struct error *error);
enum status directory_remove_file(int directory_fd, const char *name, struct error *error);
enum status directory_sync(int directory_fd, struct error *error);

// The numbers of all files called <prefix><16 hex digits>, ascending. The caller frees them with
// mem_free. Left-overs of directory_write_file are removed.
enum status directory_list_numbers(int directory_fd, const char *prefix, struct error *error,
                                   uint64_t **out_numbers, size_t *out_count);
