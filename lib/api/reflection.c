#include <string.h>

#include "api/reflection.pb-c.h"
#include "api/reflection_v1alpha.pb-c.h"
#include "api/rpc_internal.h"
#include "api/wire_internal.h"
#include "base/assert.h"
#include "base/mem.h"

// Server reflection, v1 and v1alpha, whose messages are the same on the wire
// (https://github.com/grpc/grpc/blob/master/doc/server-reflection.md). What it hands out are the
// descriptors that the build put into the program (FileDescriptorSet), cut into files and indexed
// by every name that they define.

extern const unsigned char api_descriptors[];
extern const size_t api_descriptors_size;

#define ASKS(what)    GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##what
#define ANSWERS(what) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##what

// Numbers of descriptor.proto.
enum {
    SET_FILE = 1,
    FILE_NAME = 1,
    FILE_PACKAGE = 2,
    FILE_DEPENDENCY = 3,
    FILE_MESSAGE = 4,
    FILE_ENUM = 5,
    FILE_SERVICE = 6,
    MESSAGE_NAME = 1,
    MESSAGE_FIELD = 2,
    MESSAGE_NESTED = 3,
    MESSAGE_ENUM = 4,
    MESSAGE_ONEOF = 8,
    ENUM_VALUE = 2,
    SERVICE_METHOD = 2,
    NAME = 1, // of whatever has one
};

enum {
    DEPTH_MAX = 8,
    DEPENDENCIES_MAX = 16,
    ARENA_SIZE_MAX = 4 << 20,
    GRPC_NOT_FOUND = 5,
    GRPC_UNIMPLEMENTED = 12
};

struct proto_file {
    struct str name;
    struct span bytes;
    struct str dependencies[DEPENDENCIES_MAX];
    uint32_t dependency_count;
};

struct reflection {
    struct arena *arena;
    struct map *files;    // by name
    struct map *symbols;  // full name -> struct proto_file
    struct map *messages; // full names of messages only
};

// --- The index

// The descriptors are the build's own: what cannot be read there is a bug.
static bool next_field(struct wire *wire, struct wire_field *out_field)
{
    if (wire->at == wire->end)
        return false;
    ASSERT(wire_read_field(wire, out_field) == NULL);
    return true;
}

static struct wire wire_of(struct span bytes)
{
    return (struct wire){bytes.data, bytes.data + bytes.len};
}

static struct str text_field(struct span message, uint32_t number)
{
    struct wire wire = wire_of(message);
    struct wire_field field;
    while (next_field(&wire, &field)) {
        if (field.number == number && field.type == WIRE_BYTES)
            return span_str(field.bytes);
    }
    return STR("");
}

static struct str join(struct reflection *reflection, struct str scope, struct str name)
{
    return scope.len == 0
               ? name
               : arena_format(reflection->arena, "%.*s.%.*s", STR_ARG(scope), STR_ARG(name));
}

// Names of the things under one number: methods of a service, fields of a message.
static void index_members(struct reflection *reflection, struct proto_file *file, struct span owner,
                          struct str scope, uint32_t number)
{
    struct wire wire = wire_of(owner);
    struct wire_field field;
    while (next_field(&wire, &field)) {
        if (field.number == number && field.type == WIRE_BYTES)
            (void)map_put(reflection->symbols,
                          join(reflection, scope, text_field(field.bytes, NAME)), file);
    }
}

static void index_enum(struct reflection *reflection, struct proto_file *file, struct span bytes,
                       struct str scope)
{
    (void)map_put(reflection->symbols, join(reflection, scope, text_field(bytes, NAME)), file);
    // The values of an enum are siblings of it.
    index_members(reflection, file, bytes, scope, ENUM_VALUE);
}

struct frame {
    struct wire wire;
    struct str scope;
};

static void open_message(struct reflection *reflection, struct proto_file *file, struct span bytes,
                         struct str scope, struct frame *out_frame)
{
    struct str name = join(reflection, scope, text_field(bytes, MESSAGE_NAME));
    (void)map_put(reflection->symbols, name, file);
    (void)map_put(reflection->messages, name, file);
    index_members(reflection, file, bytes, name, MESSAGE_FIELD);
    index_members(reflection, file, bytes, name, MESSAGE_ONEOF);
    *out_frame = (struct frame){wire_of(bytes), name};
}

static void index_message(struct reflection *reflection, struct proto_file *file, struct span bytes,
                          struct str scope)
{
    struct frame frames[DEPTH_MAX];
    uint32_t depth = 1;
    open_message(reflection, file, bytes, scope, &frames[0]);
    while (depth > 0) {
        struct frame *frame = &frames[depth - 1];
        struct wire_field field;
        if (!next_field(&frame->wire, &field)) {
            depth--;
        } else if (field.number == MESSAGE_ENUM && field.type == WIRE_BYTES) {
            index_enum(reflection, file, field.bytes, frame->scope);
        } else if (field.number == MESSAGE_NESTED && field.type == WIRE_BYTES) {
            ASSERT(depth < DEPTH_MAX);
            open_message(reflection, file, field.bytes, frame->scope, &frames[depth]);
            depth++;
        }
    }
}

static void index_service(struct reflection *reflection, struct proto_file *file, struct span bytes,
                          struct str scope)
{
    struct str name = join(reflection, scope, text_field(bytes, NAME));
    (void)map_put(reflection->symbols, name, file);
    index_members(reflection, file, bytes, name, SERVICE_METHOD);
}

static void index_file(struct reflection *reflection, struct span bytes)
{
    struct proto_file *file = arena_alloc(reflection->arena, sizeof(*file));
    struct str package = text_field(bytes, FILE_PACKAGE);
    struct wire wire = wire_of(bytes);
    struct wire_field field;
    file->name = text_field(bytes, FILE_NAME);
    file->bytes = bytes;
    (void)map_put(reflection->files, file->name, file);
    while (next_field(&wire, &field)) {
        if (field.type != WIRE_BYTES)
            continue;
        if (field.number == FILE_DEPENDENCY) {
            ASSERT(file->dependency_count < DEPENDENCIES_MAX);
            file->dependencies[file->dependency_count++] = span_str(field.bytes);
        } else if (field.number == FILE_MESSAGE) {
            index_message(reflection, file, field.bytes, package);
        } else if (field.number == FILE_ENUM) {
            index_enum(reflection, file, field.bytes, package);
        } else if (field.number == FILE_SERVICE) {
            index_service(reflection, file, field.bytes, package);
        }
    }
}

static struct reflection *reflection_create(void)
{
    struct reflection *reflection = mem_alloc(sizeof(*reflection));
    struct wire wire = {api_descriptors, api_descriptors + api_descriptors_size};
    struct wire_field field;
    reflection->arena = arena_create(ARENA_SIZE_MAX);
    reflection->files = map_create();
    reflection->symbols = map_create();
    reflection->messages = map_create();
    while (next_field(&wire, &field)) {
        if (field.number == SET_FILE && field.type == WIRE_BYTES)
            index_file(reflection, field.bytes);
    }
    return reflection;
}

void reflection_destroy(struct reflection *reflection)
{
    if (reflection == NULL)
        return;
    map_destroy(reflection->files);
    map_destroy(reflection->symbols);
    map_destroy(reflection->messages);
    arena_destroy(reflection->arena);
    mem_free(reflection);
}

// --- The answers

typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;

static void answer_error(struct rpc *rpc, Response *response, int code, struct str text)
{
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    error.error_code = code;
    error.error_message = arena_cstr(rpc_arena(rpc), text);
    response->message_response_case = ANSWERS(ERROR_RESPONSE);
    response->error_response = &error;
    rpc_send(rpc, &response->base);
}

static void answer_not_found(struct rpc *rpc, Response *response, const char *what,
                             const char *name)
{
    answer_error(rpc, response, GRPC_NOT_FOUND,
                 arena_format(rpc_arena(rpc), "%s \"%.256s\" not found", what, name));
}

// protobuf-c's struct knows no const; nobody writes through it.
static ProtobufCBinaryData binary_of(struct span bytes)
{
    ProtobufCBinaryData data = {.len = bytes.len};
    memcpy(&data.data, &bytes.data, sizeof(data.data));
    return data;
}

// The file, then everything that it needs, each once.
static void answer_file(struct rpc *rpc, const struct reflection *reflection,
                        const struct proto_file *file, Response *response)
{
    Grpc__Reflection__V1__FileDescriptorResponse answer =
        GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    size_t count_max = map_count(reflection->files);
    const struct proto_file **files =
        arena_alloc(rpc_arena(rpc), count_max * sizeof(struct proto_file *));
    ProtobufCBinaryData *bytes = arena_alloc(rpc_arena(rpc), count_max * sizeof(*bytes));
    size_t count = 0;
    files[count++] = file;
    for (size_t i = 0; i < count; i++) {
        bytes[i] = binary_of(files[i]->bytes);
        for (uint32_t k = 0; k < files[i]->dependency_count; k++) {
            const struct proto_file *needed = map_get(reflection->files, files[i]->dependencies[k]);
            size_t place = 0;
            while (place < count && files[place] != needed)
                place++;
            ASSERT(needed != NULL);
            if (place == count)
                files[count++] = needed;
        }
    }
    answer.n_file_descriptor_proto = count;
    answer.file_descriptor_proto = bytes;
    response->message_response_case = ANSWERS(FILE_DESCRIPTOR_RESPONSE);
    response->file_descriptor_response = &answer;
    rpc_send(rpc, &response->base);
}

static void answer_services(struct rpc *rpc, const struct rpc_router *router, Response *response)
{
    Grpc__Reflection__V1__ListServiceResponse answer =
        GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    struct arena *arena = rpc_arena(rpc);
    size_t count = map_count(router->services);
    Grpc__Reflection__V1__ServiceResponse *services = arena_alloc(arena, count * sizeof(*services));
    answer.service = arena_alloc(arena, count * sizeof(*answer.service));
    size_t position = 0;
    struct str name;
    void *value;
    while (map_next(router->services, &position, &name, &value)) {
        Grpc__Reflection__V1__ServiceResponse *service = &services[answer.n_service];
        grpc__reflection__v1__service_response__init(service);
        service->name = arena_cstr(arena, name);
        // By name, so that every server answers alike.
        size_t place = answer.n_service++;
        for (; place > 0 && strcmp(answer.service[place - 1]->name, service->name) > 0; place--)
            answer.service[place] = answer.service[place - 1];
        answer.service[place] = service;
    }
    response->message_response_case = ANSWERS(LIST_SERVICES_RESPONSE);
    response->list_services_response = &answer;
    rpc_send(rpc, &response->base);
}

static void answer_extensions(struct rpc *rpc, const struct reflection *reflection,
                              Response *response, char *type)
{
    Grpc__Reflection__V1__ExtensionNumberResponse answer =
        GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;
    if (map_get(reflection->messages, str_from_cstr(type)) == NULL) {
        answer_not_found(rpc, response, "type", type);
        return;
    }
    answer.base_type_name = type; // no message here has extensions
    response->message_response_case = ANSWERS(ALL_EXTENSION_NUMBERS_RESPONSE);
    response->all_extension_numbers_response = &answer;
    rpc_send(rpc, &response->base);
}

static void answer_symbol(struct rpc *rpc, const struct reflection *reflection, Response *response,
                          const char *symbol)
{
    struct str name = str_from_cstr(symbol);
    if (str_starts_with(name, STR("."))) // as some clients write a full name
        name = (struct str){name.data + 1, name.len - 1};
    const struct proto_file *file = map_get(reflection->symbols, name);
    if (file == NULL)
        answer_not_found(rpc, response, "symbol", symbol);
    else
        answer_file(rpc, reflection, file, response);
}

static void answer(struct rpc *rpc, void *context)
{
    struct rpc_router *router = context;
    const struct reflection *reflection = router->reflection;
    Request *request = (Request *)(void *)rpc->request;
    Response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    response.valid_host = request->host;
    response.original_request = request;
    switch (request->message_request_case) {
    case ASKS(FILE_BY_FILENAME): {
        const struct proto_file *file =
            map_get(reflection->files, str_from_cstr(request->file_by_filename));
        if (file == NULL)
            answer_not_found(rpc, &response, "file", request->file_by_filename);
        else
            answer_file(rpc, reflection, file, &response);
        break;
    }
    case ASKS(FILE_CONTAINING_SYMBOL):
        answer_symbol(rpc, reflection, &response, request->file_containing_symbol);
        break;
    case ASKS(FILE_CONTAINING_EXTENSION):
        answer_not_found(rpc, &response, "extension of",
                         request->file_containing_extension->containing_type);
        break;
    case ASKS(ALL_EXTENSION_NUMBERS_OF_TYPE):
        answer_extensions(rpc, reflection, &response, request->all_extension_numbers_of_type);
        break;
    case ASKS(LIST_SERVICES):
        answer_services(rpc, router, &response);
        break;
    default:
        answer_error(rpc, &response, GRPC_UNIMPLEMENTED, STR("the request asks for nothing"));
    }
}

static const struct rpc_method method = {
    .name = "ServerReflectionInfo", .handler = answer, .is_stream = true};

void reflection_add(struct rpc_router *router)
{
    const ProtobufCServiceDescriptor *const services[] = {
        &grpc__reflection__v1__server_reflection__descriptor,
        &grpc__reflection__v1alpha__server_reflection__descriptor,
    };
    router->reflection = reflection_create();
    for (uint32_t i = 0; i < sizeof(services) / sizeof(services[0]); i++) {
        struct rpc_entry *entry = rpc_router_add_entry(router, services[i], &method, router);
        entry->is_open = true;
        entry->is_bidi = true;
        entry->input = &grpc__reflection__v1__server_reflection_request__descriptor;
    }
}
