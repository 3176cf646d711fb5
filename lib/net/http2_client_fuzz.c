#include <semaphore.h>

#include "base/assert.h"
#include "net/channel_internal.h"
#include "net/net_internal.h"

// Bytes of a server, cut into pieces, go into a channel's connection on which calls wait for their
// answers. The first byte says what the callers do meanwhile, the second the size of the pieces.
// The connection has no socket: its output is pulled by hand and dropped.

enum { CALLS = 3 };

struct caller {
    struct channel_call *call; // NULL: it has ended
    bool pauses;
    bool cancels;
};

struct fuzz_run {
    struct task task; // first
    struct channel *channel;
    const uint8_t *data;
    size_t size;
    struct caller callers[CALLS];
    sem_t done;
};

static volatile uint8_t run_sum;

static void on_received(struct span message, void *context)
{
    struct caller *caller = context;
    uint8_t sum = 0;
    for (size_t i = 0; i < message.len; i++) // all of it can be read
        sum ^= message.data[i];
    run_sum ^= sum;
    if (caller->cancels) {
        channel_call_cancel(caller->call);
        caller->call = NULL;
    } else if (caller->pauses) {
        channel_call_pause(caller->call);
    }
}

static void on_done(enum status status, struct str text, void *context)
{
    (void)status;
    struct caller *caller = context;
    ASSERT(text.len == 0 || text.data != NULL);
    caller->call = NULL;
}

static void pull(struct http2_client *client)
{
    struct buf out;
    buf_init(&out, SIZE_MAX);
    http2_client_fill(client, &out);
    buf_deinit(&out);
}

static void start_calls(struct fuzz_run *run)
{
    for (uint32_t i = 0; i < CALLS; i++) {
        struct caller *caller = &run->callers[i];
        caller->pauses = (run->data[0] & 1 << i) != 0;
        caller->cancels = (run->data[0] & 8 << i) != 0;
        caller->call = channel_call(run->channel, &(struct channel_request){
                                                      .path = STR("/t/Call"),
                                                      .message = str_span(STR("question")),
                                                      .deadline_ns = UINT64_MAX,
                                                      .context = caller,
                                                      .received = on_received,
                                                      .done = on_done,
                                                  });
    }
}

static void run_fuzz(struct task *task)
{
    struct fuzz_run *run = (struct fuzz_run *)(void *)task;
    struct channel_loop *owner = &run->channel->loops[0];
    struct http2_client *client = http2_client_create(owner);
    size_t piece = (size_t)run->data[1] + 1;
    const uint8_t *data = run->data + 2;
    size_t left = run->size - 2;
    bool is_fine = true;
    http2_client_open(client);
    start_calls(run);
    pull(client);
    while (left > 0 && is_fine) {
        size_t size = left < piece * piece ? left : piece * piece;
        is_fine = http2_client_receive(client, (struct span){data, size});
        if (is_fine)
            pull(client);
        data += size;
        left -= size;
    }
    // Nobody asks for another connection.
    for (uint32_t i = 0; i < CALLS; i++) {
        if (run->callers[i].call != NULL)
            channel_call_cancel(run->callers[i].call);
        run->callers[i].call = NULL;
    }
    http2_client_end(client, STR("the end"));
    ASSERT(owner->clients == NULL && owner->waiting_first == NULL);
    (void)sem_post(&run->done);
}

static void set_up(struct fuzz_run *run)
{
    struct net *net = NULL;
    ASSERT(net_create(&(struct net_options){.loop_count = 1, .memory_max = 1 << 20}, NULL, &net) ==
           STATUS_OK);
    ASSERT(channel_create(
               net,
               &(struct channel_options){.address = STR("127.0.0.1:1"), .message_size_max = 10000},
               NULL, &run->channel) == STATUS_OK);
    run->task.run = run_fuzz;
    ASSERT(sem_init(&run->done, 0, 0) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_run run;
    if (run.channel == NULL)
        set_up(&run);
    if (size < 2)
        return 0;
    run.data = data;
    run.size = size;
    loop_post(run.channel->loops[0].loop, &run.task);
    while (sem_wait(&run.done) != 0)
        continue; // interrupted
    return 0;
}
