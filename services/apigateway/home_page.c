#include "apigateway/home_page.h"

// Nothing is loaded from elsewhere, and nothing runs.
static const char page[] =
    "<!doctype html>\n"
    "<html lang=\"en\">\n"
    "<head>\n"
    "<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<title>Vectron</title>\n"
    "</head>\n"
    "<body>\n"
    "<h1>Vectron</h1>\n"
    "<p>A distributed vector database. This is its gateway.</p>\n"
    "<ul>\n"
    "<li><a href=\"/docs\">The interface</a>, also as <a href=\"/openapi.json\">OpenAPI</a></li>\n"
    "<li><a href=\"/healthz\">Does it run?</a> <a href=\"/readyz\">Is it ready?</a></li>\n"
    "<li><a href=\"/metrics\">Metrics</a></li>\n"
    "</ul>\n"
    "</body>\n"
    "</html>\n";

static void answer(struct rpc *rpc, void *context)
{
    (void)context;
    struct call *call = rpc_call(rpc);
    call_add_header(call, STR("content-security-policy"),
                    STR("default-src 'none'; base-uri 'none'; form-action 'none'; "
                        "frame-ancestors 'none'"));
    call_add_header(call, STR("x-content-type-options"), STR("nosniff"));
    call_add_header(call, STR("referrer-policy"), STR("no-referrer"));
    call_reply(call, 200, STR("text/html; charset=utf-8"),
               (struct span){(const uint8_t *)page, sizeof(page) - 1});
}

void home_page_add(struct rpc_router *router)
{
    rpc_router_add_page(router, "GET", "/", true, answer, NULL);
}
