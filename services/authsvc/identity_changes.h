#pragma once

#include "authsvc/accounts.h"

// What watchers are told, read from the store: everything, in pages, or what changed. Not on a
// loop.

// Made once, never changed, handed to any number of watchers. Any thread.
struct identity_message;

struct identity_message *identity_message_ref(struct identity_message *message);
void identity_message_unref(struct identity_message *message);
const ProtobufCMessage *identity_message_of(const struct identity_message *message);

// The users and keys of the newest change_count changes, as they are now; what is gone comes as
// deleted. The caller owns one reference. What the store says.
enum status identity_read_changes(struct accounts *accounts, const changes_record *changes,
                                  size_t change_count, struct error *error,
                                  struct identity_message **out_message);

// Everything, each page handed to each, borrowed; the first one is marked as a snapshot's.
enum status identity_read_snapshot(struct accounts *accounts, struct error *error,
                                   void (*each)(struct identity_message *message, void *context),
                                   void *context);
