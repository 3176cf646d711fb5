#include "base/metrics.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/metrics_internal.h"

enum { BUCKET_COUNT = 24 }; // 10 microseconds * 2^23 = 83.9 seconds

#define BUCKET_FIRST_NS 10000U

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

static const char *const kind_names[] = {"counter", "gauge", "histogram"};

struct metric {
    struct metric *next;
    char *name;
    char *labels; // empty: none
    char *help;
    enum metric_kind kind;
    _Atomic uint64_t value; // counter; gauge as int64_t; histogram's sum in nanoseconds
    // Histogram only: observations by bucket, each counted once; the last has no upper bound.
    _Atomic uint64_t buckets[BUCKET_COUNT + 1];
};

// The lock guards the list, not what is counted. Metrics are never freed.
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct metric *registry;
static size_t registry_count;

static char *copy_cstr(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(mem_alloc(size), text, size);
}

static struct metric *find(const char *name, const char *labels)
{
    for (struct metric *metric = registry; metric != NULL; metric = metric->next) {
        if (strcmp(metric->name, name) == 0 && strcmp(metric->labels, labels) == 0)
            return metric;
    }
    return NULL;
}

static struct metric *register_metric(const char *name, const char *labels, const char *help,
                                      enum metric_kind kind)
{
    labels = labels == NULL ? "" : labels;
    ASSERT(pthread_mutex_lock(&registry_lock) == 0);
    struct metric *metric = find(name, labels);
    if (metric == NULL) {
        metric = mem_alloc(sizeof(*metric));
        metric->name = copy_cstr(name);
        metric->labels = copy_cstr(labels);
        metric->help = copy_cstr(help);
        metric->kind = kind;
        metric->next = registry;
        registry = metric;
        registry_count++;
    }
    ASSERT(pthread_mutex_unlock(&registry_lock) == 0);
    ASSERT(metric->kind == kind);
    return metric;
}

struct metric *metric_counter(const char *name, const char *labels, const char *help)
{
    return register_metric(name, labels, help, METRIC_COUNTER);
}

struct metric *metric_gauge(const char *name, const char *labels, const char *help)
{
    return register_metric(name, labels, help, METRIC_GAUGE);
}

struct metric *metric_histogram(const char *name, const char *labels, const char *help)
{
    return register_metric(name, labels, help, METRIC_HISTOGRAM);
}

static uint64_t load(const _Atomic uint64_t *number)
{
    return atomic_load_explicit(number, memory_order_relaxed);
}

void metric_add(struct metric *metric, uint64_t delta)
{
    ASSERT(metric->kind == METRIC_COUNTER);
    atomic_fetch_add_explicit(&metric->value, delta, memory_order_relaxed);
}

void metric_set(struct metric *metric, int64_t value)
{
    ASSERT(metric->kind == METRIC_GAUGE);
    atomic_store_explicit(&metric->value, (uint64_t)value, memory_order_relaxed);
}

void metric_move(struct metric *metric, int64_t delta)
{
    ASSERT(metric->kind == METRIC_GAUGE);
    atomic_fetch_add_explicit(&metric->value, (uint64_t)delta, memory_order_relaxed);
}

// The first bucket whose bound is not under ns.
static unsigned bucket_of(uint64_t ns)
{
    uint64_t steps = ns / BUCKET_FIRST_NS + (ns % BUCKET_FIRST_NS != 0 ? 1 : 0);
    if (steps <= 1)
        return 0;
    unsigned bucket = 64 - (unsigned)__builtin_clzll(steps - 1);
    return bucket < BUCKET_COUNT ? bucket : BUCKET_COUNT;
}

static double bucket_bound(unsigned bucket)
{
    return (double)((uint64_t)BUCKET_FIRST_NS << bucket) / 1e9;
}

void metric_observe(struct metric *metric, double seconds)
{
    ASSERT(metric->kind == METRIC_HISTOGRAM);
    uint64_t ns = 0;
    if (seconds > 0) // false for what is no number
        ns = seconds < 1e9 ? (uint64_t)(seconds * 1e9 + 0.5) : (uint64_t)1e18;
    atomic_fetch_add_explicit(&metric->value, ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&metric->buckets[bucket_of(ns)], 1, memory_order_relaxed);
}

uint64_t metric_count(const struct metric *metric)
{
    if (metric->kind != METRIC_HISTOGRAM)
        return load(&metric->value);
    uint64_t count = 0;
    for (unsigned i = 0; i <= BUCKET_COUNT; i++)
        count += load(&metric->buckets[i]);
    return count;
}

int64_t metric_value(const struct metric *metric)
{
    ASSERT(metric->kind == METRIC_GAUGE);
    return (int64_t)load(&metric->value);
}

double metric_sum(const struct metric *metric)
{
    ASSERT(metric->kind == METRIC_HISTOGRAM);
    return (double)load(&metric->value) / 1e9;
}

double metric_quantile(const struct metric *metric, double q)
{
    ASSERT(metric->kind == METRIC_HISTOGRAM);
    double rank = q * (double)metric_count(metric);
    double below = 0;
    for (unsigned i = 0; i < BUCKET_COUNT; i++) {
        double here = (double)load(&metric->buckets[i]);
        if (here > 0 && below + here >= rank) {
            double low = i == 0 ? 0 : bucket_bound(i - 1);
            double part = rank > below ? (rank - below) / here : 0;
            return low + part * (bucket_bound(i) - low);
        }
        below += here;
    }
    return metric_count(metric) == 0 ? 0 : bucket_bound(BUCKET_COUNT - 1);
}

static void print_name(struct buf *out, const char *name, const char *suffix, const char *labels)
{
    buf_append_cstr(out, name);
    buf_append_cstr(out, suffix);
    if (labels[0] != '\0')
        buf_append_format(out, "{%s}", labels);
    buf_append_byte(out, ' ');
}

static void print_histogram(struct buf *out, const struct metric *metric)
{
    const char *comma = metric->labels[0] == '\0' ? "" : ",";
    uint64_t count = 0;
    for (unsigned i = 0; i <= BUCKET_COUNT; i++) {
        count += load(&metric->buckets[i]);
        buf_append_format(out, "%s_bucket{%s%sle=\"", metric->name, metric->labels, comma);
        if (i < BUCKET_COUNT)
            buf_append_format(out, "%.9g", bucket_bound(i));
        else
            buf_append_cstr(out, "+Inf");
        buf_append_format(out, "\"} %llu\n", (unsigned long long)count);
    }
    print_name(out, metric->name, "_sum", metric->labels);
    buf_append_format(out, "%.9f\n", metric_sum(metric));
    print_name(out, metric->name, "_count", metric->labels);
    // Not metric_count: that may be more by now than the buckets above say.
    buf_append_format(out, "%llu\n", (unsigned long long)count);
}

static void print_head(struct buf *out, const char *name, const char *help, const char *kind)
{
    buf_append_format(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

static void print_metric(struct buf *out, const struct metric *metric)
{
    if (metric->kind == METRIC_HISTOGRAM) {
        print_histogram(out, metric);
        return;
    }
    print_name(out, metric->name, "", metric->labels);
    if (metric->kind == METRIC_GAUGE)
        buf_append_format(out, "%lld\n", (long long)load(&metric->value));
    else
        buf_append_format(out, "%llu\n", (unsigned long long)load(&metric->value));
}

static int compare_metrics(const void *a, const void *b)
{
    const struct metric *const *first = a;
    const struct metric *const *second = b;
    int order = strcmp((*first)->name, (*second)->name);
    return order != 0 ? order : strcmp((*first)->labels, (*second)->labels);
}

static void print_process(struct buf *out)
{
    struct metrics_process process;
    metrics_process_read(&process);
    const struct {
        const char *name;
        const char *help;
        const char *kind;
        double value;
    } rows[] = {
        {"process_cpu_seconds_total", "Processor time used.", "counter", process.cpu_seconds},
        {"process_max_fds", "Files that may be open.", "gauge", process.max_fds},
        {"process_open_fds", "Files that are open.", "gauge", process.open_fds},
        {"process_resident_memory_bytes", "Memory in use.", "gauge", process.resident_bytes},
        {"process_start_time_seconds", "When the process started, Unix time.", "gauge",
         process.start_time_seconds},
        {"process_threads", "Threads.", "gauge", process.threads},
        {"process_virtual_memory_bytes", "Address space in use.", "gauge", process.virtual_bytes},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        print_head(out, rows[i].name, rows[i].help, rows[i].kind);
        buf_append_format(out, "%s %.15g\n", rows[i].name, rows[i].value);
    }
}

void metrics_print(struct buf *out)
{
    // Those who register wait for the copy of the list only, not for the printing.
    ASSERT(pthread_mutex_lock(&registry_lock) == 0);
    size_t count = 0;
    const struct metric **sorted = mem_alloc((registry_count + 1) * sizeof(const struct metric *));
    for (const struct metric *metric = registry; metric != NULL; metric = metric->next)
        sorted[count++] = metric;
    ASSERT(pthread_mutex_unlock(&registry_lock) == 0);
    qsort(sorted, count, sizeof(sorted[0]), compare_metrics);

    bool has_printed_process = false;
    for (size_t i = 0; i < count; i++) {
        const struct metric *metric = sorted[i];
        if (!has_printed_process && strcmp(metric->name, "process_") > 0) {
            print_process(out);
            has_printed_process = true;
        }
        if (i == 0 || strcmp(sorted[i - 1]->name, metric->name) != 0)
            print_head(out, metric->name, metric->help, kind_names[metric->kind]);
        print_metric(out, metric);
    }
    if (!has_printed_process)
        print_process(out);
    mem_free((void *)sorted);
}
