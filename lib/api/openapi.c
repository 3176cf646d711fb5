#include <string.h>

#include "api/field_internal.h"
#include "api/json.h"
#include "api/rpc_internal.h"
#include "base/assert.h"

// The description of the HTTP face, made from the routes and the descriptors of their messages:
// /openapi.json (OpenAPI 3.0.3, https://spec.openapis.org/oas/v3.0.3) and /docs, a page for people
// that loads nothing from elsewhere. Both are written once, when the routes are added.

enum { DOCUMENT_SIZE_MAX = 1 << 20, MESSAGES_MAX = 256 };

struct document {
    struct buf text;
    const ProtobufCMessageDescriptor *messages[MESSAGES_MAX];
    uint32_t message_count;
};

static void note_message(struct document *document, const ProtobufCMessageDescriptor *descriptor)
{
    for (uint32_t i = 0; i < document->message_count; i++) {
        if (document->messages[i] == descriptor)
            return;
    }
    ASSERT(document->message_count < MESSAGES_MAX);
    document->messages[document->message_count++] = descriptor;
}

static bool is_struct(const ProtobufCMessageDescriptor *descriptor)
{
    return strcmp(descriptor->name, "google.protobuf.Struct") == 0;
}

static void write_enum(struct buf *out, const ProtobufCEnumDescriptor *descriptor)
{
    buf_append_cstr(out, "{\"type\":\"string\",\"enum\":[");
    for (unsigned i = 0; i < descriptor->n_values; i++) {
        buf_append_cstr(out, i > 0 ? "," : "");
        json_append_string(out, str_from_cstr(descriptor->values[i].name));
    }
    buf_append_cstr(out, "]}");
}

static void write_type(struct document *document, const ProtobufCFieldDescriptor *field)
{
    struct buf *out = &document->text;
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        buf_append_cstr(out, "{\"type\":\"string\",\"format\":\"int64\"}");
        return;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        buf_append_cstr(out, "{\"type\":\"string\",\"format\":\"uint64\"}");
        return;
    case PROTOBUF_C_TYPE_FLOAT:
        buf_append_cstr(out, "{\"type\":\"number\",\"format\":\"float\"}");
        return;
    case PROTOBUF_C_TYPE_DOUBLE:
        buf_append_cstr(out, "{\"type\":\"number\",\"format\":\"double\"}");
        return;
    case PROTOBUF_C_TYPE_BOOL:
        buf_append_cstr(out, "{\"type\":\"boolean\"}");
        return;
    case PROTOBUF_C_TYPE_STRING:
        buf_append_cstr(out, "{\"type\":\"string\"}");
        return;
    case PROTOBUF_C_TYPE_BYTES:
        buf_append_cstr(out, "{\"type\":\"string\",\"format\":\"byte\"}");
        return;
    case PROTOBUF_C_TYPE_ENUM:
        write_enum(out, field->descriptor);
        return;
    case PROTOBUF_C_TYPE_MESSAGE:
        if (is_struct(field->descriptor) || field_is_map(field)) {
            buf_append_cstr(out, "{\"type\":\"object\",\"additionalProperties\":true}");
        } else {
            const ProtobufCMessageDescriptor *descriptor = field->descriptor;
            note_message(document, descriptor);
            buf_append_format(out, "{\"$ref\":\"#/components/schemas/%s\"}", descriptor->name);
        }
        return;
    default:
        buf_append_cstr(out, "{\"type\":\"integer\",\"format\":\"int32\"}");
    }
}

// A message with payload and document has one name in JSON: payload.
static bool is_hidden(const ProtobufCMessageDescriptor *descriptor, unsigned index)
{
    return &descriptor->fields[index] == field_document(descriptor);
}

static void write_schema(struct document *document, const ProtobufCMessageDescriptor *descriptor)
{
    struct buf *out = &document->text;
    bool is_first = true;
    buf_append_cstr(out, "{\"type\":\"object\",\"properties\":{");
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        bool is_list = field_is_repeated(field) && !field_is_map(field);
        if (is_hidden(descriptor, i))
            continue;
        buf_append_cstr(out, is_first ? "\"" : ",\"");
        is_first = false;
        json_append_field_name(out, field->name);
        buf_append_cstr(out, is_list ? "\":{\"type\":\"array\",\"items\":" : "\":");
        write_type(document, field);
        buf_append_cstr(out, is_list ? "}" : "");
    }
    buf_append_cstr(out, "}}");
}

static void write_parameters(struct buf *out, const char *pattern)
{
    struct str rest = str_from_cstr(pattern);
    bool is_first = true;
    buf_append_cstr(out, "\"parameters\":[");
    while (rest.len > 0) {
        struct str segment = str_cut(&rest, '/');
        if (segment.len < 2 || segment.data[0] != '{')
            continue;
        buf_append_format(out,
                          "%s{\"name\":\"%.*s\",\"in\":\"path\",\"required\":true,"
                          "\"schema\":{\"type\":\"string\"}}",
                          is_first ? "" : ",", (int)segment.len - 2, segment.data + 1);
        is_first = false;
    }
    buf_append_cstr(out, "],");
}

static void write_operation(struct document *document, const struct rpc_route *route)
{
    struct buf *out = &document->text;
    const ProtobufCMethodDescriptor *method = route->entry->descriptor;
    char verb[16] = {0};
    for (size_t i = 0; route->verb[i] != '\0' && i < sizeof(verb) - 1; i++)
        verb[i] = (char)(route->verb[i] - 'A' + 'a');
    buf_append_format(out, "\"%s\":{\"operationId\":\"%s\",", verb, method->name);
    write_parameters(out, route->pattern);
    if (strcmp(route->verb, "POST") == 0 || strcmp(route->verb, "PUT") == 0) {
        note_message(document, method->input);
        buf_append_format(out,
                          "\"requestBody\":{\"content\":{\"application/json\":{\"schema\":"
                          "{\"$ref\":\"#/components/schemas/%s\"}}}},",
                          method->input->name);
    }
    note_message(document, method->output);
    buf_append_format(out,
                      "\"responses\":{\"200\":{\"description\":\"OK\",\"content\":{"
                      "\"application/json\":{\"schema\":{\"$ref\":\"#/components/schemas/%s\"}}}},"
                      "\"default\":{\"description\":\"An error\",\"content\":{\"application/json\":"
                      "{\"schema\":{\"$ref\":\"#/components/schemas/Error\"}}}}}}",
                      method->output->name);
}

static bool is_written_before(const struct rpc_router *router, const struct rpc_route *route)
{
    for (const struct rpc_route *it = router->routes; it != route; it = it->next) {
        if (strcmp(it->pattern, route->pattern) == 0)
            return true;
    }
    return false;
}

static void write_paths(struct document *document, const struct rpc_router *router)
{
    struct buf *out = &document->text;
    for (const struct rpc_route *route = router->routes; route != NULL; route = route->next) {
        if (is_written_before(router, route))
            continue;
        buf_append_format(out, "%s\"%s\":{", route == router->routes ? "" : ",", route->pattern);
        for (const struct rpc_route *it = route; it != NULL; it = it->next) {
            if (strcmp(it->pattern, route->pattern) != 0)
                continue;
            buf_append_cstr(out, it == route ? "" : ",");
            write_operation(document, it);
        }
        buf_append_byte(out, '}');
    }
}

static void write_openapi(struct document *document, const struct rpc_router *router)
{
    struct buf *out = &document->text;
    buf_append_cstr(
        out, "{\"openapi\":\"3.0.3\",\"info\":{\"title\":\"Vectron\",\"version\":\"" VECTRON_VERSION
             "\"},\"security\":[{\"token\":[]}],\"paths\":{");
    write_paths(document, router);
    buf_append_cstr(out, "},\"components\":{\"securitySchemes\":{\"token\":{\"type\":\"http\","
                         "\"scheme\":\"bearer\",\"bearerFormat\":\"JWT\"}},\"schemas\":{"
                         "\"Error\":{\"type\":\"object\",\"properties\":{\"code\":{\"type\":"
                         "\"integer\"},\"message\":{\"type\":\"string\"},\"details\":{\"type\":"
                         "\"array\",\"items\":{\"type\":\"object\"}}}}");
    // Writing a schema may note further messages at the end.
    for (uint32_t i = 0; i < document->message_count; i++) {
        buf_append_format(out, ",\"%s\":", document->messages[i]->name);
        write_schema(document, document->messages[i]);
    }
    buf_append_cstr(out, "}}}");
}

// --- The page

static void write_fields(struct buf *out, const ProtobufCMessageDescriptor *descriptor)
{
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        if (is_hidden(descriptor, i))
            continue;
        buf_append_cstr(out, i > 0 ? ", " : "");
        json_append_field_name(out, descriptor->fields[i].name);
    }
}

static void write_page(struct buf *out, const struct rpc_router *router)
{
    buf_append_cstr(out,
                    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                    "<title>Vectron: HTTP interface</title>\n</head>\n<body>\n"
                    "<h1>HTTP interface</h1>\n<p>Every call carries <code>authorization: Bearer "
                    "TOKEN</code>. The same as <a href=\"/openapi.json\">OpenAPI</a>.</p>\n"
                    "<table border=\"1\" cellpadding=\"4\">\n<tr><th>verb</th><th>path</th>"
                    "<th>method</th><th>takes</th><th>answers</th></tr>\n");
    for (const struct rpc_route *route = router->routes; route != NULL; route = route->next) {
        const ProtobufCMethodDescriptor *method = route->entry->descriptor;
        buf_append_format(out, "<tr><td>%s</td><td><code>%s</code></td><td>%s</td><td>",
                          route->verb, route->pattern, method->name);
        write_fields(out, method->input);
        buf_append_cstr(out, "</td><td>");
        write_fields(out, method->output);
        buf_append_cstr(out, "</td></tr>\n");
    }
    buf_append_cstr(out, "</table>\n</body>\n</html>\n");
}

static void answer_openapi(struct rpc *rpc, void *context)
{
    const struct str *text = context;
    call_reply(rpc_call(rpc), 200, STR("application/json"), str_span(*text));
}

static void answer_docs(struct rpc *rpc, void *context)
{
    const struct str *text = context;
    call_add_header(rpc_call(rpc), STR("content-security-policy"),
                    STR("default-src 'none'; base-uri 'none'; form-action 'none'; "
                        "frame-ancestors 'none'"));
    call_add_header(rpc_call(rpc), STR("x-content-type-options"), STR("nosniff"));
    call_reply(rpc_call(rpc), 200, STR("text/html; charset=utf-8"), str_span(*text));
}

static struct str *keep(struct rpc_router *router, const struct buf *text)
{
    struct str *kept = arena_alloc(router->arena, sizeof(*kept));
    ASSERT(!buf_has_overflowed(text));
    *kept = arena_str(router->arena, buf_str(text));
    return kept;
}

void openapi_add(struct rpc_router *router)
{
    struct document document = {0};
    buf_init(&document.text, DOCUMENT_SIZE_MAX);
    write_openapi(&document, router);
    rpc_router_add_page(router, "GET", "/openapi.json", true, answer_openapi,
                        keep(router, &document.text));
    buf_clear(&document.text);
    write_page(&document.text, router);
    rpc_router_add_page(router, "GET", "/docs", true, answer_docs, keep(router, &document.text));
    buf_deinit(&document.text);
}
