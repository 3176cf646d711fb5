#pragma once

#include <stdint.h>

// How much memory points may take when nobody says: four fifths of what the machine has, or of what
// the process's control group may have, if that is less. Any thread; reads files.
uint64_t memory_limit_default(void);
