#include <inttypes.h>

#include "base/clock.h"
#include "placementdriver/driver.h"
#include "placementdriver/names.h"

// Rerankers: they hold no data, so what is known of them lives in memory and they register again
// after a restart.

enum { METADATA_MAX = 8 };

static enum status check_registration(const PD(RegisterRerankerRequest) * request,
                                      struct arena *arena, struct error *error,
                                      struct str *out_capabilities)
{
    TRY(check_reachable_address(str_from_cstr(request->grpc_address), "grpc_address", error));
    TRY(check_short_text(str_from_cstr(request->rack), "rack", error));
    TRY(check_short_text(str_from_cstr(request->zone), "zone", error));
    TRY(check_short_text(str_from_cstr(request->region), "region", error));
    return check_capabilities(request->capabilities, request->n_capabilities, arena, error,
                              out_capabilities);
}

void reranker_register(struct rpc *rpc, void *context)
{
    struct driver *driver = context;
    const PD(RegisterRerankerRequest) *request = (const void *)rpc_request(rpc);
    PD(RegisterRerankerResponse) response = PD_INIT(REGISTER_RERANKER_RESPONSE);
    struct str capabilities = {0};
    struct error error;
    enum status status = check_registration(request, rpc_arena(rpc), &error, &capabilities);
    if (status != STATUS_OK) {
        rpc_fail_error(rpc, status, &error);
        return;
    }
    pthread_mutex_lock(&driver->lock);
    uint64_t id = presence_register_reranker(&driver->presence, request, capabilities,
                                             clock_monotonic_ns(), clock_unix_seconds());
    pthread_mutex_unlock(&driver->lock);
    if (id == 0) {
        rpc_fail(rpc, STATUS_EXHAUSTED, "there are %d rerankers already, the limit is %d",
                 PRESENCE_RERANKER_COUNT_MAX, PRESENCE_RERANKER_COUNT_MAX);
        return;
    }
    response.reranker_id = id_to_text(rpc_arena(rpc), id);
    response.success = true;
    rpc_reply(rpc, &response.base);
}

void reranker_heartbeat(struct rpc *rpc, void *context)
{
    struct driver *driver = context;
    const PD(RerankerHeartbeatRequest) *request = (const void *)rpc_request(rpc);
    PD(RerankerHeartbeatResponse) response = PD_INIT(RERANKER_HEARTBEAT_RESPONSE);
    pthread_mutex_lock(&driver->lock);
    response.ok = presence_reranker_heartbeat(&driver->presence, id_from_text(request->reranker_id),
                                              request, clock_monotonic_ns(), clock_unix_seconds());
    pthread_mutex_unlock(&driver->lock);
    if (!response.ok)
        response.message = arena_cstr(
            rpc_arena(rpc),
            arena_format(rpc_arena(rpc), "reranker \"%.32s\" is not known: register again",
                         request->reranker_id));
    rpc_reply(rpc, &response.base);
}

// --- The list

static void add_metadata(struct arena *arena, PD(RerankerInfo) * info, const char *key,
                         struct str value)
{
    if (value.len == 0)
        return;
    PD(RerankerInfo__MetadataEntry) *entry = arena_alloc(arena, sizeof(*entry));
    vectron__placementdriver__v1__reranker_info__metadata_entry__init(entry);
    entry->key = arena_cstr(arena, str_from_cstr(key));
    entry->value = arena_cstr(arena, value);
    info->metadata[info->n_metadata++] = entry;
}

static void fill_reranker(const struct reranker *reranker, uint64_t now_ns, struct arena *arena,
                          PD(RerankerInfo) * out)
{
    vectron__placementdriver__v1__reranker_info__init(out);
    out->reranker_id = id_to_text(arena, reranker->id);
    out->grpc_address = arena_cstr(arena, reranker->address);
    out->last_heartbeat = reranker->heard_at;
    out->healthy = reranker_is_healthy(reranker, now_ns);
    out->metadata = arena_alloc(arena, METADATA_MAX * sizeof(*out->metadata));
    add_metadata(arena, out, "rack", reranker->rack);
    add_metadata(arena, out, "zone", reranker->zone);
    add_metadata(arena, out, "region", reranker->region);
    add_metadata(arena, out, "capabilities", reranker->capabilities);
    add_metadata(arena, out, "cpu_cores", arena_format(arena, "%" PRIu64, reranker->cpu_cores));
    add_metadata(arena, out, "memory_bytes",
                 arena_format(arena, "%" PRIu64, reranker->memory_bytes));
}

void reranker_list(struct rpc *rpc, void *context)
{
    struct driver *driver = context;
    struct arena *arena = rpc_arena(rpc);
    PD(ListRerankersResponse) response = PD_INIT(LIST_RERANKERS_RESPONSE);
    uint64_t now_ns = clock_monotonic_ns();
    pthread_mutex_lock(&driver->lock);
    uint32_t count = driver->presence.reranker_count;
    PD(RerankerInfo) *infos = arena_alloc(arena, (count + 1) * sizeof(*infos));
    response.rerankers = arena_alloc(arena, (count + 1) * sizeof(*response.rerankers));
    for (uint32_t i = 0; i < count; i++) {
        fill_reranker(&driver->presence.rerankers[i], now_ns, arena, &infos[i]);
        response.rerankers[response.n_rerankers++] = &infos[i];
    }
    pthread_mutex_unlock(&driver->lock);
    rpc_reply(rpc, &response.base);
}

// One that is healthy: the one with the least to do, as it last said.
void reranker_get(struct rpc *rpc, void *context)
{
    struct driver *driver = context;
    PD(GetRerankerResponse) response = PD_INIT(GET_RERANKER_RESPONSE);
    const struct reranker *best = NULL;
    uint64_t now_ns = clock_monotonic_ns();
    pthread_mutex_lock(&driver->lock);
    for (uint32_t i = 0; i < driver->presence.reranker_count; i++) {
        const struct reranker *reranker = &driver->presence.rerankers[i];
        bool is_better =
            best == NULL || reranker->load.queries_per_second < best->load.queries_per_second;
        if (reranker_is_healthy(reranker, now_ns) && is_better)
            best = reranker;
    }
    if (best != NULL) {
        response.reranker_id = id_to_text(rpc_arena(rpc), best->id);
        response.grpc_address = arena_cstr(rpc_arena(rpc), best->address);
    }
    pthread_mutex_unlock(&driver->lock);
    if (best == NULL)
        rpc_fail(rpc, STATUS_UNAVAILABLE, "no reranker is there");
    else
        rpc_reply(rpc, &response.base);
}
