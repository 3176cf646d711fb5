#pragma once

#include "base/status.h"
#include "index/beam.h"

// The beam for each instruction set. Under the thread sanitizer only the portable one is used: it
// loads links one by one, as atomics, which is what the sanitizer understands.

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BEAM_IS_WATCHED
#endif
#elif defined(__SANITIZE_THREAD__)
#define BEAM_IS_WATCHED
#endif

#if defined(__x86_64__) && !defined(BEAM_IS_WATCHED)
#define BEAM_HAS_AVX512
#endif

void beam_run_portable(struct beam *beam, const struct beam_search *search);
void beam_run_avx512(struct beam *beam, const struct beam_search *search);
