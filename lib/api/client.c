#include "api/client.h"

#include <string.h>

#include "api/message.h"
#include "base/assert.h"

// Hot path: besides the memory that the channel keeps for its calls there is one buffer for the
// request's bytes, which the channel copies.

enum { STREAM_MESSAGE_MEMORY_MAX = 1 << 30, REQUEST_ON_STACK_MAX = 4096 };

// Of one call; it lives in the call's own memory.
struct state {
    struct channel_call *call;
    struct arena *arena; // the request's, or NULL
    const ProtobufCMessageDescriptor *output;
    void (*done)(enum status status, struct str text, const ProtobufCMessage *message,
                 void *context);
    void *context;
    bool is_stream;
    bool has_two;
    enum status status; // of decoding
    struct error error;
    ProtobufCMessage *message;
};

static const ProtobufCMethodDescriptor *method_of(const struct client_request *request)
{
    const ProtobufCMethodDescriptor *method =
        protobuf_c_service_descriptor_get_method_by_name(request->service, request->method);
    ASSERT(method != NULL && request->message->descriptor == method->input);
    return method;
}

// "/vectron.v1.VectronService/Search"
static struct str write_path(const struct client_request *request, char *out, size_t size)
{
    size_t service_size = strlen(request->service->name);
    size_t method_size = strlen(request->method);
    ASSERT(service_size + method_size + 2 <= size);
    out[0] = '/';
    memcpy(out + 1, request->service->name, service_size);
    out[1 + service_size] = '/';
    memcpy(out + 2 + service_size, request->method, method_size);
    return (struct str){out, service_size + method_size + 2};
}

// --- The answer

// Each message of a stream has memory of its own, as a stream may last for ever.
static void receive_of_stream(struct state *state, struct span bytes)
{
    struct arena *arena =
        state->arena != NULL ? state->arena : arena_create(STREAM_MESSAGE_MEMORY_MAX);
    bool is_ours = state->arena == NULL;
    ProtobufCMessage *message = NULL;
    enum status status = message_decode(state->output, bytes, arena, &state->error, &message);
    // The call, and the state with it, may be gone when done returns.
    if (status == STATUS_OK)
        state->done(STATUS_OK, STR(""), message, state->context);
    else
        state->status = status;
    if (is_ours)
        arena_destroy(arena);
}

static void received(struct span bytes, void *context)
{
    struct state *state = context;
    if (state->status != STATUS_OK)
        return;
    if (state->is_stream) {
        receive_of_stream(state, bytes);
        return;
    }
    state->has_two = state->message != NULL;
    struct arena *arena = state->arena != NULL ? state->arena : channel_call_arena(state->call);
    state->status = message_decode(state->output, bytes, arena, &state->error, &state->message);
}

static void ended(enum status status, struct str text, void *context)
{
    struct state *state = context;
    const ProtobufCMessage *message = NULL;
    if (status == STATUS_OK && state->status != STATUS_OK) {
        // The answer was malformed, not the request.
        status = state->status == STATUS_INVALID ? STATUS_BUG : state->status;
        text = str_from_cstr(state->error.text);
    } else if (status == STATUS_OK && !state->is_stream) {
        bool is_whole = state->message != NULL && !state->has_two;
        status = is_whole ? STATUS_OK : STATUS_BUG;
        text = is_whole ? text : STR("the answer has not one message");
        message = is_whole ? state->message : NULL;
    }
    state->done(status, text, message, state->context);
}

// --- The request

static struct channel_call *start(const struct client_request *request, struct span bytes)
{
    char path[256];
    struct state state = {
        .arena = request->arena,
        .output = method_of(request)->output,
        .done = request->done,
        .context = request->context,
        .is_stream = request->is_stream,
    };
    struct channel_call *call =
        channel_call(request->channel, &(struct channel_request){
                                           .path = write_path(request, path, sizeof(path)),
                                           .message = bytes,
                                           .deadline_ns = request->deadline_ns,
                                           .waits_for_ready = request->waits_for_ready,
                                           .metadata = request->metadata,
                                           .metadata_count = request->metadata_count,
                                           .context = &state,
                                           .context_size = sizeof(state),
                                           .received = received,
                                           .done = ended,
                                       });
    ((struct state *)channel_call_context(call))->call = call;
    return call;
}

struct channel_call *client_call(const struct client_request *request)
{
    uint8_t small[REQUEST_ON_STACK_MAX];
    size_t size = protobuf_c_message_get_packed_size(request->message);
    if (size <= sizeof(small)) {
        (void)protobuf_c_message_pack(request->message, small);
        return start(request, (struct span){small, size});
    }
    struct buf bytes;
    buf_init(&bytes, SIZE_MAX);
    ASSERT(message_encode(request->message, &bytes) == STATUS_OK);
    struct channel_call *call = start(request, buf_span(&bytes));
    buf_deinit(&bytes);
    return call;
}

enum status client_call_wait(const struct client_request *request, struct arena *arena,
                             struct error *error, const ProtobufCMessage **out_message)
{
    char path[256];
    struct buf question;
    struct buf answer;
    ProtobufCMessage *message = NULL;
    buf_init(&question, SIZE_MAX);
    buf_init(&answer, SIZE_MAX);
    ASSERT(message_encode(request->message, &question) == STATUS_OK);
    enum status status = channel_call_wait(request->channel,
                                           &(struct channel_request){
                                               .path = write_path(request, path, sizeof(path)),
                                               .message = buf_span(&question),
                                               .deadline_ns = request->deadline_ns,
                                               .waits_for_ready = request->waits_for_ready,
                                               .metadata = request->metadata,
                                               .metadata_count = request->metadata_count,
                                           },
                                           &answer, error);
    if (status == STATUS_OK) {
        status =
            message_decode(method_of(request)->output, buf_span(&answer), arena, error, &message);
        if (status == STATUS_INVALID)
            status = STATUS_BUG; // the answer was malformed, not the request
    }
    if (status == STATUS_OK)
        *out_message = message;
    buf_deinit(&question);
    buf_deinit(&answer);
    return status;
}
