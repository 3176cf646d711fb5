#include <string.h>

#include "api/json.h"
#include "api/rpc_internal.h"

// The HTTP/JSON face: which page or method a verb and path mean, the request's message from body,
// query and path, answers and errors as JSON, and CORS (https://fetch.spec.whatwg.org).

enum { ALLOW_SIZE_MAX = 128 };

// --- CORS

static bool is_origin_allowed(struct str allowed, struct str origin)
{
    while (allowed.len > 0) {
        struct str one = str_trim(str_cut(&allowed, ','));
        if (str_equal(one, origin))
            return true;
    }
    return false;
}

static void add_cors(struct rpc *rpc, struct str allowed_verbs)
{
    struct str allowed = rpc->router->options.cors_origins;
    struct str origin = call_metadata(rpc->call, STR("origin"));
    if (allowed.len == 0)
        return;
    bool is_any = str_equal(str_trim(allowed), STR("*"));
    if (!is_any) // a cache must not hand one origin's answer to another
        call_add_header(rpc->call, STR("vary"), STR("origin"));
    if (origin.len == 0 || (!is_any && !is_origin_allowed(allowed, origin)))
        return;
    call_add_header(rpc->call, STR("access-control-allow-origin"), is_any ? STR("*") : origin);
    call_add_header(rpc->call, STR("access-control-expose-headers"),
                    STR("x-request-id, retry-after"));
    if (allowed_verbs.len == 0)
        return;
    call_add_header(rpc->call, STR("access-control-allow-methods"), allowed_verbs);
    call_add_header(rpc->call, STR("access-control-allow-headers"),
                    STR("authorization, content-type, x-request-id"));
    call_add_header(rpc->call, STR("access-control-max-age"), STR("600"));
}

// --- What a verb and path mean

struct finding {
    const struct rpc_page *page;
    const struct rpc_route *route;
    uint32_t literal_count;
    bool is_known; // some verb has this path
    char allow[ALLOW_SIZE_MAX];
    size_t allow_size;
};

static bool is_verb(struct str wanted, struct str verb)
{
    return str_equal(wanted, verb) ||
           (str_equal_cstr(wanted, "GET") && str_equal_cstr(verb, "HEAD"));
}

static void allow(struct finding *finding, struct str verb)
{
    struct str so_far = {finding->allow, finding->allow_size};
    finding->is_known = true;
    while (so_far.len > 0) {
        if (str_equal(str_trim(str_cut(&so_far, ',')), verb))
            return;
    }
    if (finding->allow_size + verb.len + 2 > sizeof(finding->allow))
        return;
    if (finding->allow_size > 0) {
        memcpy(finding->allow + finding->allow_size, ", ", 2);
        finding->allow_size += 2;
    }
    memcpy(finding->allow + finding->allow_size, verb.data, verb.len);
    finding->allow_size += verb.len;
}

static void find_page(struct rpc *rpc, struct str verb, struct str path, struct finding *finding)
{
    for (const struct rpc_page *page = rpc->router->pages; page != NULL; page = page->next) {
        if (page->has_star ? !str_starts_with(path, page->path) : !str_equal(path, page->path))
            continue;
        allow(finding, page->verb);
        bool is_longer = finding->page == NULL || page->path.len > finding->page->path.len;
        if (is_verb(page->verb, verb) && is_longer)
            finding->page = page;
    }
}

static void find_route(struct rpc *rpc, struct str verb, struct str path, struct finding *finding)
{
    for (const struct rpc_route *route = rpc->router->routes; route != NULL; route = route->next) {
        struct route_variable variables[ROUTE_VARIABLES_MAX];
        uint32_t variable_count = 0;
        uint32_t literal_count = 0;
        if (!route_match(route->pattern, path, variables, &variable_count, &literal_count))
            continue;
        allow(finding, str_from_cstr(route->verb));
        if (!is_verb(str_from_cstr(route->verb), verb) ||
            (finding->route != NULL && literal_count <= finding->literal_count))
            continue;
        finding->route = route;
        finding->literal_count = literal_count;
        memcpy(rpc->variables, variables, sizeof(variables));
        rpc->variable_count = variable_count;
    }
}

static void refuse_verb(struct rpc *rpc, const struct finding *finding, struct str verb)
{
    struct str allowed = {finding->allow, finding->allow_size};
    struct str path = rpc_shown_path(rpc);
    call_add_header(rpc->call, STR("allow"), allowed);
    rpc_http_fail(rpc, 405, STATUS_UNIMPLEMENTED,
                  arena_format(rpc_arena(rpc), "%.*s is not for %.*s: %.*s", STR_ARG(path),
                               verb.len < 32 ? (int)verb.len : 32, verb.data, STR_ARG(allowed)));
    rpc_finished(rpc, STATUS_UNIMPLEMENTED);
}

static void refuse_path(struct rpc *rpc)
{
    struct str path = rpc_shown_path(rpc);
    rpc_fail(rpc, STATUS_NOT_FOUND, "%.*s not found", STR_ARG(path));
}

static void answer_options(struct rpc *rpc, struct finding *finding)
{
    allow(finding, STR("OPTIONS"));
    struct str allowed = {finding->allow, finding->allow_size};
    add_cors(rpc, allowed);
    call_add_header(rpc->call, STR("allow"), allowed);
    call_reply(rpc->call, 204, STR(""), (struct span){0});
    rpc_finished(rpc, STATUS_OK);
}

static bool unescape_variables(struct rpc *rpc)
{
    for (uint32_t i = 0; i < rpc->variable_count; i++) {
        struct str *text = &rpc->variables[i].text;
        if (!route_unescape(*text, false, rpc_arena(rpc), text)) {
            rpc_fail(rpc, STATUS_INVALID,
                     "the path has a %% that no two hexadecimal digits follow, or a NUL");
            return false;
        }
    }
    return true;
}

bool rpc_http_find(struct rpc *rpc)
{
    struct str verb = call_verb(rpc->call);
    struct str path = call_path(rpc->call);
    struct finding finding = {0};
    find_page(rpc, verb, path, &finding);
    find_route(rpc, verb, path, &finding);
    if (str_equal_cstr(verb, "OPTIONS") && (finding.is_known || str_equal_cstr(path, "*"))) {
        answer_options(rpc, &finding);
        return false;
    }
    add_cors(rpc, STR(""));
    if (finding.route != NULL) {
        rpc->entry = finding.route->entry;
        return unescape_variables(rpc);
    }
    if (finding.page != NULL) {
        rpc->page = finding.page;
        return true;
    }
    if (finding.is_known)
        refuse_verb(rpc, &finding, verb);
    else
        refuse_path(rpc);
    return false;
}

// --- The request's message

static enum status set_query(struct rpc *rpc, ProtobufCMessage *message, struct arena *arena,
                             struct error *error)
{
    struct str rest = call_query(rpc->call);
    while (rest.len > 0) {
        struct str value = str_cut(&rest, '&');
        if (value.len == 0)
            continue;
        struct str name = str_cut(&value, '=');
        if (!route_unescape(name, true, arena, &name) ||
            !route_unescape(value, true, arena, &value))
            return error_set(error, STATUS_INVALID,
                             "the query has a %% that no two hexadecimal digits follow, or a NUL");
        TRY(json_set_field(message, name, value, arena, error));
    }
    return STATUS_OK;
}

enum status rpc_http_decode(struct rpc *rpc, struct span body, struct arena *arena,
                            struct error *error, ProtobufCMessage **out_message)
{
    const struct rpc_entry *entry = rpc->entry;
    ProtobufCMessage *message = arena_alloc(arena, entry->input->sizeof_message);
    protobuf_c_message_init(entry->input, message);
    if (entry->method->prepare_http != NULL)
        entry->method->prepare_http(message);
    TRY(json_decode_body(span_str(body), arena, error, message));
    TRY(set_query(rpc, message, arena, error));
    for (uint32_t i = 0; i < rpc->variable_count; i++)
        TRY(json_set_field(message, rpc->variables[i].name, rpc->variables[i].text, arena, error));
    *out_message = message;
    return STATUS_OK;
}

// --- The answer

void rpc_http_reply(struct rpc *rpc, const ProtobufCMessage *message)
{
    struct buf *text = rpc_scratch(rpc);
    json_encode_message(message, text);
    if (buf_has_overflowed(text))
        rpc_fail(rpc, STATUS_EXHAUSTED, "the answer is larger than %zu bytes", text->size_max);
    else
        call_reply(rpc->call, 200, STR("application/json"), buf_span(text));
}

void rpc_http_fail(struct rpc *rpc, int http_code, enum status status, struct str text)
{
    if (http_code == 401 && !rpc->has_authenticate)
        call_add_header(rpc->call, STR("www-authenticate"), STR("Bearer"));
    if ((http_code == 429 || http_code == 503) && !rpc->has_retry_after)
        call_add_header(rpc->call, STR("retry-after"), STR("1"));
    struct buf *body = rpc_scratch(rpc);
    buf_append_format(body, "{\"code\":%d,\"message\":", status_grpc_code(status));
    json_append_string(body, text);
    buf_append_cstr(body, ",\"details\":[]}");
    call_reply(rpc->call, http_code, STR("application/json"), buf_span(body));
}
