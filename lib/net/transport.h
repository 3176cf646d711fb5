#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/status.h"
#include "base/str.h"
#include "net/loop.h"
#include "net/net.h"
#include "net/tls.h"

// One TCP connection on a loop, with or without TLS: bytes in, bytes out. Private to lib/net; the
// server's and the channel's protocols sit on it. Loop only.
//
// Output is pulled: after transport_wants_flush the handler's fill is asked, once per turn of the
// loop, to append what it has; what the socket does not take is kept, and fill is not asked again
// before it went. That is where the batching comes from.

struct transport;

struct transport_handler {
    void (*opened)(struct transport *transport, void *context); // connected, handshake done
    // Bytes that came; borrowed until it returns.
    void (*received)(struct transport *transport, struct span bytes, void *context);
    // Append what is to be sent, 256 KiB at most.
    void (*fill)(struct transport *transport, struct buf *out, void *context);
    // The last callback, exactly once; the transport is gone afterwards. status OK: closed by us or
    // by the peer in order.
    void (*closed)(struct transport *transport, enum status status, struct str text, void *context);
};

// Take over an accepted socket.
struct transport *transport_accept(struct net *net, struct loop *loop, int fd, struct tls *tls,
                                   const struct transport_handler *handler, void *context);
// Where to connect to. Borrowed for the call only, but for tls.
struct transport_target {
    struct str host; // names are looked up off the loop
    struct str port;
    struct tls *tls;      // NULL: plain
    struct str authority; // checked in the certificate
};

// Failure arrives through closed.
struct transport *transport_connect(struct net *net, struct loop *loop,
                                    const struct transport_target *target,
                                    const struct transport_handler *handler, void *context);

void transport_wants_flush(struct transport *transport);
size_t transport_queued_size(const struct transport *transport); // taken from fill, not yet sent
void transport_pause(struct transport *transport);               // stop reading
void transport_resume(struct transport *transport);
void transport_finish(struct transport *transport); // close once everything queued is sent
void transport_close(struct transport *transport);  // close now; closed comes later in this turn

struct loop *transport_loop(const struct transport *transport);
struct str transport_peer(const struct transport *transport); // IP address
struct str transport_alpn(const struct transport *transport); // "h2", "http/1.1", empty
uint64_t transport_last_received_ns(const struct transport *transport);
bool transport_has_tls(const struct transport *transport);
