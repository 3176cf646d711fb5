#include "apigateway/stats.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "api/json.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/metrics.h"

// Hot path: a few relaxed atomic additions per request. An endpoint is a method or the pattern of a
// page, so there are a few dozen; its entry is made with its first request and stays.

enum { SLOT_COUNT = 256, ENDPOINTS_MAX = 128, WINDOW_SECONDS = 60, SECOND_SLOTS = 64 };

struct endpoint {
    char *path;
    size_t path_len;
    _Atomic uint64_t requests;
    _Atomic uint64_t errors;
    _Atomic uint64_t elapsed_ns;
};

struct stats {
    struct metric *latency;
    _Atomic(struct endpoint *) slots[SLOT_COUNT];
    atomic_uint endpoint_count;
    _Atomic uint64_t requests;
    _Atomic uint64_t errors;
    _Atomic uint64_t refused;
    _Atomic uint64_t seconds[SECOND_SLOTS]; // second << 32 | requests in it
    _Atomic uint64_t sampled_bytes;
    _Atomic uint64_t sampled_ns;
    _Atomic uint64_t bytes_per_second;
};

static void add(_Atomic uint64_t *counter, uint64_t delta)
{
    (void)atomic_fetch_add_explicit(counter, delta, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

struct stats *stats_create(void)
{
    struct stats *stats = mem_alloc(sizeof(*stats));
    stats->latency = metric_histogram("vectron_gateway_request_seconds", NULL,
                                      "Requests of the gateway, from headers to answer.");
    atomic_store(&stats->sampled_ns, clock_monotonic_ns());
    return stats;
}

static void endpoint_destroy(struct endpoint *endpoint)
{
    if (endpoint != NULL)
        mem_free(endpoint->path);
    mem_free(endpoint);
}

void stats_destroy(struct stats *stats)
{
    for (uint32_t i = 0; stats != NULL && i < SLOT_COUNT; i++)
        endpoint_destroy(atomic_load(&stats->slots[i]));
    mem_free(stats);
}

// --- Counting

static struct endpoint *endpoint_create(struct str path)
{
    struct endpoint *endpoint = mem_alloc(sizeof(*endpoint));
    endpoint->path = mem_alloc(path.len + 1);
    endpoint->path_len = path.len;
    memcpy(endpoint->path, path.data, path.len);
    return endpoint;
}

static bool is_of(const struct endpoint *endpoint, struct str path)
{
    return endpoint->path_len == path.len && memcmp(endpoint->path, path.data, path.len) == 0;
}

// NULL: there are too many.
static struct endpoint *find_endpoint(struct stats *stats, struct str path)
{
    uint64_t slot = hash64(str_span(path), 0) % SLOT_COUNT;
    for (;; slot = (slot + 1) % SLOT_COUNT) {
        struct endpoint *found = atomic_load_explicit(&stats->slots[slot], memory_order_acquire);
        if (found == NULL) {
            if (atomic_fetch_add(&stats->endpoint_count, 1) >= ENDPOINTS_MAX) {
                atomic_fetch_sub(&stats->endpoint_count, 1);
                return NULL;
            }
            struct endpoint *made = endpoint_create(path);
            if (atomic_compare_exchange_strong(&stats->slots[slot], &found, made))
                return made;
            atomic_fetch_sub(&stats->endpoint_count, 1);
            endpoint_destroy(made);
        }
        if (is_of(found, path))
            return found;
    }
}

static void count_second(struct stats *stats, uint64_t second)
{
    _Atomic uint64_t *slot = &stats->seconds[second % SECOND_SLOTS];
    uint64_t old = get(slot);
    uint64_t new;
    do {
        new = old >> 32 == (uint32_t)second ? old + 1 : (second << 32 | 1);
    } while (!atomic_compare_exchange_weak_explicit(slot, &old, new, memory_order_relaxed,
                                                    memory_order_relaxed));
}

void stats_finished(const struct rpc *rpc, enum status status, uint64_t elapsed_ns, void *context)
{
    struct stats *stats = ((struct gateway *)context)->stats;
    struct str path = rpc_method_path(rpc);
    bool is_error = status_http_code(status) >= 500;
    add(&stats->requests, 1);
    add(&stats->errors, is_error);
    add(&stats->refused, status == STATUS_EXHAUSTED);
    count_second(stats, clock_monotonic_ns() / NS_PER_SECOND);
    metric_observe(stats->latency, (double)elapsed_ns / (double)NS_PER_SECOND);
    struct endpoint *endpoint = path.len > 0 ? find_endpoint(stats, path) : NULL;
    if (endpoint == NULL)
        return;
    add(&endpoint->requests, 1);
    add(&endpoint->errors, is_error);
    add(&endpoint->elapsed_ns, elapsed_ns);
}

// --- Rates

static void listener_labels(const char *address, char out_labels[static 192])
{
    (void)snprintf(out_labels, 192, "listener=\"%s\"", address);
}

static uint64_t listener_bytes(const char *address)
{
    char labels[192];
    listener_labels(address, labels);
    return metric_count(
               metric_counter("vectron_net_received_bytes_total", labels, "Bytes received.")) +
           metric_count(metric_counter("vectron_net_sent_bytes_total", labels, "Bytes sent."));
}

static uint64_t listener_connections(const char *address)
{
    char labels[192];
    listener_labels(address, labels);
    int64_t count =
        metric_value(metric_gauge("vectron_net_connections", labels, "Open connections."));
    return count > 0 ? (uint64_t)count : 0;
}

void stats_sample(struct gateway *gateway)
{
    struct stats *stats = gateway->stats;
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t bytes = listener_bytes(gateway->grpc_address) + listener_bytes(gateway->http_address);
    uint64_t elapsed_ns = now_ns - get(&stats->sampled_ns);
    if (elapsed_ns == 0)
        return;
    double rate =
        (double)(bytes - get(&stats->sampled_bytes)) * (double)NS_PER_SECOND / (double)elapsed_ns;
    atomic_store(&stats->bytes_per_second, (uint64_t)rate);
    atomic_store(&stats->sampled_bytes, bytes);
    atomic_store(&stats->sampled_ns, now_ns);
}

double stats_network_bytes_per_second(const struct gateway *gateway)
{
    return (double)get(&gateway->stats->bytes_per_second);
}

double stats_cpu_percent(const Vectron__Worker__V1__ListShardsResponse *answer, int64_t now)
{
    if (answer == NULL || answer->started_at <= 0 || now <= answer->started_at)
        return 0;
    return answer->cpu_seconds * 100 / (double)(now - answer->started_at);
}

// Whole seconds only: the one that is running would count too little.
static double requests_per_second(const struct stats *stats, uint64_t uptime_seconds)
{
    uint64_t now = clock_monotonic_ns() / NS_PER_SECOND;
    uint64_t window = uptime_seconds < WINDOW_SECONDS ? uptime_seconds : WINDOW_SECONDS;
    uint64_t sum = 0;
    for (uint64_t second = now - window; second < now; second++) {
        uint64_t slot = get(&stats->seconds[second % SECOND_SLOTS]);
        if (slot >> 32 == (uint32_t)second)
            sum += (uint32_t)slot;
    }
    return window > 0 ? (double)sum / (double)window : 0;
}

// --- Showing

static void print_number(struct buf *out, const char *name, double value, const char *end)
{
    buf_append_format(out, "\"%s\":", name);
    json_append_double(out, value);
    buf_append_cstr(out, end);
}

static void print_latency(const struct metric *latency, struct buf *out)
{
    uint64_t count = metric_count(latency);
    buf_append_cstr(out, "\"latencyMs\":{");
    print_number(out, "mean", count > 0 ? metric_sum(latency) * 1000 / (double)count : 0, ",");
    print_number(out, "p50", count > 0 ? metric_quantile(latency, .5) * 1000 : 0, ",");
    print_number(out, "p95", count > 0 ? metric_quantile(latency, .95) * 1000 : 0, ",");
    print_number(out, "p99", count > 0 ? metric_quantile(latency, .99) * 1000 : 0, "},");
}

static void print_endpoint(const struct endpoint *endpoint, struct buf *out)
{
    uint64_t requests = get(&endpoint->requests);
    buf_append_cstr(out, "{\"endpoint\":");
    json_append_string(out, (struct str){endpoint->path, endpoint->path_len});
    buf_append_format(out, ",\"requests\":%llu,\"errors\":%llu,", (unsigned long long)requests,
                      (unsigned long long)get(&endpoint->errors));
    print_number(out, "latencyMs",
                 requests > 0 ? (double)get(&endpoint->elapsed_ns) / 1e6 / (double)requests : 0,
                 "}");
}

void stats_print(const struct gateway *gateway, struct buf *out)
{
    const struct stats *stats = gateway->stats;
    uint64_t uptime_seconds = (clock_monotonic_ns() - gateway->started_ns) / NS_PER_SECOND;
    uint64_t requests = get(&stats->requests);
    uint64_t connections =
        listener_connections(gateway->grpc_address) + listener_connections(gateway->http_address);
    bool is_first = true;
    buf_append_format(out, "{\"uptimeSeconds\":%llu,\"requests\":%llu,\"connections\":%llu,",
                      (unsigned long long)uptime_seconds, (unsigned long long)requests,
                      (unsigned long long)connections);
    print_number(out, "requestsPerSecond", requests_per_second(stats, uptime_seconds), ",");
    print_number(out, "errorRate",
                 requests > 0 ? (double)get(&stats->errors) / (double)requests : 0, ",");
    print_latency(stats->latency, out);
    buf_append_cstr(out, "\"rateLimits\":{");
    print_number(out, "requestsPerSecondAndUser",
                 gateway->rate_limit_rps > 0 ? gateway->rate_limit_rps : 0, ",");
    buf_append_format(out, "\"refused\":%llu},\"endpoints\":[",
                      (unsigned long long)get(&stats->refused));
    for (uint32_t i = 0; i < SLOT_COUNT; i++) {
        const struct endpoint *endpoint =
            atomic_load_explicit(&stats->slots[i], memory_order_acquire);
        if (endpoint == NULL)
            continue;
        if (!is_first)
            buf_append_byte(out, ',');
        print_endpoint(endpoint, out);
        is_first = false;
    }
    buf_append_cstr(out, "]}");
}
