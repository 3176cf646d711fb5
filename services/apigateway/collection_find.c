#include "apigateway/collection_find.h"

#include <string.h>

#include "apigateway/authenticate.h"
#include "apigateway/rate_limit.h"
#include "base/clock.h"
#include "base/limits.h"

// Hot path: a collection that is in the map is found without lock or allocation but the request's
// own.

enum { NAME_SHOWN_MAX = 128, REFRESH_SECONDS_MAX = 5 };

struct search_for_name {
    struct rpc *rpc;
    struct gateway *gateway;
    struct str name;
    void (*found)(struct rpc *rpc, struct cluster_map *map,
                  const struct cluster_collection *collection, void *context);
    void *context;
};

enum status collection_name_check(struct str name, const char *field, struct error *error)
{
    if (name.len == 0 || name.len > LIMIT_COLLECTION_NAME_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "%s has %zu bytes; it must have 1 to %d", field,
                         name.len, LIMIT_COLLECTION_NAME_SIZE_MAX);
    for (size_t i = 0; i < name.len; i++) {
        char c = name.data[i];
        bool is_fine = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '.' || c == '-';
        if (!is_fine)
            return error_set(error, STATUS_INVALID,
                             "%s \"%.*s\" holds a character other than A-Z a-z 0-9 _ . -", field,
                             STR_ARG(name));
    }
    return STATUS_OK;
}

struct str collection_full_name(struct arena *arena, struct str user_id, struct str name)
{
    char *text = arena_alloc(arena, user_id.len + 1 + name.len);
    memcpy(text, user_id.data, user_id.len);
    text[user_id.len] = '/';
    if (name.len > 0)
        memcpy(text + user_id.len + 1, name.data, name.len);
    return (struct str){text, user_id.len + 1 + name.len};
}

// The first collection of the map whose name is not before this one.
static uint32_t lower_bound(const struct cluster_map *map, struct str name)
{
    uint32_t low = 0;
    uint32_t high = map->collection_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (str_compare(map->collections[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct cluster_collection *collections_of(const struct cluster_map *map, struct str user_id,
                                                struct arena *arena, uint32_t *out_count)
{
    struct str prefix = collection_full_name(arena, user_id, STR(""));
    uint32_t first = lower_bound(map, prefix);
    char *behind = arena_cstr(arena, prefix);
    behind[prefix.len - 1] = '/' + 1;
    uint32_t end = lower_bound(map, (struct str){behind, prefix.len});
    *out_count = end - first;
    return map->collections + first;
}

struct str collection_bare_name(const struct cluster_collection *collection)
{
    struct str rest = collection->name;
    struct str first = str_cut(&rest, '/');
    return first.len == collection->name.len ? collection->name : rest;
}

void collection_fail_missing(struct rpc *rpc, struct str name)
{
    if (name.len > NAME_SHOWN_MAX || !str_is_utf8(name))
        rpc_fail(rpc, STATUS_NOT_FOUND, "collection not found");
    else
        rpc_fail(rpc, STATUS_NOT_FOUND, "collection \"%.*s\" not found", STR_ARG(name));
}

static const struct cluster_collection *look_up(struct rpc *rpc, const struct cluster_map *map,
                                                struct str name)
{
    const struct caller *caller = authenticated_caller(rpc);
    struct str full = collection_full_name(rpc_arena(rpc), caller->user_id, name);
    const struct cluster_collection *collection = cluster_map_find(map, full);
    if (collection == NULL && caller->is_admin)
        collection = cluster_map_find(map, name);
    return collection;
}

static void refreshed(enum status status, struct cluster_map *map, void *context)
{
    struct search_for_name *search = context;
    struct rpc *rpc = search->rpc;
    if (!rpc_is_done(rpc)) {
        const struct cluster_collection *collection =
            map != NULL ? look_up(rpc, map, search->name) : NULL;
        if (collection != NULL)
            search->found(rpc, map, collection, search->context);
        else if (map != NULL)
            collection_fail_missing(rpc, search->name);
        else
            rpc_fail(rpc, status == STATUS_TIMEOUT ? STATUS_TIMEOUT : STATUS_UNAVAILABLE,
                     "the placement driver does not answer: try again");
    }
    rpc_unref(rpc);
}

static void refresh(const struct search_for_name *search)
{
    struct search_for_name *kept = arena_alloc(rpc_arena(search->rpc), sizeof(*kept));
    *kept = *search;
    uint64_t latest = clock_monotonic_ns() + REFRESH_SECONDS_MAX * NS_PER_SECOND;
    uint64_t deadline = gateway_deadline_ns(search->rpc, REFRESH_SECONDS_MAX);
    rpc_ref(search->rpc);
    cluster_client_refresh(search->gateway->cluster, deadline < latest ? deadline : latest,
                           refreshed, kept);
}

void collection_find(struct rpc *rpc, struct gateway *gateway, struct str name, const char *field,
                     void (*found)(struct rpc *rpc, struct cluster_map *map,
                                   const struct cluster_collection *collection, void *context),
                     void *context)
{
    const struct caller *caller = authenticated_caller(rpc);
    uint64_t wait_ns;
    if (name.len == 0) {
        rpc_fail(rpc, STATUS_INVALID, "%s is empty; it must name a collection", field);
        return;
    }
    if (!caller_may_touch(caller, name)) {
        collection_fail_missing(rpc, name);
        return;
    }
    struct cluster_map *map = cluster_client_map(gateway->cluster);
    const struct cluster_collection *collection = map != NULL ? look_up(rpc, map, name) : NULL;
    if (collection != NULL)
        found(rpc, map, collection, context);
    // Another gateway may have made it a moment ago. Who asks for names that are not there again
    // and again is answered from the map that there is.
    else if (map == NULL ||
             rate_limit_take(gateway->misses, caller->user_id, clock_monotonic_ns(), &wait_ns))
        refresh(&(struct search_for_name){rpc, gateway, name, found, context});
    else
        collection_fail_missing(rpc, name);
    cluster_map_unref(map);
}
