#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "index/index.h"

// How much effort searches take that do not say: the least that finds .98 of the ten nearest of
// sample queries, which is to say at least .97 of others'. Measured against the exact search, on
// the data itself, by the writer when nothing else is to be done: when the graph is there, when the
// points have doubled or halved, and once there are enough recent queries. Those are the sample;
// before there are any it is stored points, which the search passes over as if they were not there;
// the graph was built around them, so they are found a little more easily than others.
//
// Two things are chosen: when a search stops, and how many of its candidates are compared at full
// precision, which makes up for codes that are too coarse for the data.

enum { TUNE_LEVELS = 10, TUNE_RESCORED = 6, TUNE_QUERIES_MAX = 64 };

struct tune_effort {
    float stop;
    uint32_t width;
    uint32_t rescored; // for ten hits
};

struct tuner {
    uint32_t capacity;         // of queries
    _Atomic uint32_t offered;  // so far
    atomic_bool is_taken;      // whoever touches the queries
    float *queries;            // recent ones
    _Atomic uint32_t level;    // chosen
    _Atomic uint32_t rescored; // chosen
    atomic_bool is_running;
    _Atomic uint32_t tuned_offered; // queries when they were the sample; 0: never
    _Atomic uint64_t tuned_points;  // that there were then; 0: never
    // The writer's: what is being measured.
    bool is_recent;
    uint32_t next;
    uint32_t count;
    uint32_t wanted;
    uint32_t hits[TUNE_LEVELS][TUNE_RESCORED];
    uint64_t compared[TUNE_LEVELS];
    _Atomic uint32_t recall; // measured, of 10,000
};

struct tuner *tuner_create(uint32_t dimension);
void tuner_destroy(struct tuner *tuner); // tuner may be NULL

// Any thread, never waits: keep the query if nobody else is at it.
bool tuner_is_short(const struct tuner *tuner); // of queries
void tuner_offer(struct tuner *tuner, const float *vector, uint32_t dimension);
// Any thread.
struct tune_effort tuner_effort(const struct tuner *tuner);

// What was chosen, as a number to keep, and from it again; a number that says nothing changes
// nothing. The writer.
uint64_t tuner_save(const struct tuner *tuner);
void tuner_restore(struct tuner *tuner, uint64_t saved);

// Any thread: whether something is to be measured.
bool tuner_wants(const struct tuner *tuner, uint64_t point_count);
// The writer: measure one query. True: there are more.
bool tuner_step(struct tuner *tuner, struct index *index);
