#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

// Numbers as JSON writes them. Any thread.

// The number at the text's beginning as JSON's grammar has it: how many bytes it has; 0: none.
size_t json_number_size(struct str text);
// The whole text must be a number. False: it is none, or it does not fit. Rounded correctly.
bool json_number_to_float(struct str text, float *out_value);
bool json_number_to_double(struct str text, double *out_value);
// Whole numbers, also as 1.0 and 1e3.
bool json_number_to_i64(struct str text, int64_t *out_value);
bool json_number_to_u64(struct str text, uint64_t *out_value);
bool json_number_is_integer(struct str text); // digits only, with or without a sign
