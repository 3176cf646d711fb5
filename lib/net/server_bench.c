#include "net/server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "net/tls.h"

// A gRPC and HTTP server that answers each message with itself, to be measured from outside:
//
//     net_server_bench 127.0.0.1:9000 1 &
//     h2load -n 400000 -c 8 -m 10 -d request.bin -H 'content-type: application/grpc'
//         -H 'te: trailers' http://127.0.0.1:9000/echo.Echo/Echo
//
// After SIGTERM it prints the CPU time that it used. With a certificate and key as third and fourth
// argument it speaks TLS.

static void on_start(struct call *call, void *context)
{
    (void)call;
    (void)context;
}

static void on_message(struct call *call, struct span message, void *context)
{
    (void)context;
    if (call_kind(call) == CALL_HTTP) {
        call_reply(call, 200, STR("application/octet-stream"), message);
        return;
    }
    call_send(call, message);
    if (!str_ends_with(call_path(call), STR("Stream")))
        call_finish(call, STATUS_OK, (struct str){0});
}

static void on_half_close(struct call *call, void *context)
{
    (void)context;
    if (call_kind(call) == CALL_GRPC)
        call_finish(call, STATUS_OK, (struct str){0});
}

static const struct call_handler handler = {
    .start = on_start, .message = on_message, .half_close = on_half_close};

static void print_usage(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double seconds = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                     (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("cpu %.3f s, resident at most %ld KiB\n", seconds, usage.ru_maxrss);
}

int main(int argc, char **argv)
{
    const char *address = argc > 1 ? argv[1] : "127.0.0.1:0";
    uint32_t loop_count = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1;
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    struct net *net = NULL;
    struct tls *tls = NULL;
    struct error error = {0};
    enum status status = net_create(&(struct net_options){.loop_count = loop_count}, &error, &net);
    if (status == STATUS_OK && argc > 4)
        status = tls_server_create(&(struct tls_options){.cert_file = str_from_cstr(argv[3]),
                                                         .key_file = str_from_cstr(argv[4])},
                                   &error, &tls);
    struct server *server = status == STATUS_OK ? server_create(net) : NULL;
    char real[128];
    if (status == STATUS_OK)
        status = server_listen(server,
                               &(struct listener_options){.address = str_from_cstr(address),
                                                          .handler = &handler,
                                                          .tls = tls,
                                                          .has_grpc = true,
                                                          .has_http = true,
                                                          .message_size_max = 256 << 20},
                               &error, real);
    if (status != STATUS_OK) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    printf("ready %s\n", real);
    fflush(stdout);
    int signal_number = 0;
    while (sigwait(&ends, &signal_number) == 0 && signal_number == SIGUSR1)
        print_usage();
    server_drain(server, 1000000000);
    server_destroy(server);
    tls_destroy(tls);
    net_destroy(net);
    print_usage();
    return 0;
}
