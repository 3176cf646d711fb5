#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "base/buf.h"

// What the process counts, printed in Prometheus' text format. A metric is registered once, at
// start, and lives as long as the process; changing it is one relaxed atomic operation: no lock, no
// allocation, any thread. Labels are given at registration as `name="value",name="value"` (or
// NULL); registering the same name and labels again returns the same metric.
//
// Names: vectron_<what>_<unit>, counters end in _total.

struct metric;

struct metric *metric_counter(const char *name, const char *labels, const char *help);
struct metric *metric_gauge(const char *name, const char *labels, const char *help);
// Buckets double from 10 microseconds to 84 seconds; observe seconds.
struct metric *metric_histogram(const char *name, const char *labels, const char *help);

void metric_add(struct metric *metric, uint64_t delta);     // counter
void metric_set(struct metric *metric, int64_t value);      // gauge
void metric_move(struct metric *metric, int64_t delta);     // gauge
void metric_observe(struct metric *metric, double seconds); // histogram

uint64_t metric_count(const struct metric *metric); // counter's value, histogram's observations
int64_t metric_value(const struct metric *metric);  // gauge's value
double metric_sum(const struct metric *metric);     // histogram's sum in seconds
double metric_quantile(const struct metric *metric, double q); // histogram, 0 to 1; by bucket

// All metrics, sorted by name, with the process' own (resident memory, CPU seconds, open files).
void metrics_print(struct buf *out);
