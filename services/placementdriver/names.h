#pragma once

#include "base/error.h"
#include "base/str.h"

// The texts that callers choose, checked. All: INVALID, the error names field, value and limit.

// 1 to 128 of A-Z a-z 0-9 _ . - and, as the gateway writes it, `<user id>/` of the same letters in
// front.
enum status check_collection_name(struct str name, struct error *error);
// HOST:PORT where others reach the caller.
enum status check_reachable_address(struct str address, const char *field, struct error *error);
// At most 128 bytes.
enum status check_short_text(struct str text, const char *field, struct error *error);
