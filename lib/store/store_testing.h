#pragma once

// For tests that open a store, included once in each. RocksDB was not built for the thread
// sanitizer, which would report what it does inside; what our own code does is still seen.

// The sanitizer decides on the name.
// NOLINTBEGIN(*-reserved-identifier,cert-dcl37-c,readability-identifier-naming)
// NOLINTBEGIN(misc-definitions-in-headers)
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
__attribute__((visibility("default"))) const char *__tsan_default_options(void)
{
    return "ignore_noninstrumented_modules=1";
}
// NOLINTEND(misc-definitions-in-headers)
// NOLINTEND(*-reserved-identifier,cert-dcl37-c,readability-identifier-naming)
