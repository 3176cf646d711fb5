#pragma once

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "api/rpc.h"
#include "base/mem.h"
#include "net/loop.h"
#include "net/pool.h"
#include "replica/group.h"
#include "replica/replica.h"
#include "replica/wal.h"

// What the parts of a node share. node.c: its life, the turn that ends with one flush of the log,
// and what comes when a batch is on disk; peers.c: messages to and from other nodes; replica.c: a
// group with its machine, proposals and reads; snapshot.c: the files of machines whose state is in
// memory, and fetching one from another node.
//
// Everything here belongs to the net's first loop, except where a lock or an atomic is named.

enum { NODE_PEERS_MAX = 1024, ADDRESS_SIZE = 280 };

// Bytes to one node that are not sent yet; more are dropped, as if lost on their way.
#define PEER_QUEUE_SIZE_MAX ((size_t)64 << 20)

struct peer {
    struct replica_node *node;
    uint64_t id;
    char address[ADDRESS_SIZE];        // under the node's lock
    char public_address[ADDRESS_SIZE]; // under the node's lock; empty: not told yet
    struct channel *channel;           // under the node's lock, replaced with the address
    struct buf queue;                  // encoded messages
    bool is_sending;
    uint64_t send_again_ns; // not before
};

// A message that waits for a vote to be on disk.
struct held_message {
    struct held_message *next;
    uint64_t batch; // UINT64_MAX: of this turn
    uint64_t to;
    size_t size;
    uint8_t bytes[];
};

struct replica_node {
    struct net *net;
    struct loop *loop;
    struct replica_node_options options; // its texts are below
    char address[ADDRESS_SIZE];
    char internal_token[256];
    struct metadata metadata;
    uint32_t metadata_count;
    int directory_fd;
    int lock_fd;
    struct wal *wal;

    pthread_mutex_t lock; // of peers and their texts
    struct peer *peers[NODE_PEERS_MAX];
    uint32_t peer_count;

    struct replica *replicas; // first loop, as all below
    struct held_message *held;
    struct held_message **held_last;
    uint64_t batch; // the last that was flushed
    struct metric *commands_total;
    bool is_turn_queued;
    bool is_closing;
    sem_t nothing_sent; // posted when, closing, no call is under way any more
    struct task turn_task;
    struct task written_task;
    atomic_bool is_written_posted;
};

struct proposal {
    struct task task;
    struct proposal *next;
    struct loop *loop; // NULL: made by a thread that is no loop
    replica_done_fn done;
    void *context;
    enum status status;
    uint64_t index;
    struct buf result;
    size_t size;
    uint8_t command[];
};

struct snapshot_job;
struct snapshot_fetch;

struct replica {
    struct replica *next; // of the node's list
    struct replica_node *node;
    struct group *group;
    uint64_t group_id;
    const struct replica_machine *machine;
    void *context;
    size_t log_size_max;
    struct timer timer;

    pthread_mutex_t lock; // of the queue
    struct proposal *first;
    struct proposal **last;
    uint32_t queue_count;
    size_t queue_size;
    bool is_posted;
    bool is_closing;
    struct task task;

    // First loop.
    struct proposal *taken; // from the queue, not yet proposed: the lead is being handed over
    uint64_t machine_index; // the machine has applied it
    uint64_t snapshot_index;
    size_t size_since_snapshot;
    size_t snapshot_size_at;
    struct snapshot_job *snapshot_job; // NULL: none is being written
    struct snapshot_fetch *fetch;      // NULL: none is under way
    sem_t *ended;                      // not NULL: it is being closed, nothing new is begun

    // For other threads.
    atomic_bool is_leading;
    atomic_uint_fast64_t term;
    atomic_uint_fast64_t leader_id;
    atomic_uint_fast64_t applied;
    atomic_uint_fast64_t snapshot;
    atomic_uint_fast64_t log_size;
    atomic_uint_fast64_t snapshot_failure_count;
};

// --- node.c

// Something was done: flush the log and the peers at the end of this turn.
void node_turn(struct replica_node *node);
uint64_t node_now_ms(const struct replica_node *node);
// Run on the first loop and wait for it. Not on a loop.
void node_run_wait(struct replica_node *node, void (*run)(void *argument), void *argument);
void node_trouble(const struct replica *replica, struct str text);
void node_sent(struct replica_node *node); // a call has ended
struct replica *node_find(struct replica_node *node, uint64_t group_id);

// --- peers.c

struct peer *node_peer(struct replica_node *node, uint64_t id); // any thread; NULL
void peer_send(struct replica_node *node, uint64_t to, const PEER(PeerMessage) * message,
               bool is_held);
void peers_release_held(struct replica_node *node, uint64_t written);
void peers_flush(struct replica_node *node);
void peers_add_service(struct replica_node *node, struct rpc_router *router);
void peer_free(struct peer *peer);

// --- replica.c

void replica_arm(struct replica *replica); // after anything that may have moved its timeout
void replica_written(struct replica *replica, uint64_t batch);
void replica_job_ended(struct replica *replica); // what snapshot.c had begun

// --- snapshot.c

// The newest snapshot's state into the machine. CORRUPT: there is none that has index_min.
enum status snapshot_load(struct replica *replica, uint64_t index_min, struct error *error);
void snapshot_make(struct replica *replica);
void snapshot_fetch_start(struct replica *replica, uint64_t from, uint64_t index_min);
void snapshot_fetch_cancel(struct replica *replica);
void snapshot_serve(struct rpc *rpc, void *context);
