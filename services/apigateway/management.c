#include "apigateway/management.h"

#include <string.h>

#include "api/json.h"
#include "apigateway/alerts.h"
#include "apigateway/management_print.h"
#include "apigateway/stats.h"
#include "apigateway/survey.h"
#include "base/buf.h"
#include "base/clock.h"

enum { ANSWER_SIZE_MAX = 64 << 20 };

#define JSON_TYPE STR("application/json")

static void reply_json(struct rpc *rpc, const struct buf *json)
{
    if (buf_has_overflowed(json))
        rpc_fail(rpc, STATUS_EXHAUSTED, "the answer is larger than %d bytes", ANSWER_SIZE_MAX);
    else
        call_reply(rpc_call(rpc), 200, JSON_TYPE, buf_span(json));
}

// --- Pages that look at the whole cluster

struct report {
    struct rpc *rpc;
    void (*print)(const struct survey *survey, struct buf *out);
};

static void surveyed(struct survey *survey, void *context)
{
    const struct report *report = context;
    struct rpc *rpc = report->rpc;
    if (!rpc_is_done(rpc)) {
        struct buf json;
        buf_init(&json, ANSWER_SIZE_MAX);
        report->print(survey, &json);
        reply_json(rpc, &json);
        buf_deinit(&json);
    }
    survey_release(survey);
    rpc_unref(rpc);
}

static void start_report(struct rpc *rpc, struct gateway *gateway,
                         void (*print)(const struct survey *survey, struct buf *out))
{
    struct report *report = arena_alloc(rpc_arena(rpc), sizeof(*report));
    *report = (struct report){rpc, print};
    rpc_ref(rpc);
    (void)survey_start(gateway, rpc_arena(rpc), surveyed, report);
}

static void answer_health(struct rpc *rpc, void *context)
{
    start_report(rpc, context, management_print_health);
}

static void answer_workers(struct rpc *rpc, void *context)
{
    start_report(rpc, context, management_print_workers);
}

static void answer_collections(struct rpc *rpc, void *context)
{
    start_report(rpc, context, management_print_collections);
}

// --- Pages that need nobody

static void answer_stats(struct rpc *rpc, void *context)
{
    struct buf json;
    buf_init(&json, ANSWER_SIZE_MAX);
    stats_print(context, &json);
    reply_json(rpc, &json);
    buf_deinit(&json);
}

// The value of a query parameter that needs no decoding; empty when it is not there.
static struct str query_value(struct rpc *rpc, struct str name)
{
    struct str rest = call_query(rpc_call(rpc));
    while (rest.len > 0) {
        struct str value = str_cut(&rest, '&');
        struct str key = str_cut(&value, '=');
        if (str_equal(key, name))
            return value;
    }
    return (struct str){0};
}

static bool is_one_of(struct str value, const char *a, const char *b)
{
    return value.len == 0 || str_equal_cstr(value, a) || str_equal_cstr(value, b);
}

static void answer_alerts(struct rpc *rpc, void *context)
{
    struct gateway *gateway = context;
    struct str status = query_value(rpc, STR("status"));
    struct str level = query_value(rpc, STR("level"));
    if (!is_one_of(status, "active", "resolved")) {
        rpc_fail(rpc, STATUS_INVALID, "status must be active or resolved");
        return;
    }
    if (!is_one_of(level, "warning", "critical")) {
        rpc_fail(rpc, STATUS_INVALID, "level must be warning or critical");
        return;
    }
    struct buf json;
    buf_init(&json, ANSWER_SIZE_MAX);
    buf_append_cstr(&json, "{\"alerts\":");
    alerts_print(gateway->alerts, status, level, &json);
    buf_append_cstr(&json, "}");
    reply_json(rpc, &json);
    buf_deinit(&json);
}

// /v1/alerts/{id}/resolve
static void answer_resolve(struct rpc *rpc, void *context)
{
    struct gateway *gateway = context;
    const struct str prefix = STR("/v1/alerts/");
    struct str rest = call_path(rpc_call(rpc));
    rest = (struct str){rest.data + prefix.len, rest.len - prefix.len};
    struct str id_text = str_cut(&rest, '/');
    uint64_t id;
    if (!str_equal_cstr(rest, "resolve")) {
        rpc_fail(rpc, STATUS_NOT_FOUND, "path not found: it is /v1/alerts/{id}/resolve");
        return;
    }
    if (!str_to_u64(id_text, &id) || !alerts_resolve(gateway->alerts, id, clock_unix_seconds())) {
        rpc_fail(rpc, STATUS_NOT_FOUND, "alert not found");
        return;
    }
    call_reply(rpc_call(rpc), 200, JSON_TYPE, str_span(STR("{\"success\":true}")));
}

void management_add(struct rpc_router *router, struct gateway *gateway)
{
    rpc_router_add_page(router, "GET", "/v1/system/health", false, answer_health, gateway);
    rpc_router_add_page(router, "GET", "/v1/admin/stats", false, answer_stats, gateway);
    rpc_router_add_page(router, "GET", "/v1/admin/workers", false, answer_workers, gateway);
    rpc_router_add_page(router, "GET", "/v1/admin/collections", false, answer_collections, gateway);
    rpc_router_add_page(router, "GET", "/v1/alerts", false, answer_alerts, gateway);
    rpc_router_add_page(router, "POST", "/v1/alerts/*", false, answer_resolve, gateway);
}
