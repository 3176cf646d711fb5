#include "server/pages.h"

#include "base/buf.h"
#include "base/metrics.h"

enum { METRICS_SIZE_MAX = 64 << 20 };

#define TEXT_TYPE STR("text/plain; charset=utf-8")

static void reply_text(struct rpc *rpc, int http_code, struct str text)
{
    call_reply(rpc_call(rpc), http_code, TEXT_TYPE, str_span(text));
}

static void answer_live(struct rpc *rpc, void *context)
{
    (void)context;
    reply_text(rpc, 200, STR("ok"));
}

static void answer_ready(struct rpc *rpc, void *context)
{
    struct rpc_router *router = context;
    struct str reason = STR("");
    if (rpc_router_is_ready(router, rpc_arena(rpc), &reason))
        reply_text(rpc, 200, STR("ok"));
    else
        reply_text(rpc, 503, arena_format(rpc_arena(rpc), "not ready: %.*s", STR_ARG(reason)));
}

static void answer_metrics(struct rpc *rpc, void *context)
{
    (void)context;
    struct buf text;
    buf_init(&text, METRICS_SIZE_MAX);
    metrics_print(&text);
    if (buf_has_overflowed(&text))
        reply_text(rpc, 500, STR("too many metrics\n"));
    else
        call_reply(rpc_call(rpc), 200, STR("text/plain; version=0.0.4; charset=utf-8"),
                   buf_span(&text));
    buf_deinit(&text);
}

void pages_add(struct rpc_router *router)
{
    rpc_router_add_page(router, "GET", "/healthz", true, answer_live, NULL);
    rpc_router_add_page(router, "GET", "/livez", true, answer_live, NULL);
    rpc_router_add_page(router, "GET", "/readyz", true, answer_ready, router);
    rpc_router_add_page(router, "GET", "/metrics", true, answer_metrics, NULL);
}
