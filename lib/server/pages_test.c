#include "server/pages.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/rpc.h"
#include "base/buf.h"
#include "base/metrics.h"
#include "net/address.h"
#include "net/server.h"
#include "testing/test.h"

static struct net *net;
static struct rpc_router *router;
static struct server *server;
static char address[128];

static bool start(void)
{
    struct error error = {0};
    if (!CHECK_OK(net_create(&(struct net_options){.loop_count = 1}, &error, &net)))
        return false;
    router = rpc_router_create(&(struct rpc_router_options){0});
    pages_add(router);
    server = server_create(net);
    struct listener_options options = {.address = STR("127.0.0.1:0"),
                                       .handler = &rpc_call_handler,
                                       .context = router,
                                       .has_http = true,
                                       .message_size_max = 1 << 20};
    return CHECK_OK(server_listen(server, &options, &error, address));
}

static void stop(void)
{
    server_destroy(server);
    rpc_router_destroy(router);
    net_destroy(net);
}

// The whole answer to a GET, headers and body.
static struct str get(const char *path, struct buf *out)
{
    struct error error;
    struct address parsed;
    CHECK_OK(address_parse(str_from_cstr(address), &error, &parsed));
    struct addrinfo *info = NULL;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    CHECK(getaddrinfo(parsed.host, parsed.port, &hints, &info) == 0);
    int file = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(file, info->ai_addr, info->ai_addrlen) == 0);
    freeaddrinfo(info);

    char request[256];
    int len = snprintf(request, sizeof(request),
                       "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    CHECK(write(file, request, (size_t)len) == len);
    buf_clear(out);
    for (;;) {
        uint8_t *room = buf_reserve(out, 65536);
        ssize_t got = room == NULL ? 0 : read(file, room, 65536);
        if (got <= 0)
            break;
        buf_commit(out, (size_t)got);
    }
    close(file);
    return buf_str(out);
}

static void check_page(const char *path, const char *first_line, const char *body)
{
    struct buf out;
    buf_init(&out, 1 << 24);
    struct str answer = get(path, &out);
    CHECK(str_starts_with(answer, str_from_cstr(first_line)));
    CHECK_CONTAINS(answer, str_from_cstr(body));
    buf_deinit(&out);
}

TEST(pages)
{
    if (!start())
        return;
    check_page("/healthz", "HTTP/1.1 200 ", "\r\n\r\nok");
    check_page("/livez", "HTTP/1.1 200 ", "\r\n\r\nok");
    rpc_router_set_ready(router, false, STR("no placement driver yet"));
    check_page("/readyz", "HTTP/1.1 503 ", "not ready: no placement driver yet");
    check_page("/livez", "HTTP/1.1 200 ", "\r\n\r\nok");
    rpc_router_set_ready(router, true, STR(""));
    check_page("/readyz", "HTTP/1.1 200 ", "\r\n\r\nok");
    metric_add(metric_counter("vectron_pages_test_total", NULL, "Tests."), 3);
    check_page("/metrics", "HTTP/1.1 200 ", "\nvectron_pages_test_total 3\n");
    check_page("/metrics", "HTTP/1.1 200 ", "\nprocess_open_fds ");
    stop();
}

TEST_MAIN()
