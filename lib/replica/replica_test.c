#include "replica/replica.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "api/rpc.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "net/server.h"
#include "testing/test.h"

// Nodes as processes have them, over real connections: a register machine that appends whatever
// comes, so that its state is the history.

enum { NODES_MAX = 3, SECONDS_MAX = 20, PATH_SIZE = 512 };

struct machine {
    pthread_mutex_t lock;
    struct buf history; // each command and a newline
    uint32_t apply_count;
};

struct node {
    struct net *net;
    struct replica_node *node;
    struct replica *replica;
    struct rpc_router *router;
    struct server *server;
    struct machine machine;
    char address[128];
    char folder[PATH_SIZE];
};

struct world {
    struct net *net; // one: the Raft library is for one thread of a process
    struct node nodes[NODES_MAX];
    uint32_t count;
    struct error error;
    size_t log_size_max;
};

// --- The machine

static void apply(uint64_t index, struct span command, struct buf *result, void *context)
{
    struct machine *machine = context;
    pthread_mutex_lock(&machine->lock);
    buf_append(&machine->history, command.data, command.len);
    buf_append_byte(&machine->history, '\n');
    machine->apply_count++;
    pthread_mutex_unlock(&machine->lock);
    buf_append_u64(result, index);
}

static void encode(struct buf *out, void *context)
{
    struct machine *machine = context;
    pthread_mutex_lock(&machine->lock);
    buf_append(out, machine->history.data, machine->history.len);
    pthread_mutex_unlock(&machine->lock);
}

static enum status decode(struct span bytes, struct error *error, void *context)
{
    struct machine *machine = context;
    (void)error;
    pthread_mutex_lock(&machine->lock);
    buf_clear(&machine->history);
    buf_append(&machine->history, bytes.data, bytes.len);
    pthread_mutex_unlock(&machine->lock);
    return STATUS_OK;
}

static const struct replica_machine history_machine = {apply, encode, decode, NULL};

// --- Nodes

static void listen_first(struct world *world, uint32_t i)
{
    struct node *node = &world->nodes[i];
    const struct listener_options options = {
        .address = node->address[0] != '\0' ? str_from_cstr(node->address) : STR("127.0.0.1:0"),
        .handler = &rpc_call_handler,
        .context = node->router,
        .has_grpc = true,
        .message_size_max = LIMIT_REQUEST_SIZE_WORKER,
    };
    char address[128];
    REQUIRE_OK(server_listen(node->server, &options, &world->error, address));
    (void)snprintf(node->address, sizeof(node->address), "%s", address);
}

static void open_node(struct world *world, uint32_t i)
{
    struct node *node = &world->nodes[i];
    node->net = world->net;
    (void)pthread_mutex_init(&node->machine.lock, NULL);
    buf_init(&node->machine.history, SIZE_MAX);
    node->machine.apply_count = 0;
    node->router = rpc_router_create(&(struct rpc_router_options){0});
    node->server = server_create(node->net);
    REQUIRE_OK(replica_node_open(
        &(struct replica_node_options){
            .net = node->net,
            .directory = str_from_cstr(node->folder),
            .cluster_id = 7,
            .node_id = i + 1,
            .address = str_from_cstr(node->folder),
            .election_ms = 300,
        },
        &world->error, &node->node));
    replica_node_serve(node->node, node->router);
    listen_first(world, i);
}

static void join(struct world *world, uint32_t i)
{
    struct node *node = &world->nodes[i];
    struct replica_member members[NODES_MAX];
    for (uint32_t k = 0; k < world->count; k++) {
        members[k] = (struct replica_member){.node_id = k + 1};
        REQUIRE_OK(replica_node_set_peer(node->node, k + 1, str_from_cstr(world->nodes[k].address),
                                         &world->error));
    }
    REQUIRE_OK(replica_open(
        &(struct replica_options){
            .node = node->node,
            .group_id = 3,
            .machine = &history_machine,
            .context = &node->machine,
            .members = members,
            .member_count = world->count,
            .log_size_max = world->log_size_max,
        },
        &world->error, &node->replica));
}

static void close_node(struct world *world, uint32_t i)
{
    struct node *node = &world->nodes[i];
    if (node->net == NULL)
        return;
    server_destroy(node->server);
    replica_close(node->replica);
    replica_node_close(node->node);
    rpc_router_destroy(node->router);
    buf_deinit(&node->machine.history);
    (void)pthread_mutex_destroy(&node->machine.lock);
    node->net = NULL;
    node->replica = NULL;
}

static void open_world(struct world *world, uint32_t count)
{
    *world = (struct world){.count = count};
    REQUIRE_OK(net_create(&(struct net_options){.loop_count = 2}, &world->error, &world->net));
    for (uint32_t i = 0; i < count; i++) {
        (void)snprintf(world->nodes[i].folder, sizeof(world->nodes[i].folder), "%s/node%u",
                       test_temporary_folder(), i + 1);
        open_node(world, i);
    }
    for (uint32_t i = 0; i < count; i++)
        join(world, i);
}

static void close_world(struct world *world)
{
    for (uint32_t i = 0; i < world->count; i++)
        close_node(world, i);
    net_destroy(world->net);
}

// --- Waiting

static void pause_ms(long ms)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

// The position of the one that leads.
static uint32_t wait_leader(struct world *world)
{
    uint64_t until_ns = clock_monotonic_ns() + SECONDS_MAX * 1000000000ULL;
    while (clock_monotonic_ns() < until_ns) {
        for (uint32_t i = 0; i < world->count; i++) {
            if (world->nodes[i].replica != NULL && replica_is_leading(world->nodes[i].replica))
                return i;
        }
        pause_ms(5);
    }
    bool somebody_leads = false;
    CHECK(somebody_leads);
    return 0;
}

struct waiting {
    sem_t done;
    enum status status;
    uint64_t index;
    uint64_t answer;
};

static void proposed(enum status status, uint64_t index, struct span result, void *context)
{
    struct waiting *waiting = context;
    waiting->status = status;
    waiting->index = index;
    if (status == STATUS_OK && result.len == 8)
        memcpy(&waiting->answer, result.data, 8);
    (void)sem_post(&waiting->done);
}

static enum status propose(struct world *world, uint32_t i, const char *words)
{
    struct waiting waiting = {0};
    struct span command = {(const uint8_t *)words, strlen(words)};
    (void)sem_init(&waiting.done, 0, 0);
    enum status status = replica_propose(world->nodes[i].replica, command, proposed, &waiting);
    if (status == STATUS_OK) {
        while (sem_wait(&waiting.done) != 0)
            continue;
        status = waiting.status;
    }
    if (status == STATUS_OK)
        CHECK_EQ_U64(waiting.answer, waiting.index); // the machine's answer came back
    (void)sem_destroy(&waiting.done);
    return status;
}

// By whoever leads, as often as it takes.
static void propose_somehow(struct world *world, const char *words)
{
    uint64_t until_ns = clock_monotonic_ns() + SECONDS_MAX * 1000000000ULL;
    while (clock_monotonic_ns() < until_ns) {
        if (propose(world, wait_leader(world), words) == STATUS_OK)
            return;
        pause_ms(5);
    }
    bool was_taken = false;
    CHECK(was_taken);
}

static bool has_history(struct node *node, const char *wanted)
{
    pthread_mutex_lock(&node->machine.lock);
    bool is_equal = str_equal(buf_str(&node->machine.history), str_from_cstr(wanted));
    pthread_mutex_unlock(&node->machine.lock);
    return is_equal;
}

static void wait_history(struct world *world, uint32_t i, const char *wanted)
{
    uint64_t until_ns = clock_monotonic_ns() + SECONDS_MAX * 1000000000ULL;
    while (clock_monotonic_ns() < until_ns && !has_history(&world->nodes[i], wanted))
        pause_ms(5);
    CHECK(has_history(&world->nodes[i], wanted));
}

// --- Tests

TEST(one_alone_keeps_what_it_acknowledged)
{
    struct world world;
    open_world(&world, 1);
    propose_somehow(&world, "a");
    propose_somehow(&world, "b");
    close_node(&world, 0);
    open_node(&world, 0);
    join(&world, 0);
    propose_somehow(&world, "c");
    wait_history(&world, 0, "a\nb\nc\n");
    close_world(&world);
}

TEST(a_snapshot_takes_the_place_of_the_log)
{
    struct world world;
    struct replica_stats stats = {0};
    char words[1025];
    open_world(&world, 1);
    close_node(&world, 0);
    world.log_size_max = 64 << 10;
    open_node(&world, 0);
    join(&world, 0);
    memset(words, 'x', sizeof(words) - 1);
    words[sizeof(words) - 1] = '\0';
    for (int i = 0; i < 300; i++)
        propose_somehow(&world, words);
    for (int i = 0; i < 400 && stats.snapshot_index == 0; i++) {
        replica_get_stats(world.nodes[0].replica, &stats);
        pause_ms(5);
    }
    CHECK(stats.snapshot_index > 0);
    close_node(&world, 0);
    open_node(&world, 0);
    join(&world, 0);
    propose_somehow(&world, "last");
    CHECK(world.nodes[0].machine.apply_count < 300);
    pthread_mutex_lock(&world.nodes[0].machine.lock);
    CHECK_EQ_U64(world.nodes[0].machine.history.len, 300 * sizeof(words) + 5);
    pthread_mutex_unlock(&world.nodes[0].machine.lock);
    close_world(&world);
}

TEST(three_apply_the_same_and_outlive_their_leader)
{
    struct world world;
    open_world(&world, 3);
    propose_somehow(&world, "a");
    uint32_t leader = wait_leader(&world);
    uint32_t other = (leader + 1) % 3;
    CHECK_STATUS(propose(&world, other, "never"), STATUS_NOT_LEADER);
    close_node(&world, leader);
    propose_somehow(&world, "b");
    open_node(&world, leader);
    join(&world, leader);
    propose_somehow(&world, "c");
    for (uint32_t i = 0; i < 3; i++)
        wait_history(&world, i, "a\nb\nc\n");
    close_world(&world);
}

TEST(one_that_missed_more_than_the_log_keeps_fetches_a_snapshot)
{
    struct world world;
    char wanted[64 << 10] = "";
    size_t size = 0;
    open_world(&world, 3);
    uint32_t away = (wait_leader(&world) + 1) % 3;
    for (uint32_t i = 0; i < 3; i++)
        close_node(&world, i);
    world.log_size_max = 4 << 10;
    for (uint32_t i = 0; i < 3; i++) {
        if (i != away)
            open_node(&world, i);
    }
    for (uint32_t i = 0; i < 3; i++) {
        if (i != away)
            join(&world, i);
    }
    for (int i = 0; i < 6000; i++) {
        char words[16];
        (void)snprintf(words, sizeof(words), "%d", i);
        propose_somehow(&world, words);
        size += (size_t)snprintf(wanted + size, sizeof(wanted) - size, "%d\n", i);
    }
    open_node(&world, away);
    join(&world, away);
    wait_history(&world, away, wanted);
    CHECK(world.nodes[away].machine.apply_count < 6000);
    close_world(&world);
}

TEST(the_lead_can_be_handed_over)
{
    struct world world;
    open_world(&world, 3);
    propose_somehow(&world, "a");
    uint32_t leader = wait_leader(&world);
    uint32_t other = (leader + 1) % 3;
    for (int i = 0; i < 1000 && !replica_is_leading(world.nodes[other].replica); i++) {
        replica_transfer(world.nodes[leader].replica, other + 1);
        pause_ms(20);
    }
    CHECK(replica_is_leading(world.nodes[other].replica));
    propose_somehow(&world, "b");
    wait_history(&world, leader, "a\nb\n");
    close_world(&world);
}

TEST(what_is_too_large_is_refused)
{
    struct world world;
    struct waiting waiting = {0};
    open_world(&world, 1);
    size_t size = REPLICA_COMMAND_SIZE_MAX + 1;
    uint8_t *bytes = mem_alloc(size);
    CHECK_STATUS(
        replica_propose(world.nodes[0].replica, (struct span){bytes, size}, proposed, &waiting),
        STATUS_INVALID);
    mem_free(bytes);
    close_world(&world);
}

TEST(a_directory_has_one_owner)
{
    struct world world;
    struct replica_node *second = NULL;
    struct error error;
    open_world(&world, 1);
    CHECK_STATUS(replica_node_open(
                     &(struct replica_node_options){
                         .net = world.nodes[0].net,
                         .directory = str_from_cstr(world.nodes[0].folder),
                         .node_id = 1,
                     },
                     &error, &second),
                 STATUS_PRECONDITION);
    close_world(&world);
}

TEST_MAIN()
