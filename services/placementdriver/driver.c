#include "placementdriver/driver.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "placementdriver/names.h"
#include "placementdriver/wire.h"
#include "server/process.h"

// The state behind its lock: what the log applies to it, and how a request puts a command into the
// log and learns what came of it.

// --- The machine

// What apply says to the proposer; it goes through memory only.
static void encode_answer(const struct answer *answer, struct buf *out)
{
    buf_append_u32(out, (uint32_t)answer->status);
    buf_append_u64(out, answer->value);
    buf_append_cstr(out, answer->error.text);
}

static void decode_answer(struct span bytes, struct answer *out_answer)
{
    struct wire_reader reader = {.rest = bytes};
    uint32_t status = wire_read_u32(&reader);
    out_answer->value = wire_read_u64(&reader);
    ASSERT(!reader.has_failed && status < STATUS_COUNT);
    out_answer->status = (enum status)status;
    error_write(&out_answer->error, "%.*s", STR_ARG(span_str(reader.rest)));
}

static void machine_apply(uint64_t index, struct span command, struct buf *result, void *context)
{
    struct driver *driver = context;
    struct answer answer;
    pthread_mutex_lock(&driver->lock);
    enum status status = state_apply(&driver->state, index, command, &answer);
    if (status == STATUS_OK && driver->state.map_index == index)
        map_has_changed(driver);
    pthread_mutex_unlock(&driver->lock);
    if (status != STATUS_OK) {
        // A newer program wrote it. To go on without it would be another state than the one that
        // was acknowledged.
        log_error("the log holds a command that this program does not know",
                  LOG_U64("index", index), LOG_CSTR("reason", answer.error.text));
        process_fail();
        answer.status = STATUS_CORRUPT;
    }
    encode_answer(&answer, result);
}

static void machine_encode(struct buf *out, void *context)
{
    struct driver *driver = context;
    pthread_mutex_lock(&driver->lock);
    state_encode(&driver->state, out);
    pthread_mutex_unlock(&driver->lock);
}

static enum status machine_decode(struct span bytes, struct error *error, void *context)
{
    struct driver *driver = context;
    struct state state;
    state_init(&state);
    enum status status = state_decode(bytes, error, &state);
    if (status == STATUS_OK) {
        pthread_mutex_lock(&driver->lock);
        struct state old = driver->state;
        driver->state = state;
        state = old;
        pthread_mutex_unlock(&driver->lock);
    }
    state_deinit(&state);
    return status;
}

const struct replica_machine driver_machine = {machine_apply, machine_encode, machine_decode,
                                               driver_lead_changed};

// --- Commands of requests

struct proposal {
    struct rpc *rpc;
    driver_done_fn done;
    void *context;
};

static void proposed(enum status status, uint64_t index, struct span result, void *context)
{
    (void)index;
    struct proposal *proposal = context;
    struct rpc *rpc = proposal->rpc;
    struct answer answer = {.status = status};
    if (status == STATUS_OK)
        decode_answer(result, &answer);
    else if (status == STATUS_NOT_LEADER) // another one leads now, and this was not done
        answer.status = error_set(&answer.error, STATUS_UNAVAILABLE,
                                  "the placement driver's lead has changed: try again");
    else
        (void)snprintf(answer.error.text, sizeof(answer.error.text), "%.*s",
                       STR_ARG(span_str(result)));
    proposal->done(rpc, answer.status, answer.value, &answer.error, proposal->context);
    rpc_unref(rpc);
}

void driver_propose(struct driver *driver, struct rpc *rpc, const struct command *command,
                    driver_done_fn done, void *context)
{
    struct buf bytes;
    struct proposal *proposal = arena_alloc(rpc_arena(rpc), sizeof(*proposal));
    *proposal = (struct proposal){rpc, done, context};
    buf_init(&bytes, SIZE_MAX);
    command_encode(command, &bytes);
    rpc_ref(rpc);
    enum status status = replica_propose(driver->replica, buf_span(&bytes), proposed, proposal);
    if (status == STATUS_INVALID)
        rpc_fail(rpc, status, "the change has %zu bytes, the limit is %zu", bytes.len,
                 REPLICA_COMMAND_SIZE_MAX);
    else if (status == STATUS_EXHAUSTED)
        rpc_fail(rpc, status, "too many changes wait for the disk: try again");
    else if (status != STATUS_OK)
        rpc_fail(rpc, status, "the placement driver takes no changes now: try again");
    if (status != STATUS_OK)
        rpc_unref(rpc);
    buf_deinit(&bytes);
}

void driver_fail(struct rpc *rpc, enum status status, const struct error *error)
{
    if (status == STATUS_UNAVAILABLE && error->text[0] == '\0')
        rpc_fail(rpc, status, "whether the change was made is not known: try again");
    else
        rpc_fail_error(rpc, status, error);
}

// --- Reads

struct reading {
    struct driver *driver;
    struct rpc *rpc;
    void (*handler)(struct driver *driver, struct rpc *rpc);
};

static void barrier_passed(enum status status, void *context)
{
    struct reading *reading = context;
    struct rpc *rpc = reading->rpc;
    if (status != STATUS_OK)
        rpc_fail(rpc, STATUS_UNAVAILABLE, "this placement driver does not lead: try again");
    else if (!rpc_is_done(rpc))
        reading->handler(reading->driver, rpc);
    rpc_unref(rpc);
}

void driver_read(struct driver *driver, struct rpc *rpc,
                 void (*handler)(struct driver *driver, struct rpc *rpc))
{
    struct reading *reading = arena_alloc(rpc_arena(rpc), sizeof(*reading));
    *reading = (struct reading){driver, rpc, handler};
    rpc_ref(rpc);
    replica_read_barrier(driver->replica, barrier_passed, reading);
}

// --- Texts

uint64_t id_from_text(const char *text)
{
    uint64_t id = 0;
    return str_to_u64(str_from_cstr(text), &id) ? id : 0;
}

char *id_to_text(struct arena *arena, uint64_t id)
{
    return arena_cstr(arena, arena_format(arena, "%" PRIu64, id));
}

enum status check_capabilities(char *const *capabilities, size_t count, struct arena *arena,
                               struct error *error, struct str *out_joined)
{
    struct str joined = STR("");
    if (count > STATE_CAPABILITY_COUNT_MAX)
        return error_set(error, STATUS_INVALID, "capabilities: there are %zu, the limit is %d",
                         count, STATE_CAPABILITY_COUNT_MAX);
    for (size_t i = 0; i < count; i++) {
        struct str one = str_from_cstr(capabilities[i]);
        TRY(check_short_text(one, "capabilities", error));
        if (one.len == 0 || str_contains(one, STR(",")))
            return error_set(error, STATUS_INVALID,
                             "capabilities: number %zu is empty or has a comma", i + 1);
        joined = arena_format(arena, "%.*s%s%.*s", STR_ARG(joined), i > 0 ? "," : "", STR_ARG(one));
    }
    *out_joined = joined;
    return STATUS_OK;
}
