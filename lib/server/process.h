#pragma once

#include <stdint.h>

#include "base/config.h"
#include "base/error.h"
#include "net/net.h"

// What every program does once, in the same order: settings, --help, --version, --print-config,
// log, file-descriptor limit, network, start of its services, the ready line, then wait for SIGTERM
// or SIGINT, drain (30 s at most, a second signal ends it at once), stop, exit code. A main is a
// table and one call.

// A service in the process. All functions run on the main thread, which is no loop.
struct service_ops {
    const char *name; // "worker"
    const struct setting *settings;
    uint32_t setting_count;
    // Open files, bind ports, start. Appends its addresses to the ready line (ready_add).
    enum status (*start)(struct net *net, const struct config *config, struct error *error,
                         void **out_service);
    void (*drain)(void *service, uint64_t grace_ns); // finish what is in flight
    void (*stop)(void *service);                     // close everything, free
};

// The addresses that the ready line shows: ready_add("grpc", "127.0.0.1:9090"). Both are copied;
// inproc: addresses are not shown. Main thread, during start.
void ready_add(const char *name, const char *address);
// Put in front of the names that are added from now on ("auth-"); NULL: those are not shown. For a
// process of several services.
void ready_set_prefix(const char *prefix);

// Settings that every program has: log-level (VECTRON_LOG_LEVEL), log-format, loops, … A service's
// own may not have the same names.
extern const struct setting process_settings[];
extern const uint32_t process_setting_count;

int process_main(const struct service_ops *service, int argc, char **argv);

// The pieces, for `vectron dev`, which starts five services.
struct process;
// Settings of the process itself from config; sets up log, limits, signals and the network.
enum status process_create(const struct config *config, struct error *error,
                           struct process **out_process);
struct net *process_net(struct process *process);
void process_print_ready(struct process *process, const char *binary);
// Blocks until a signal asks to end (returns 0) or something failed (returns 1). From then on a
// second signal ends the process at once, and so does the clock when draining and stopping take
// longer than PROCESS_END_SECONDS.
int process_wait(struct process *process);
void process_destroy(struct process *process); // process may be NULL; after its services

enum { PROCESS_DRAIN_SECONDS = 30, PROCESS_END_SECONDS = 60 };

// Something happened that a running process cannot go on with: it ends as by SIGTERM, with exit
// code
// 1. Any thread.
void process_fail(void);
const char *version_text(void); // "vectron 0.1.0 (…)"
