#include "placementdriver/inspect.h"

#include "placementdriver/state.h"

static void print_state(const struct state *state, struct buf *out)
{
    buf_append_format(out,
                      "  state after command %llu: %u workers, %zu collections with %u shards, %zu "
                      "values with %zu bytes\n",
                      (unsigned long long)state->index, state->worker_count,
                      state->collections.count, state->shard_count, state->entries.count,
                      state->entries_size);
    for (uint32_t i = 0; i < state->worker_count; i++) {
        const struct worker *worker = state->workers[i];
        buf_append_format(out, "  worker %llu at %.*s, %u replicas%s\n",
                          (unsigned long long)worker->id, STR_ARG(worker->profile.grpc_address),
                          worker->shard_count,
                          worker->state == WORKER_DRAINING ? ", draining" : "");
    }
    struct table_cursor cursor = table_seek(&state->collections, STR(""));
    const struct collection *collection;
    while ((collection = table_next(&cursor)) != NULL) {
        buf_append_format(out, "  collection %.*s: dimension %u, %s, shards",
                          STR_ARG(collection->name), collection->dimension,
                          distance_text(collection->distance));
        for (uint32_t i = 0; i < collection->shard_count; i++)
            buf_append_format(out, " %u", collection->shards[i].id);
        buf_append_byte(out, '\n');
    }
}

enum status placementdriver_inspect(struct span encoded, struct buf *out, struct error *error)
{
    struct state state;
    state_init(&state);
    enum status status = state_decode(encoded, error, &state);
    if (status == STATUS_OK)
        print_state(&state, out);
    state_deinit(&state);
    return status;
}
