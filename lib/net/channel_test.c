#include "net/channel.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/server.h"
#include "testing/test.h"

// Channels against a real server, over TCP and within the process: every test runs over both, as
// both promise the same.

enum { SECONDS_MAX = 30, CALLS_MAX = 4000, ECHO_SIZE_MAX = 24 << 20 };

// --- The server: the method's name says what it does

struct service {
    atomic_uint started;
    atomic_uint cancelled;
    _Atomic uint64_t deadline_left_ns; // of the call that came last
};

static void on_start(struct call *call, void *context)
{
    struct service *service = context;
    uint64_t deadline_ns = call_deadline_ns(call);
    (void)atomic_fetch_add(&service->started, 1);
    atomic_store(&service->deadline_left_ns,
                 deadline_ns == UINT64_MAX ? UINT64_MAX : deadline_ns - clock_monotonic_ns());
}

static void send_stream(struct call *call)
{
    static const uint8_t piece[65536];
    uintptr_t left = (uintptr_t)call_user(call);
    while (left > 0 && call_queued_size(call) < 512 << 10 && !call_is_done(call)) {
        call_send(call, (struct span){piece, sizeof(piece)});
        left--;
    }
    call_set_user(call, (void *)left); // NOLINT(performance-no-int-to-ptr): a number, no address
    if (left == 0)
        call_finish(call, STATUS_OK, STR(""));
}

static void on_message(struct call *call, struct span message, void *context)
{
    (void)context;
    struct str path = call_path(call);
    if (str_equal_cstr(path, "/t/Echo")) {
        call_send(call, message);
        call_finish(call, STATUS_OK, STR(""));
    } else if (str_equal_cstr(path, "/t/Metadata")) {
        call_send(call, str_span(call_metadata(call, STR("x-binary-bin"))));
        call_finish(call, STATUS_OK, STR(""));
    } else if (str_equal_cstr(path, "/t/Fail")) {
        call_finish(call, STATUS_NOT_FOUND, STR("50% of \xc3\xa9 is\nnot here"));
    } else if (str_equal_cstr(path, "/t/Stream")) {
        // NOLINTNEXTLINE(performance-no-int-to-ptr): a number, no address
        call_set_user(call, (void *)(uintptr_t)message.data[0]);
        send_stream(call);
    } // /t/Never
}

static void on_writable(struct call *call, void *context)
{
    (void)context;
    send_stream(call);
}

static void on_cancelled(struct call *call, void *context)
{
    (void)call;
    struct service *service = context;
    (void)atomic_fetch_add(&service->cancelled, 1);
}

static const struct call_handler handler = {
    .start = on_start,
    .message = on_message,
    .cancelled = on_cancelled,
    .writable = on_writable,
};

struct fixture {
    struct net *net;
    struct server *server;
    struct channel *channel;
    struct service service;
    char address[128]; // where the server listens
    bool is_inproc;
};

static bool start_server(struct fixture *fixture)
{
    char bound[128];
    fixture->server = server_create(fixture->net);
    bool is_listening = CHECK_OK(server_listen(fixture->server,
                                               &(struct listener_options){
                                                   .address = str_from_cstr(fixture->address),
                                                   .handler = &handler,
                                                   .context = &fixture->service,
                                                   .has_grpc = true,
                                                   .message_size_max = ECHO_SIZE_MAX,
                                               },
                                               NULL, bound));
    if (is_listening)
        memcpy(fixture->address, bound, sizeof(bound));
    return is_listening;
}

static void stop_server(struct fixture *fixture)
{
    server_destroy(fixture->server);
    fixture->server = NULL;
}

static bool set_up(struct fixture *fixture, bool is_inproc)
{
    static atomic_uint count;
    memset(fixture, 0, sizeof(*fixture));
    fixture->is_inproc = is_inproc;
    if (is_inproc)
        (void)snprintf(fixture->address, sizeof(fixture->address), "inproc:channel-test-%u",
                       atomic_fetch_add(&count, 1));
    else
        (void)snprintf(fixture->address, sizeof(fixture->address), "127.0.0.1:0");
    return CHECK_OK(net_create(&(struct net_options){.loop_count = 2}, NULL, &fixture->net)) &&
           start_server(fixture) &&
           CHECK_OK(
               channel_create(fixture->net,
                              &(struct channel_options){.address = str_from_cstr(fixture->address),
                                                        .message_size_max = ECHO_SIZE_MAX},
                              NULL, &fixture->channel));
}

static void tear_down(struct fixture *fixture)
{
    channel_destroy(fixture->channel);
    stop_server(fixture);
    net_destroy(fixture->net);
}

// The body sees is_inproc.
#define FOR_BOTH for (int is_inproc = 0; is_inproc < 2; is_inproc++)

// --- Asking

static uint64_t in_ms(uint64_t ms)
{
    return clock_monotonic_ns() + ms * NS_PER_MS;
}

static enum status ask(struct fixture *fixture, const char *path, struct span message,
                       struct buf *answer, struct error *error)
{
    *error = (struct error){0};
    buf_clear(answer);
    return channel_call_wait(fixture->channel,
                             &(struct channel_request){
                                 .path = str_from_cstr(path),
                                 .message = message,
                                 .deadline_ns = in_ms(SECONDS_MAX * 1000),
                             },
                             answer, error);
}

TEST(calls_and_their_answers)
{
    FOR_BOTH
    {
        struct fixture fixture;
        struct buf answer;
        struct error error;
        buf_init(&answer, ECHO_SIZE_MAX);
        REQUIRE(set_up(&fixture, is_inproc));
        CHECK_OK(ask(&fixture, "/t/Echo", str_span(STR("hello")), &answer, &error));
        CHECK_STR(buf_str(&answer), STR("hello"));
        CHECK_OK(ask(&fixture, "/t/Echo", (struct span){0}, &answer, &error));
        CHECK_EQ_U64(answer.len, 0);
        CHECK_STATUS(ask(&fixture, "/t/Fail", str_span(STR("x")), &answer, &error),
                     STATUS_NOT_FOUND);
        CHECK_STR(str_from_cstr(error.text), STR("50% of \xc3\xa9 is\nnot here"));
        tear_down(&fixture);
        buf_deinit(&answer);
    }
}

TEST(a_message_larger_than_every_window)
{
    enum { SIZE = 20 << 20 };
    FOR_BOTH
    {
        struct fixture fixture;
        struct buf answer;
        struct error error;
        uint8_t *bytes = mem_alloc(SIZE);
        for (size_t i = 0; i < SIZE; i++)
            bytes[i] = (uint8_t)(i * 7 >> 3);
        buf_init(&answer, ECHO_SIZE_MAX);
        REQUIRE(set_up(&fixture, is_inproc));
        CHECK_OK(ask(&fixture, "/t/Echo", (struct span){bytes, SIZE}, &answer, &error));
        CHECK(answer.len == SIZE && memcmp(answer.data, bytes, SIZE) == 0);
        uint8_t *large = mem_alloc(ECHO_SIZE_MAX + 1);
        struct span too_large = {large, ECHO_SIZE_MAX + 1};
        CHECK_STATUS(ask(&fixture, "/t/Echo", too_large, &answer, &error), STATUS_EXHAUSTED);
        CHECK_CONTAINS(str_from_cstr(error.text), STR("25165825"));
        CHECK_CONTAINS(str_from_cstr(error.text), STR("25165824"));
        // Memory for messages comes back.
        uint64_t end_ns = in_ms(SECONDS_MAX * 1000);
        while (net_memory_used(fixture.net) > 1 << 20 && clock_monotonic_ns() < end_ns)
            (void)ask(&fixture, "/t/Echo", str_span(STR("x")), &answer, &error);
        CHECK(net_memory_used(fixture.net) <= 1 << 20);
        tear_down(&fixture);
        mem_free(large);
        mem_free(bytes);
        buf_deinit(&answer);
    }
}

TEST(binary_metadata_arrives_as_it_was)
{
    FOR_BOTH
    {
        struct fixture fixture;
        struct buf answer;
        struct error error = {0};
        const struct metadata metadata = {STR("x-binary-bin"), {"\x00\xff\n,=", 5}};
        buf_init(&answer, 1024);
        REQUIRE(set_up(&fixture, is_inproc));
        CHECK_OK(channel_call_wait(fixture.channel,
                                   &(struct channel_request){.path = STR("/t/Metadata"),
                                                             .deadline_ns = UINT64_MAX,
                                                             .metadata = &metadata,
                                                             .metadata_count = 1},
                                   &answer, &error));
        CHECK_STR(buf_str(&answer), metadata.value);
        tear_down(&fixture);
        buf_deinit(&answer);
    }
}

TEST(the_deadline_goes_along_and_ends_the_call)
{
    FOR_BOTH
    {
        struct fixture fixture;
        struct buf answer;
        struct error error = {0};
        buf_init(&answer, 1024);
        REQUIRE(set_up(&fixture, is_inproc));
        CHECK_STATUS(channel_call_wait(fixture.channel,
                                       &(struct channel_request){.path = STR("/t/Never"),
                                                                 .deadline_ns = in_ms(100)},
                                       &answer, &error),
                     STATUS_TIMEOUT);
        uint64_t left_ns = atomic_load(&fixture.service.deadline_left_ns);
        CHECK(left_ns > 0 && left_ns <= 100 * NS_PER_MS);
        uint64_t end_ns = in_ms(SECONDS_MAX * 1000);
        while (atomic_load(&fixture.service.cancelled) == 0 && clock_monotonic_ns() < end_ns)
            (void)ask(&fixture, "/t/Echo", str_span(STR("x")), &answer, &error);
        CHECK_EQ_U64(atomic_load(&fixture.service.cancelled), 1);
        tear_down(&fixture);
        buf_deinit(&answer);
    }
}

// --- When nobody is there

TEST(nobody_listens)
{
    FOR_BOTH
    {
        struct fixture fixture;
        struct buf answer;
        struct error error;
        buf_init(&answer, 1024);
        REQUIRE(set_up(&fixture, is_inproc));
        stop_server(&fixture);
        uint64_t started_ns = clock_monotonic_ns();
        for (int i = 0; i < 20; i++)
            CHECK_STATUS(ask(&fixture, "/t/Echo", str_span(STR("x")), &answer, &error),
                         STATUS_UNAVAILABLE);
        CHECK(error.text[0] != '\0');
        CHECK(clock_monotonic_ns() - started_ns < 5 * NS_PER_SECOND);
        // Who waits for better times gets his deadline, or his answer.
        CHECK_STATUS(channel_call_wait(fixture.channel,
                                       &(struct channel_request){.path = STR("/t/Echo"),
                                                                 .deadline_ns = in_ms(50),
                                                                 .waits_for_ready = true},
                                       &answer, &error),
                     STATUS_TIMEOUT);
        REQUIRE(start_server(&fixture));
        CHECK_OK(
            channel_call_wait(fixture.channel,
                              &(struct channel_request){.path = STR("/t/Echo"),
                                                        .message = str_span(STR("there")),
                                                        .deadline_ns = in_ms(SECONDS_MAX * 1000),
                                                        .waits_for_ready = true},
                              &answer, &error));
        CHECK_STR(buf_str(&answer), STR("there"));
        tear_down(&fixture);
        buf_deinit(&answer);
    }
}

TEST(a_server_that_comes_back_is_found_again)
{
    FOR_BOTH
    {
        struct fixture fixture;
        struct buf answer;
        struct error error;
        buf_init(&answer, 1024);
        REQUIRE(set_up(&fixture, is_inproc));
        for (int round = 0; round < 5; round++) {
            CHECK_OK(channel_call_wait(
                fixture.channel,
                &(struct channel_request){.path = STR("/t/Echo"),
                                          .message = str_span(STR("again")),
                                          .deadline_ns = in_ms(SECONDS_MAX * 1000),
                                          .waits_for_ready = true},
                &answer, &error));
            stop_server(&fixture);
            REQUIRE(start_server(&fixture));
        }
        tear_down(&fixture);
        buf_deinit(&answer);
    }
}

// --- Many calls, and calls that are given up, on both loops

struct crowd;

struct member {
    struct crowd *crowd;
    struct channel_call *call;
    bool is_done;
};

struct crowd {
    struct task task; // first
    struct fixture *fixture;
    const char *path;
    uint32_t count;
    bool gives_up; // every second one, at once or in the turn after
    atomic_uint done_count;
    atomic_uint ok_count;
    atomic_uint cancelled_count;
    sem_t started;
    sem_t done;
    struct member members[CALLS_MAX];
};

static void member_done(enum status status, struct str text, void *context)
{
    struct member *member = context;
    struct crowd *crowd = member->crowd;
    (void)text;
    member->is_done = true;
    if (status == STATUS_OK)
        (void)atomic_fetch_add(&crowd->ok_count, 1);
    else if (status == STATUS_CANCELLED)
        (void)atomic_fetch_add(&crowd->cancelled_count, 1);
    uint32_t wanted = crowd->gives_up ? crowd->count / 2 : crowd->count;
    if (atomic_fetch_add(&crowd->done_count, 1) + 1 == wanted)
        (void)sem_post(&crowd->done);
}

static void crowd_run(struct task *task)
{
    struct crowd *crowd = (struct crowd *)(void *)task;
    for (uint32_t i = 0; i < crowd->count; i++) {
        struct member *member = &crowd->members[i];
        member->crowd = crowd;
        member->call =
            channel_call(crowd->fixture->channel, &(struct channel_request){
                                                      .path = str_from_cstr(crowd->path),
                                                      .message = str_span(STR("one of many")),
                                                      .deadline_ns = UINT64_MAX,
                                                      .context = member,
                                                      .done = member_done,
                                                  });
        if (crowd->gives_up && i % 2 == 1)
            channel_call_cancel(member->call);
    }
    (void)sem_post(&crowd->started);
}

static struct crowd *crowd_start(struct fixture *fixture, const char *path, uint32_t loop,
                                 bool gives_up)
{
    struct crowd *crowd = mem_alloc(sizeof(*crowd));
    crowd->task.run = crowd_run;
    crowd->fixture = fixture;
    crowd->path = path;
    crowd->count = CALLS_MAX;
    crowd->gives_up = gives_up;
    (void)sem_init(&crowd->started, 0, 0);
    (void)sem_init(&crowd->done, 0, 0);
    loop_post(net_loop(fixture->net, loop), &crowd->task);
    return crowd;
}

static void wait_for(sem_t *semaphore)
{
    struct timespec until;
    CHECK(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_sec += SECONDS_MAX;
    CHECK(sem_timedwait(semaphore, &until) == 0);
}

static void crowd_free(struct crowd *crowd)
{
    (void)sem_destroy(&crowd->started);
    (void)sem_destroy(&crowd->done);
    mem_free(crowd);
}

TEST(thousands_of_calls_at_once_on_two_loops)
{
    FOR_BOTH
    {
        struct fixture fixture;
        REQUIRE(set_up(&fixture, is_inproc));
        struct crowd *crowds[] = {crowd_start(&fixture, "/t/Echo", 0, false),
                                  crowd_start(&fixture, "/t/Echo", 1, true)};
        for (size_t i = 0; i < 2; i++) {
            wait_for(&crowds[i]->done);
            CHECK_EQ_U64(atomic_load(&crowds[i]->ok_count), i == 0 ? CALLS_MAX : CALLS_MAX / 2);
        }
        tear_down(&fixture);
        crowd_free(crowds[0]);
        crowd_free(crowds[1]);
    }
}

TEST(a_channel_that_is_destroyed_ends_its_calls)
{
    FOR_BOTH
    {
        struct fixture fixture;
        REQUIRE(set_up(&fixture, is_inproc));
        struct crowd *crowd = crowd_start(&fixture, "/t/Never", 1, false);
        wait_for(&crowd->started);
        channel_destroy(fixture.channel);
        fixture.channel = NULL;
        wait_for(&crowd->done);
        CHECK_EQ_U64(atomic_load(&crowd->cancelled_count), CALLS_MAX);
        tear_down(&fixture);
        crowd_free(crowd);
    }
}

// --- Streams and back-pressure

struct reader {
    struct task task; // first
    struct fixture *fixture;
    struct timer timer;
    struct channel_call *call;
    uint8_t wanted;
    atomic_uint received;
    uint32_t received_at_pause;
    enum status status;
    sem_t done;
};

static void reader_resume(struct timer *timer)
{
    struct reader *reader =
        (struct reader *)(void *)((char *)timer - offsetof(struct reader, timer));
    CHECK_EQ_U64(atomic_load(&reader->received), reader->received_at_pause);
    channel_call_resume(reader->call);
}

static void reader_received(struct span message, void *context)
{
    struct reader *reader = context;
    CHECK_EQ_U64(message.len, 65536);
    uint32_t count = atomic_fetch_add(&reader->received, 1) + 1;
    if (count % 50 == 10) {
        reader->received_at_pause = count;
        channel_call_pause(reader->call);
        timer_start(&reader->timer, 20 * NS_PER_MS);
    }
}

static void reader_done(enum status status, struct str text, void *context)
{
    (void)text;
    struct reader *reader = context;
    reader->status = status;
    timer_stop(&reader->timer);
    (void)sem_post(&reader->done);
}

static void reader_run(struct task *task)
{
    struct reader *reader = (struct reader *)(void *)task;
    timer_init(&reader->timer, net_loop(reader->fixture->net, 0), reader_resume);
    reader->call = channel_call(reader->fixture->channel, &(struct channel_request){
                                                              .path = STR("/t/Stream"),
                                                              .message = {&reader->wanted, 1},
                                                              .deadline_ns = UINT64_MAX,
                                                              .context = reader,
                                                              .received = reader_received,
                                                              .done = reader_done,
                                                          });
}

TEST(a_reader_that_pauses_holds_the_sender_up)
{
    FOR_BOTH
    {
        struct fixture fixture;
        struct reader reader = {.task = {.run = reader_run}, .fixture = &fixture, .wanted = 250};
        REQUIRE(set_up(&fixture, is_inproc));
        (void)sem_init(&reader.done, 0, 0);
        loop_post(net_loop(fixture.net, 0), &reader.task);
        wait_for(&reader.done);
        CHECK(reader.status == STATUS_OK);
        CHECK_EQ_U64(atomic_load(&reader.received), 250);
        tear_down(&fixture);
        (void)sem_destroy(&reader.done);
    }
}

TEST(what_is_no_address)
{
    struct net *net = NULL;
    struct channel *channel = NULL;
    struct error error = {0};
    static const char *const addresses[] = {"", "nowhere", "host:0", "host:99999", "inproc:"};
    REQUIRE_OK(net_create(&(struct net_options){.loop_count = 1}, NULL, &net));
    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
        CHECK_STATUS(
            channel_create(net, &(struct channel_options){.address = str_from_cstr(addresses[i])},
                           &error, &channel),
            STATUS_INVALID);
    net_destroy(net);
}

TEST_MAIN()
