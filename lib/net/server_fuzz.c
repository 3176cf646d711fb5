#include <semaphore.h>
#include <stdlib.h>

#include "base/assert.h"
#include "net/loop_internal.h"
#include "net/net_internal.h"
#include "net/server_internal.h"

// Bytes of a client, cut into pieces, go into the HTTP/1.1 or the HTTP/2 side of a server. The
// first byte chooses the side, the second the size of the pieces. The connection has no socket: the
// test pulls its output by hand.

struct fuzz_run {
    struct task task;
    struct server_loop *server_loop;
    struct listener *listener;
    const uint8_t *data;
    size_t size;
    sem_t done;
};

static struct call *held[16];
static size_t held_count;

static void on_start(struct call *call, void *context)
{
    (void)context;
    struct str path = call_path(call);
    if (path.len > 1 && path.data[1] == 'r' && call_kind(call) == CALL_HTTP)
        call_reply(call, 403, STR("text/plain"), str_span(path));
}

static void on_message(struct call *call, struct span message, void *context)
{
    (void)context;
    call_add_header(call, STR("x-echo"), call_metadata(call, STR("x-ask")));
    struct str path = call_path(call);
    bool holds = path.len > 1 && path.data[1] == 'h' && held_count < 16;
    if (holds) {
        call_ref(call);
        held[held_count++] = call;
    } else if (call_kind(call) == CALL_HTTP) {
        call_reply(call, 200, STR("text/plain"), message);
    } else {
        call_send(call, message);
        if (path.len < 2 || path.data[1] != 's')
            call_finish(call, STATUS_OK, (struct str){0});
    }
}

static void on_half_close(struct call *call, void *context)
{
    (void)context;
    if (call_kind(call) == CALL_GRPC && held_count == 0)
        call_finish(call, STATUS_OK, (struct str){0});
}

static const struct call_handler handler = {
    .start = on_start, .message = on_message, .half_close = on_half_close};

// Held calls are answered in the middle of it all.
static void answer_held(void)
{
    while (held_count > 0) {
        struct call *call = held[--held_count];
        if (call_kind(call) == CALL_HTTP)
            call_reply(call, 200, (struct str){0}, (struct span){0});
        else
            call_finish(call, STATUS_NOT_FOUND, STR("caf\xc3\xa9"));
        call_unref(call);
    }
}

static void pull(struct connection *connection)
{
    static struct buf out;
    buf_init(&out, SIZE_MAX);
    do {
        buf_clear(&out);
        connection->protocol->fill(connection->session, &out);
    } while (out.len > 0);
    buf_deinit(&out);
}

static void feed(struct connection *connection, const uint8_t *data, size_t size, size_t piece)
{
    while (size > 0 && !connection->was_closed) {
        size_t count = size < piece ? size : piece;
        connection->protocol->received(connection->session, (struct span){data, count});
        data += count;
        size -= count;
        if (!connection->was_closed)
            pull(connection);
        if (size < piece)
            answer_held();
    }
}

static void run_fuzz(struct task *task)
{
    static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    struct fuzz_run *run = (struct fuzz_run *)task;
    bool is_http2 = (run->data[0] & 1) != 0;
    size_t piece = (size_t)run->data[1] + 1;
    ASSERT(server_loop_enter(run->server_loop));
    atomic_fetch_add(&run->listener->connection_count, 1);
    atomic_fetch_add(&run->server_loop->connection_count, 1);
    struct connection *connection = connection_create(run->server_loop, run->listener);
    connection_start(connection, is_http2 ? &http2_protocol : &http1_protocol);
    if (is_http2)
        feed(connection, preface, sizeof(preface) - 1, sizeof(preface));
    feed(connection, run->data + 2, run->size - 2, piece * piece);
    if ((run->data[0] & 2) != 0)
        connection_drain(connection);
    if ((run->data[0] & 4) != 0)
        answer_held();
    pull(connection);
    connection_destroy(connection);
    answer_held();
    ASSERT(run->server_loop->use_count == 0);
    sem_post(&run->done);
}

static bool pin_nothing(struct listener *listener)
{
    (void)listener;
    return true;
}

static void set_up(struct fuzz_run *run)
{
    struct net *net = NULL;
    char address[128];
    ASSERT(net_create(&(struct net_options){.loop_count = 1, .memory_max = 1 << 20}, NULL, &net) ==
           STATUS_OK);
    struct server *server = server_create(net);
    ASSERT(server_listen(server,
                         &(struct listener_options){.address = STR("inproc:fuzz"),
                                                    .handler = &handler,
                                                    .has_grpc = true,
                                                    .has_http = true,
                                                    .is_public = true,
                                                    .message_size_max = 10000,
                                                    .stream_max = 10},
                         NULL, address) == STATUS_OK);
    run->listener = net_inproc_find(net, STR("fuzz"), pin_nothing);
    run->server_loop = server_loop_of(server, net_loop(net, 0));
    run->task.run = run_fuzz;
    sem_init(&run->done, 0, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_run run;
    if (run.listener == NULL)
        set_up(&run);
    if (size < 2)
        return 0;
    run.data = data;
    run.size = size;
    loop_post(run.server_loop->loop, &run.task);
    while (sem_wait(&run.done) != 0)
        ;
    return 0;
}
