#include "apigateway/point_batch.h"

#include "api/message.h"
#include "base/assert.h"
#include "base/limits.h"

// An upsert as bytes from the wire: whatever is accepted has ids, vectors and payloads within the
// limits, every id once, and payloads that can be shown again.

enum { MEMORY_MAX = 64 << 20 };

static void check_point(const Vectron__Worker__V1__ShardPoint *point, struct arena *arena)
{
    struct str json = {(const char *)point->payload.data, point->payload.len};
    struct payload_member *members = NULL;
    size_t count = 0;
    Google__Protobuf__Struct *document = NULL;
    struct str id = str_from_cstr(point->id);
    ASSERT(id.len > 0 && id.len <= LIMIT_POINT_ID_SIZE_MAX && point->n_vector == 2);
    ASSERT(json.len <= LIMIT_PAYLOAD_SIZE_MAX && str_is_utf8(json));
    enum status status = payload_to_members(json, arena, &members, &count);
    ASSERT(status == STATUS_OK || status == STATUS_EXHAUSTED);
    status = payload_to_document(json, arena, &document);
    ASSERT(status == STATUS_OK || status == STATUS_EXHAUSTED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cluster_shard shards[] = {
        {.shard_id = 1, .range_start = 0, .range_end = UINT64_MAX / 2},
        {.shard_id = 2, .range_start = UINT64_MAX / 2 + 1, .range_end = UINT64_MAX},
    };
    const struct cluster_collection collection = {
        .name = STR("u/c"),
        .dimension = 2,
        .distance = STR("cosine"),
        .shards = shards,
        .shard_count = 2,
    };
    struct arena *arena = arena_create(MEMORY_MAX);
    struct error error;
    ProtobufCMessage *message = NULL;
    struct point_batch batch;
    if (message_decode(&vectron__v1__upsert_request__descriptor, (struct span){data, size}, arena,
                       &error, &message) == STATUS_OK) {
        const Vectron__V1__UpsertRequest *request =
            (const Vectron__V1__UpsertRequest *)(const void *)message;
        if (request->n_points > 0 &&
            point_batch_create(request, &collection, arena, &error, &batch) == STATUS_OK) {
            for (uint32_t i = 0; i < batch.group_count; i++) {
                for (size_t j = 0; j < batch.groups[i].count; j++)
                    check_point(batch.groups[i].points[j], arena);
            }
        }
    }
    arena_destroy(arena);
    return 0;
}
